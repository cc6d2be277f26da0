"""What happens when one of the page's controls is used."""

from typing import Any

import gradio as gr

from annotators.ledger import Account, Role
from apps.review.access import Gate
from apps.review.call import Call
from apps.review.desk import UNSAVED, Choice, Desk, Shown
from apps.review.layout import SETTLES, Layout
from apps.review.markup import notice, say
from apps.review.panels import changed_rows, idle_panel, progress_panel, queue_panel, words_panel
from apps.review.sheet import Sheet, Token
from apps.review.side import own_panel, side_panel
from apps.review.stage import stage
from schemas.errors import AccessError, EngineError, LedgerError


class Page(Layout):
    """The controls with their handlers.

    Handlers take the request first, then the values of `inputs` in order, and give the values of `outputs` in order.
    Each begins with `_enter`, which refuses who may not do it: what a page hides, anybody can still send.
    """

    def __init__(self, desk: Desk, gate: Gate, reviewer: str = "") -> None:
        self._desk, self._gate = desk, gate
        super().__init__(desk, has_login=gate.has_login, reviewer=reviewer)

    # Handlers

    def on_load(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """The page was opened: show the next item."""
        return self._next(self._enter(request, values))

    def on_login(self, reviewer: str, request: gr.Request) -> list[Any]:
        """The page was opened: say who decides, where people log in, and what else they may do."""
        account = self._caller(request, reviewer or "", "viewer")
        settles = self._gate.has_login and account is not None and account.may("adjudicator")
        return [account.name if account else "", gr.update(choices=SETTLES) if settles else gr.skip()]

    def on_name(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A name was typed: show that reviewer's next item."""
        call = self._enter(request, values)
        if call.token is not None and self._is_unsaved(call):
            owner = self._desk.again(call.token, call.reviewer).item.lease_owner
            back = f"Put the name back to {owner} and save the edit" if owner else "Save the edit"
            return self._warn(f"You changed fields. {back} (Ctrl+Enter), or reset the fields first.")
        return self._next(call)

    def on_name_left(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """The name field was left: go on if nothing is shown yet."""
        call = self._enter(request, values)
        return gr.skip() if call.token is not None else self._next(call)

    def on_accept(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Accept what is shown."""
        return self._decide("accept", request, values)

    def on_save(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Save the fields as the truth."""
        return self._decide("edit", request, values)

    def on_reject(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Keep the item, or everything about its episode, out of every release; the sheet says why."""
        return self._decide("reject", request, values)

    def on_skip(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Leave the item to someone else."""
        return self._decide("skip", request, values)

    def on_undo(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Take back the last decision and show its item."""
        call = self._enter(request, values, "reviewer")
        if not call.reviewer:
            return self._warn("Type your name first.")
        if self._is_unsaved(call):
            return self._warn(UNSAVED)
        try:
            shown = self._desk.undo(reviewer=call.reviewer, token=call.token)
        except LedgerError as error:
            return self._warn(str(error))
        return self._warn("There is nothing of yours to undo.") if shown is None else self._show(shown, call)

    def on_reset(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Drop the draft: put the fields back to what the item says."""
        call = self._enter(request, values)
        return gr.skip() if call.token is None else self._open(call.token.item_id, call, afresh=True)

    def on_newest(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Fill the fields with the newest proposal, in place of what a person confirmed before it came."""
        call = self._enter(request, values)
        if call.token is None:
            return gr.skip()
        shown = self._desk.again(call.token, call.reviewer)
        return self._show(shown, call, Sheet.of(shown.newest, call.token, sequence=call.sheet.sequence + 1))

    def on_open(self, event: gr.EventData, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A row of the queue was clicked: what was typed about the other item stays as a draft."""
        call = self._enter(request, values)
        if self._is_unsaved(call):
            return self._warn(UNSAVED)
        return self._open(str(event.item), call)

    def on_typing(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """The sheet changed: keep it as a draft, and show the words it makes."""
        call = self._enter(request, values)
        if call.token is None:
            return gr.skip()
        if call.decides:
            self._desk.keep(call.sheet, call.reviewer)
        return self._words(call.token, call)

    def on_remark(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Something was said about the item without deciding."""
        call = self._enter(request, values, "reviewer")
        if call.token is None or call.sheet.remark is None or not call.reviewer:
            return gr.skip()
        try:
            self._desk.remark(call.sheet.remark, token=call.token, reviewer=call.reviewer)
        except LedgerError as error:
            return [gr.skip(), notice(str(error))]
        done = notice(f"Noted: {call.sheet.remark.kind}.", kind="info")
        return [side_panel(self._desk.again(call.token, call.reviewer)), done]

    def on_filter(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A filter changed: show the queue it leaves."""
        return self._lists(self._enter(request, values))

    def on_work(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Other work was chosen: show what waits there, or what was decided."""
        call = self._enter(request, values)
        if call.wants_own:
            queue, progress = self._lists(call)
            shown: dict[Any, Any] = {self.queue: queue, self.progress: progress}
            return [shown.get(output, gr.skip()) for output in self.outputs]
        return self._warn(UNSAVED) if self._is_unsaved(call) else self._next(call)

    def on_tick(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Time passed: show what others did."""
        return self._lists(self._enter(request, values))

    # What they share

    def _caller(self, request: gr.Request, typed: str, role: Role) -> Account | None:
        try:
            return self._gate.caller(getattr(request, "username", None), typed.strip(), role=role)
        except AccessError as error:
            raise gr.Error(say(error), print_exception=False) from None

    def _enter(self, request: gr.Request, values: tuple[Any, ...], role: Role = "viewer") -> Call:
        """What was sent and by whom. Raises gr.Error when they may not act as that role."""
        call = Call(self._caller(request, str(values[1] or ""), role), values)
        if "adjudication" in (call.track, call.token and call.token.track):
            self._caller(request, call.reviewer, "adjudicator")
        return call

    def _is_unsaved(self, call: Call) -> bool:
        """True when showing another item would lose what was typed."""
        return call.token is not None and self._desk.is_changed(self._desk.bare(call.token, call.reviewer), call.typed)

    def _decide(self, choice: Choice, request: gr.Request, values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - as above
        call = self._enter(request, values, "reviewer")
        if not call.reviewer:
            return self._warn("A decision needs your name. Type it at the top right.")
        if call.token is None:
            return self._warn("Nothing is shown, so there is nothing to decide. Open an item in the queue.")
        try:
            self._desk.decide(choice, token=call.token, reviewer=call.reviewer, typed=call.typed)
        except LedgerError as error:
            # The words, with what somebody else decided meanwhile; the fields stay.
            return self._warn(str(error), {self.words: self._words(call.token, call)})
        return self._next(call, call.token.item_id)

    def _words(self, token: Token, call: Call) -> str:
        """What the fields amount to, beside what the ledger says of the item now."""
        shown = self._desk.again(token, call.reviewer)
        return words_panel(shown, self._desk.read(shown, call.typed), sequence=call.sheet.sequence)

    def _next(self, call: Call, decided: str | None = None) -> Any:  # noqa: ANN401 - Gradio's values
        """Show the next item. After a decision only its row of the queue is sent, not the queue."""
        if not call.reviewer:
            return self._idle("Type your name at the top right to begin.", call)
        if not call.decides:
            return self._idle("You may look and not decide. Open an item in the queue.", call)
        try:
            shown = self._desk.take(reviewer=call.reviewer, wanted=call.wanted(self._desk), track=call.track)
        except EngineError as error:
            return self._idle(str(error), call)
        if shown is None:
            return self._idle("Nothing waits for you here. Change the filters, or open an item in the queue.", call)
        return self._show(shown, call, changed=decided)

    def _open(self, item_id: str, call: Call, *, afresh: bool = False) -> Any:  # noqa: ANN401 - Gradio's values
        """Show a named item; `afresh`: without the draft, which it forgets."""
        if not call.reviewer:
            return self._warn("Type your name first.")
        try:
            if call.decides:
                name, everything = call.reviewer, self._desk.wanted()
                shown = self._desk.take(reviewer=name, wanted=everything, item_id=item_id, track=call.track)
            else:
                shown = self._desk.look(item_id, reviewer=call.reviewer)
        except LedgerError as error:
            return self._warn(str(error))
        if shown is None:
            return gr.skip()
        sheet = Sheet.of(shown.start, shown.token) if afresh else None
        if sheet is not None and call.decides:
            self._desk.keep(sheet, call.reviewer)  # newer than any draft, so that a late one does not come back
        return self._show(shown, call, sheet)

    def _progress(self) -> str:
        return progress_panel(self._desk.progress(), str(self._desk.episodes.ref))

    def _lists(self, call: Call, current: str | None = None) -> tuple[str, str]:
        """Queue, or own decisions, and progress."""
        if current is None and call.token is not None:
            current = call.token.item_id
        progress = self._progress()
        if call.wants_own and call.reviewer:
            return own_panel(self._desk.ledger.own(call.reviewer), current), progress
        rows = self._desk.queue(call.wanted(self._desk), reviewer=call.reviewer, track=call.track)
        return queue_panel(rows, current, call.reviewer), progress

    def _show(self, shown: Shown, call: Call, sheet: Sheet | None = None, *, changed: str | None = None) -> list[Any]:
        """Everything about an item; the fields as they start, unless told otherwise.

        With the queue, or, where one other item changed, with the rows of these two alone.
        """
        item_id, rows = shown.item.item_id, ""
        if changed is None or call.wants_own:
            queue, progress = self._lists(call, item_id)
        else:
            queue, progress = gr.skip(), self._progress()
            found = self._desk.listed(
                [changed, item_id], call.wanted(self._desk), reviewer=call.reviewer, track=call.track
            )
            rows = changed_rows(found, {changed, item_id}, item_id, call.reviewer)
        sheet = sheet or self._desk.sheet(shown)
        return [
            sheet.model_dump_json(),
            progress,
            queue,
            stage(self._desk, shown),
            words_panel(shown, self._desk.read(shown, sheet.typed()), sequence=sheet.sequence, draft=sheet.saved),
            side_panel(shown),
            gr.update(visible=call.decides),
            gr.update(visible=shown.start != shown.newest),
            "",
            rows,
        ]

    def _idle(self, reason: str, call: Call) -> list[Any]:
        queue, progress = self._lists(call, "")
        bar = gr.update(visible=call.decides or not call.reviewer)
        hidden = gr.update(visible=False)
        return [Sheet().model_dump_json(), progress, queue, idle_panel(reason), "", "", bar, hidden, "", ""]

    def _warn(self, words: str, changes: dict[Any, Any] | None = None) -> list[Any]:
        """Say why nothing was done; everything else stays as it is, but for the changes."""
        given = {**(changes or {}), self.said: notice(words)}
        return [given.get(output, gr.skip()) for output in self.outputs]
