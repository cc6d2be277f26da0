"""The lead's page beside the reviewers': how good the decisions are, how fast they come, and what is left.

Its handlers authorise by themselves, as those of `Page` do: an adjudicator or lead sees everybody, anybody else their
own figures; only a lead accepts what waits in a stratum at once.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

import gradio as gr
from anyio import CapacityLimiter
from anyio.to_thread import run_sync

from annotators.ledger import Account, QueueFilter
from apps.review.access import Gate
from apps.review.call import DIRECTLY
from apps.review.dashboard_panels import dashboard
from apps.review.desk import Desk
from apps.review.markup import notice, say
from schemas.annotations import FieldName
from schemas.errors import AccessError, LedgerError

STYLE = Path(__file__).parent / "dashboard.css"
_SECONDS_BETWEEN_LOOKS = 60.0
_ASK = """element.addEventListener('click', event => {
  const button = event.target.closest('[data-stratum]');
  if (button && confirm(`Accept ${button.dataset.num} items in your name, without a look?`))
    trigger('click', {stratum: button.dataset.stratum});
});"""


class Dashboard:
    """Builds the controls inside the current Blocks; its methods are the handlers."""

    def __init__(self, desk: Desk, gate: Gate, *, bound: float, reviewer: str = "") -> None:
        self._desk, self._gate, self._bound = desk, gate, bound
        self._few = CapacityLimiter(2)
        self.said = gr.HTML(elem_id="dashboard-said")
        with gr.Row(elem_id="dashboard-top"):
            gr.HTML(f'<a href="/">Back to the queue</a> <b>{say(desk.episodes.ref)}</b>', elem_id="dashboard-title")
            self.reviewer = gr.Textbox(
                reviewer,
                label="Reviewer",
                placeholder="your name",
                elem_id="dashboard-reviewer",
                max_lines=1,
                max_length=80,
                visible=not gate.has_login,
            )
            self.refresh = gr.Button("Count again", elem_id="refresh", size="sm")
        self.figures = gr.HTML('<p class="hint">Counting.</p>', elem_id="figures", js_on_load=_ASK)
        self.timer = gr.Timer(_SECONDS_BETWEEN_LOOKS)

    def connect(self, app: gr.Blocks) -> None:
        """Every control with its own handler."""
        common = DIRECTLY
        app.load(self.on_dashboard, [self.reviewer], [self.figures], **common)
        self.refresh.click(self.on_count_again, [self.reviewer], [self.figures], **common)
        self.timer.tick(self.on_minute, [self.reviewer], [self.figures], **common)
        self.figures.click(self.on_batch, [self.reviewer], [self.figures, self.said], **common)

    # Handlers

    async def on_dashboard(self, reviewer: str, request: gr.Request) -> str:
        """The page was opened."""
        return await self._apart(self._figures, request, reviewer)

    async def on_count_again(self, reviewer: str, request: gr.Request) -> str:
        """Newer figures are wanted."""
        return await self._apart(self._figures, request, reviewer)

    async def on_minute(self, reviewer: str, request: gr.Request) -> str:
        """Time passed."""
        return await self._apart(self._figures, request, reviewer)

    async def on_batch(self, reviewer: str, event: gr.EventData, request: gr.Request) -> tuple[str, str]:
        """A lead accepts what waits in a stratum."""
        return await self._apart(self._batch, request, reviewer, event)

    # What they share

    async def _apart[*Values, Given](self, does: Callable[[*Values], Given], *values: *Values) -> Given:
        """Counting takes seconds: it must not take all the threads that reviewers wait for."""
        return await run_sync(does, *values, limiter=self._few)

    def _figures(self, request: gr.Request, reviewer: str) -> str:
        return self._shown(self._enter(request, reviewer))

    def _batch(self, request: gr.Request, reviewer: str, event: gr.EventData) -> tuple[str, str]:
        account = self._enter(request, reviewer)
        if account is None:
            return self._shown(account), notice("A decision needs your name. Type it at the top.")
        if not account.may("lead"):
            self._refuse(f"the role {account.role} may not do that; it takes lead. Ask your lead.")
        try:
            done = self._desk.accept_batch(reviewer=account.name, stratum=_stratum(event), bound=self._bound)
        except LedgerError as error:
            return self._shown(account), notice(str(error))
        left = "".join(f" Left to people: {count:,}, {reason}." for reason, count in done.left.items())
        words = f"Accepted {done.num_accepted:,} items in your name.{left}"
        return self._shown(account), notice(words, kind="info")

    def _enter(self, request: gr.Request, typed: str) -> Account | None:
        """Who calls; None where nobody logs in and no name was typed. Raises gr.Error for who may not look."""
        try:
            login = getattr(request, "username", None)
            return self._gate.caller(login, str(typed or "").strip(), role="viewer")
        except AccessError as error:
            raise gr.Error(say(error), print_exception=False) from None

    def _refuse(self, words: str) -> None:
        raise gr.Error(say(words), print_exception=False)

    def _shown(self, account: Account | None) -> str:
        sees_all = account is None or account.may("adjudicator")
        found = self._desk.statistics(reviewer=None if sees_all or account is None else account.name)
        return dashboard(found, bound=self._bound, may_accept=account is not None and account.may("lead"))


def _stratum(event: gr.EventData) -> QueueFilter:
    """The one stratum that a click names; anybody can send anything in its place."""
    try:
        family, field, annotator, stratum = (str(part) for part in json.loads(str(event.stratum)))
        if field not in get_args(FieldName) or "\0" in family + annotator + stratum:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise LedgerError("no stratum was named, so nothing was accepted. Press its button again.") from None
    return QueueFilter(family=family, field=cast(FieldName, field), annotator=annotator, stratum=stratum)
