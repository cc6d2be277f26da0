"""The page's controls and what happens when one is used."""

from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from annotators.ledger import Account, Role
from annotators.ledger.rows import AnyPayload
from annotators.review import LABELS, POSITIONS, TraceForm, segment_rows
from annotators.traces import MOST_CARDS
from apps.review.access import Gate
from apps.review.call import Call
from apps.review.desk import UNSAVED, Choice, Desk, Shown, Token, Typed, typed_cells
from apps.review.markup import say
from apps.review.panels import (
    idle_panel,
    progress_panel,
    queue_panel,
    rank_choices,
    verdicts_panel,
    words_panel,
)
from apps.review.stage import stage
from schemas.annotations import ReasoningTrace, SegmentList
from schemas.errors import AccessError, EngineError, LedgerError

_HEADERS = ["start_s", "end_s", "label", "end effector"]
_OPEN_ROW = """element.addEventListener('click', event => {
  const row = event.target.closest('[data-item]');
  if (row) trigger('click', {item: row.dataset.item});
});"""
_LOG_OUT = '<form method="post" action="/logout"><button>Log out</button></form>'
_STATUSES: list[str | int | float | tuple[str | I18nData, str | int | float]] = [
    ("all items", ""),
    *("open", "stale", "disputed", "skipped", "accepted", "edited", "rejected"),
]
_WORK: list[str | int | float | tuple[str | I18nData, str | int | float]] = [
    ("review", "review"),
    ("settle disagreements", "adjudication"),
]


