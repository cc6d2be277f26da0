"""The page's controls and where they stand."""

from typing import Any

import gradio as gr
from gradio.i18n import I18nData

from apps.review.call import OWN
from apps.review.desk import Desk
from apps.review.panels import idle_panel, rank_choices
from apps.review.sheet import Sheet

_OPEN_ROW = """element.addEventListener('click', event => {
  const row = event.target.closest('[data-item]');
  if (row) trigger('click', {item: row.dataset.item});
});"""
# 'typing', 'reject' and 'remark' are the events it may trigger: Gradio finds their names here.
_SHEET = "window.reviewPage.connect(element, props, trigger, watch, ['typing', 'reject', 'remark']);"
_ROWS = "window.reviewPage.connectRows(props, watch);"
_LOG_OUT = '<form method="post" action="/logout"><button>Log out</button></form>'
Choices = list[str | int | float | tuple[str | I18nData, str | int | float]]
_STATUSES: Choices = [
    ("all items", ""),
    *("open", "stale", "disputed", "skipped", "accepted", "edited", "rejected"),
]
_WORK: Choices = [("review", "review"), ("my own decisions", OWN)]
SETTLES: Choices = [*_WORK, ("settle disagreements", "adjudication")]


class Layout:
    """Builds the controls inside the current Blocks.

    Handlers take the values of `inputs` in their order and give the values of `outputs` in theirs.
    """

    def __init__(self, desk: Desk, *, has_login: bool, reviewer: str) -> None:
        self.said = gr.HTML(elem_id="said")
        with gr.Row(elem_id="top"):
            self.progress = gr.HTML(elem_id="progress")
            self.reviewer = gr.Textbox(
                reviewer,
                label="Reviewer",
                placeholder="your name",
                elem_id="reviewer",
                max_lines=1,
                max_length=80,
                interactive=not has_login,
            )
            gr.HTML('<button type="button" data-ask="keys" aria-label="all keys">?</button>', elem_id="help")
            gr.HTML(_LOG_OUT, elem_id="logout", visible=has_login)
        with gr.Row(elem_id="desk"):
            with gr.Column(elem_id="left"):
                self._queue_controls(desk, has_login=has_login)
            with gr.Column(elem_id="middle"):
                self.stage = gr.HTML(idle_panel("Loading."), elem_id="stage")
            with gr.Column(elem_id="right"):
                self._form_controls()
        filters = [self.status, self.rank, self.search, self.facet, self.work]
        self.inputs: list[Any] = [self.sheet, self.reviewer, *filters]
        self.outputs: list[Any] = [
            self.sheet,
            self.progress,
            self.queue,
            self.stage,
            self.words,
            self.verdicts,
            self.bar,
            self.newest,
            self.said,
            self.rows,
        ]

    def _queue_controls(self, desk: Desk, *, has_login: bool) -> None:
        with gr.Group(elem_id="filters"):
            self.search = gr.Textbox(
                label="Episode", placeholder="search episodes", elem_id="search", max_lines=1, show_label=False
            )
            with gr.Row():
                self.status = _choice("Status", _STATUSES, "", "status")
                self.rank = _choice("Verdict", [*rank_choices()], -1, "rank")
            with gr.Row():
                facets: Choices = [("any family, model, ...", ""), *desk.facets()]
                self.facet = _choice("Family, model, stratum or verifier", facets, "", "facet")
            with gr.Row():
                self.work = _choice("Work", _WORK if has_login else SETTLES, "review", "work")
        self.queue = gr.HTML(elem_id="queue", js_on_load=_OPEN_ROW)
        self.rows = gr.HTML("", html_template="", js_on_load=_ROWS, elem_id="rows")  # rows.js puts them into the queue

    def _form_controls(self) -> None:
        with gr.Column(elem_id="facts"):
            self.words = gr.HTML(elem_id="words")
            self.sheet = gr.HTML(
                Sheet().model_dump_json(),
                html_template="",  # its fields are drawn by sheet.js, as text, never as HTML
                js_on_load=_SHEET,
                elem_id="sheet",
            )
            self.verdicts = gr.HTML(elem_id="verdicts")
        with gr.Column(elem_id="decide", visible=False) as self.bar:
            with gr.Row():
                self.accept = gr.Button("Accept", elem_id="accept", variant="primary")
                self.save = gr.Button("Save edit", elem_id="save")
                gr.HTML('<button type="button" id="reject" data-ask="reject">Reject</button>', elem_id="reject-slot")
                self.skip = gr.Button("Skip", elem_id="skip")
            with gr.Row(elem_id="second"):
                self.undo = gr.Button("Undo my last decision", elem_id="undo", size="sm")
                self.reset = gr.Button("Reset fields", elem_id="reset", size="sm")
                self.newest = gr.Button("Newest proposal", elem_id="newest", size="sm", visible=False)


def _choice(label: str, choices: Choices, value: str | int, elem_id: str) -> gr.Dropdown:
    return gr.Dropdown(
        choices, value=value, label=label, show_label=False, container=False, elem_id=elem_id, filterable=False
    )