class Page:
    """Builds the controls inside the current Blocks; its methods are the handlers.

    Handlers take the request first, then the values of `inputs` in order, and give the values of `outputs` in order.
    Each begins with `_enter`, which refuses who may not do it: what a page hides, anybody can still send.
    """

    def __init__(self, desk: Desk, gate: Gate, reviewer: str = "") -> None:
        self._desk, self._gate = desk, gate
        with gr.Row(elem_id="top"):
            self.progress = gr.HTML(elem_id="progress")
            self.reviewer = gr.Textbox(
                reviewer,
                label="Reviewer",
                placeholder="your name",
                elem_id="reviewer",
                max_lines=1,
                max_length=80,
                interactive=not gate.has_login,
            )
            gr.HTML(_LOG_OUT, elem_id="logout", visible=gate.has_login)
        self.token = gr.Textbox(visible=False)
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="left"):
                self._queue_controls()
            with gr.Column(elem_id="middle"):
                self.stage = gr.HTML(idle_panel("Loading."), elem_id="stage")
            with gr.Column(elem_id="right"):
                self._form_controls()
        self.fields: list[Any] = [
            self.board,
            self.solution,
            self.pick_text,
            self.pick_position,
            self.segments,
            *self.card_texts,
            *self.card_places,
        ]
        filters = [self.status, self.rank, self.search, self.facet, self.work]
        self.inputs = [self.token, self.reviewer, *filters, self.note, *self.fields]
        self.outputs = [
            self.token,
            self.progress,
            self.queue,
            self.stage,
            self.words,
            self.verdicts,
            self.note,
            self.trace_form,
            self.segments_form,
            self.bar,
            self.newest,
            *self.cards,
            *self.fields,
        ]

    def _queue_controls(self) -> None:
        with gr.Group(elem_id="filters"):
            self.search = gr.Textbox(
                label="Episode", placeholder="search episodes", elem_id="search", max_lines=1, show_label=False
            )
            with gr.Row():
                self.status = gr.Dropdown(
                    _STATUSES, value="", show_label=False, container=False, elem_id="status", filterable=False
                )
                self.rank = gr.Dropdown(
                    rank_choices(), value=-1, show_label=False, container=False, elem_id="rank", filterable=False
                )
            with gr.Row():
                facets: list[Any] = [("any family, model, ...", ""), *self._desk.facets()]
                self.facet = gr.Dropdown(
                    facets, value="", show_label=False, container=False, elem_id="facet", filterable=False
                )
            with gr.Row():
                self.work = gr.Dropdown(
                    _WORK, value="review", show_label=False, container=False, elem_id="work", filterable=False
                )
        self.queue = gr.HTML(elem_id="queue", js_on_load=_OPEN_ROW)

    def _form_controls(self) -> None:
        with gr.Column(elem_id="facts"):
            self.words = gr.HTML(elem_id="words")
            with gr.Column(elem_id="trace-form", visible=False) as self.trace_form:
                with gr.Row():
                    self.board = gr.Textbox(label="Board", elem_id="board", max_lines=1, max_length=200)
                    self.solution = gr.Textbox(label="Solution", elem_id="solution", max_lines=1, max_length=200)
                with gr.Row(elem_id="cards"):
                    self._cards()
                with gr.Row():
                    self.pick_text = gr.Textbox(label="Pick", elem_id="pick", max_lines=1, max_length=80)
                    self.pick_position = gr.Dropdown(
                        list(POSITIONS), label="Pick from", elem_id="pick-from", filterable=False
                    )
            with gr.Column(elem_id="segments-form", visible=False) as self.segments_form:
                self.segments = gr.Dataframe(
                    headers=_HEADERS,
                    datatype="str",
                    type="array",
                    column_count=4,
                    interactive=True,
                    show_label=False,
                    elem_id="segments",
                    max_height=320,
                )
                gr.HTML(f'<p class="hint">Labels: {", ".join(LABELS)}.</p>')
            self.verdicts = gr.HTML(elem_id="verdicts")
            self.note = gr.Textbox(
                label="Note", placeholder="why, for others (optional)", elem_id="note", max_lines=1, max_length=500
            )
        with gr.Column(elem_id="decide", visible=False) as self.bar:
            with gr.Row():
                self.accept = gr.Button("Accept", elem_id="accept", variant="primary")
                self.save = gr.Button("Save edit", elem_id="save")
                self.reject = gr.Button("Reject", elem_id="reject")
                self.skip = gr.Button("Skip", elem_id="skip")
            with gr.Row(elem_id="second"):
                self.undo = gr.Button("Undo my last decision", elem_id="undo", size="sm")
                self.reset = gr.Button("Reset fields", elem_id="reset", size="sm")
                self.newest = gr.Button("Newest proposal", elem_id="newest", size="sm", visible=False)

    def _cards(self) -> None:
        """One narrow column per card: what is on it, and where it lies."""
        self.cards: list[gr.Column] = []
        self.card_texts: list[gr.Textbox] = []
        self.card_places: list[gr.Dropdown] = []
        for number in range(1, MOST_CARDS + 1):
            with gr.Column(min_width=80, elem_classes="card", visible=number <= 3) as column:
                text = gr.Textbox(label=f"Card {number}", elem_id=f"card-{number}", max_lines=1, max_length=80)
                place = gr.Dropdown(
                    list(POSITIONS),
                    value="unknown",
                    show_label=False,
                    container=False,
                    elem_id=f"place-{number}",
                    filterable=False,
                )
            self.cards.append(column)
            self.card_texts.append(text)
            self.card_places.append(place)

    # Handlers

    def on_load(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """The page was opened: show the next item."""
        return self._next(self._enter(request, values))

    def on_login(self, reviewer: str, request: gr.Request) -> list[Any]:
        """The page was opened: say who decides, where people log in, and what else they may do."""
        account = self._caller(request, reviewer or "", "viewer")
        settles = not self._gate.has_login or (account is not None and account.may("adjudicator"))
        return [account.name if account else "", gr.update(visible=settles)]

    def on_name(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A name was typed: show that reviewer's next item."""
        call = self._enter(request, values)
        if call.token is not None and self._is_unsaved(call):
            owner = self._desk.again(call.token, call.reviewer).item.lease_owner
            back = f"Put the name back to {owner} and save the edit" if owner else "Save the edit"
            return _warn(f"You changed fields. {back} (Ctrl+Enter), or reset the fields first.")
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
        """Keep the item out of every release."""
        return self._decide("reject", request, values)

    def on_skip(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Leave the item to someone else."""
        return self._decide("skip", request, values)

    def on_undo(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Take back the last decision and show its item."""
        call = self._enter(request, values, "reviewer")
        if not call.reviewer:
            return _warn("Type your name first.")
        if self._is_unsaved(call):
            return _warn(UNSAVED)
        try:
            shown = self._desk.undo(reviewer=call.reviewer, token=call.token)
        except LedgerError as error:
            return _warn(str(error))
        return _warn("There is nothing of yours to undo.") if shown is None else self._show(shown, call)

    def on_reset(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Put the fields back to what they started with."""
        call = self._enter(request, values)
        return gr.skip() if call.token is None else self._open(call.token.item_id, call)

    def on_newest(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Fill the fields with the newest proposal, in place of what a person confirmed before it came."""
        call = self._enter(request, values)
        if call.token is None:
            return gr.skip()
        shown = self._desk.again(call.token, call.reviewer)
        return self._show(shown, call, fields=shown.newest)

    def on_open(self, event: gr.EventData, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A row of the queue was clicked."""
        call = self._enter(request, values)
        if self._is_unsaved(call):
            return _warn(UNSAVED)
        return self._open(str(event.item), call)

    def on_typing(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A field changed: show the words it makes."""
        call = self._enter(request, values)
        if call.token is None:
            return gr.skip()
        if call.decides:
            self._desk.renew(token=call.token, reviewer=call.reviewer)
        return self._words(call.token, call)

    def on_filter(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """A filter changed: show the queue it leaves."""
        return self._lists(self._enter(request, values))

    def on_work(self, request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio's values
        """Other work was chosen: show what waits there."""
        call = self._enter(request, values)
        return _warn(UNSAVED) if self._is_unsaved(call) else self._next(call)

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
        return call.token is not None and self._desk.is_changed(self._desk.again(call.token, call.reviewer), call.typed)

    def _decide(self, choice: Choice, request: gr.Request, values: tuple[Any, ...]) -> Any:  # noqa: ANN401 - as above
        call = self._enter(request, values, "reviewer")
        if not call.reviewer:
            return _warn("A decision needs your name. Type it at the top right.")
        if call.token is None:
            return _warn("Nothing is shown, so there is nothing to decide. Open an item in the queue.")
        try:
            self._desk.decide(choice, token=call.token, reviewer=call.reviewer, typed=call.typed)
        except LedgerError as error:
            gr.Warning(say(error))
            words = self._words(call.token, call)  # with what somebody else decided meanwhile; the fields stay
            return [words if output is self.words else gr.skip() for output in self.outputs]
        return self._next(call)

    def _words(self, token: Token, call: Call) -> str:
        """What the fields amount to, beside what the ledger says of the item now."""
        shown = self._desk.again(token, call.reviewer)
        return words_panel(shown, self._desk.read(shown, call.typed))

    def _next(self, call: Call) -> Any:  # noqa: ANN401 - Gradio's values
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
        return self._show(shown, call)

    def _open(self, item_id: str, call: Call) -> Any:  # noqa: ANN401 - Gradio's values
        if not call.reviewer:
            return _warn("Type your name first.")
        try:
            if call.decides:
                name, everything = call.reviewer, self._desk.wanted()
                shown = self._desk.take(reviewer=name, wanted=everything, item_id=item_id, track=call.track)
            else:
                shown = self._desk.look(item_id, reviewer=call.reviewer)
        except LedgerError as error:
            return _warn(str(error))
        return gr.skip() if shown is None else self._show(shown, call)

    def _lists(self, call: Call, current: str | None = None) -> tuple[str, str]:
        """Queue and progress."""
        if current is None and call.token is not None:
            current = call.token.item_id
        rows = self._desk.queue(call.wanted(self._desk), reviewer=call.reviewer, track=call.track)
        name = str(self._desk.episodes.ref)
        return queue_panel(rows, current, call.reviewer), progress_panel(self._desk.progress(), name)

    def _show(self, shown: Shown, call: Call, fields: AnyPayload | None = None) -> list[Any]:
        """Everything about an item; the fields as they start, unless told otherwise."""
        queue, progress = self._lists(call, shown.item.item_id)
        start = fields or shown.start
        is_trace = isinstance(start, ReasoningTrace)
        form = TraceForm.of(start) if isinstance(start, ReasoningTrace) else TraceForm()
        rows = segment_rows(start) if isinstance(start, SegmentList) else []
        typed = Typed(trace=form, segments=typed_cells(rows), note="")
        cards = (form.cards + (("", "unknown"),) * MOST_CARDS)[:MOST_CARDS]
        return [
            shown.token.model_dump_json(),
            progress,
            queue,
            stage(self._desk, shown),
            words_panel(shown, self._desk.read(shown, typed)),
            verdicts_panel(shown),
            "",
            gr.update(visible=is_trace),
            gr.update(visible=isinstance(start, SegmentList)),
            gr.update(visible=call.decides),
            gr.update(visible=shown.start != shown.newest),
            *(gr.update(visible=index < len(form.cards)) for index in range(MOST_CARDS)),
            form.board,
            form.solution,
            form.pick_text,
            form.pick_position,
            rows,
            *(text for text, _ in cards),
            *(where for _, where in cards),
        ]

    def _idle(self, reason: str, call: Call) -> list[Any]:
        queue, progress = self._lists(call, "")
        hidden = gr.update(visible=False)
        shown = [None, progress, queue, idle_panel(reason), "", "", "", hidden, hidden]
        shown += [gr.update(visible=call.decides or not call.reviewer), hidden]
        return shown + [gr.skip()] * (len(self.cards) + len(self.fields))


def _warn(words: str) -> Any:  # noqa: ANN401 - Gradio's "change nothing"
    gr.Warning(say(words))
    return gr.skip()
