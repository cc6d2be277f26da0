"""The review page: a Gradio app over one ledger and one set of episodes.

It keeps no state of its own between clicks (Gradio's per-tab state is lost on reload and loses updates): each handler
reads the ledger, and the page holds one `Token` that says what it shows.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr
import typer
from starlette.middleware import Middleware

from annotators.ledger.batch import BATCH_BOUND
from annotators.ledger.decisions import REASONS
from annotators.review import LABELS, POSITIONS
from annotators.scene_forms import OUTCOMES, RELATIONS, SIDES, WHENS
from annotators.traces import MOST_CARDS
from apps.review.access import Gate, Guard, check_host
from apps.review.call import DIRECTLY
from apps.review.dashboard import STYLE as DASHBOARD_STYLE
from apps.review.dashboard import Dashboard
from apps.review.desk import Desk
from apps.review.page import Page
from apps.review.processes import Others, accepting, listen
from apps.review.proxy import Proxy
from apps.review.stage import draw_ahead
from dataengine.workspace import Workspace
from schemas.annotations import UNUSABLE
from schemas.errors import UsageError
from schemas.refs import Ref

_HERE = Path(__file__).parent
_SCRIPTS = ("player.js", "sheet.js", "rows.js", "spans.js", "scene.js", "boxes.js", "keys.js")
_IDLE_S = 75  # people think for longer than the 5 s after which the server would close their connection
# How long a thread may keep the others waiting. With Python's 5 ms each of sixty answers of PostgreSQL waits for that
# long while somebody else's page is put together: 1.3 s at the 99th percentile, and 0.45 s with this.
_TURN_S = 0.0005
_SECONDS_BETWEEN_LOOKS = 20.0  # how soon a reviewer sees what others did


@dataclass(frozen=True, slots=True)
class ReviewApp:
    """The page, and the desk it shows."""

    blocks: gr.Blocks
    desk: Desk
    gate: Gate

    def close(self) -> None:
        """End the server, and let go of ledger and videos."""
        self.blocks.close(verbose=False)
        self.desk.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What all processes of a page have from the first one."""

    has_login: bool
    app_id: int  # by which browsers tell that a page was started anew


def build_app(
    *,
    workspace: Workspace,
    episodes: Ref,
    ledger_url: str,
    reviewer: str | None = None,
    batch_bound: float = BATCH_BOUND,
    proxy: Proxy | None = None,
    first: First | None = None,
) -> ReviewApp:
    """The page for one set of episodes. Where the ledger holds accounts, people log in, or a proxy says who they are;
    else `reviewer` fills the name field of the one person of this machine. `first`: another process serves it, too."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    desk = Desk(workspace=workspace, episodes=episodes, ledger_url=ledger_url, refits=first is None)
    has_login = bool(desk.ledger.accounts.all()) if first is None else first.has_login
    gate = Gate(desk.ledger.accounts, has_login=has_login, proxy=proxy)
    blocks = gr.Blocks(title=f"Review {episodes}", analytics_enabled=False, fill_width=True)
    if first is not None:
        blocks.app_id = first.app_id
    with blocks:
        _connect(blocks, Page(desk, gate, reviewer or ""))
        gr.HTML('<a href="/dashboard">Dashboard</a>', elem_id="to-dashboard")
    with blocks.route("Dashboard", "/dashboard", show_in_navbar=False):
        Dashboard(desk, gate, bound=batch_bound, reviewer=reviewer or "").connect(blocks)
    return ReviewApp(blocks, desk, gate)


def _connect(app: gr.Blocks, page: Page) -> None:
    """Every control with its own handler."""
    common = DIRECTLY
    inputs, outputs = page.inputs, page.outputs
    app.load(page.on_load, inputs, outputs, **common)
    app.load(page.on_login, [page.reviewer], [page.reviewer, page.work], **common)
    page.reviewer.submit(page.on_name, inputs, outputs, **common)
    page.reviewer.blur(page.on_name_left, inputs, outputs, **common)
    page.accept.click(page.on_accept, inputs, outputs, **common)
    page.save.click(page.on_save, inputs, outputs, **common)
    page.sheet.reject(page.on_reject, inputs, outputs, **common)
    page.skip.click(page.on_skip, inputs, outputs, **common)
    page.undo.click(page.on_undo, inputs, outputs, **common)
    page.reset.click(page.on_reset, inputs, outputs, **common)
    page.newest.click(page.on_newest, inputs, outputs, **common)
    page.queue.click(page.on_open, inputs, outputs, **common)
    page.sheet.typing(page.on_typing, inputs, [page.words], trigger_mode="multiple", **common)  # sheet.js keeps order
    page.sheet.remark(page.on_remark, inputs, [page.verdicts, page.said], **common)
    lists = [page.queue, page.progress]
    filters = [page.status.input, page.rank.input, page.search.input, page.facet.input]
    gr.on(filters, page.on_filter, inputs, lists, **common)
    page.work.input(page.on_work, inputs, outputs, **common)
    gr.Timer(_SECONDS_BETWEEN_LOOKS).tick(page.on_tick, inputs, lists, **common)


def launch(
    *,
    workspace: Workspace,
    episodes: Ref,
    ledger_url: str,
    host: str = "127.0.0.1",
    port: int = 7860,
    reviewer: str | None = None,
    batch_bound: float = BATCH_BOUND,
    proxy: Proxy | None = None,
    processes: int = 1,
) -> None:
    """Serve the page until interrupted. Where there are accounts, everybody decides under the name of the login.

    Raises UsageError when the port is taken, and for a host that other machines reach while there are no accounts.
    """
    build = partial(
        build_app,
        workspace=workspace,
        episodes=episodes,
        ledger_url=ledger_url,
        reviewer=reviewer,
        batch_bound=batch_bound,
        proxy=proxy,
    )
    app = build()
    check_host(host, has_login=app.gate.has_login)
    said = f"Reviewing {episodes} at http://{host}:{port} (Ctrl+C ends it; every decision is saved as it is made)."
    if processes == 1:
        _prepare(app)
        serve(app, host=host, port=port)
        typer.echo(said)
        app.blocks.block_thread()
        return
    # As the first found it: what the ledger says later must not make one of them a page without a login.
    same = partial(build, first=First(has_login=app.gate.has_login, app_id=app.blocks.app_id))
    with (
        listen(host, port) as shared,
        ExitStack() as stack,
        Others(processes - 1, partial(_share, same), shared) as others,
    ):
        _prepare(app)
        _start_beside(app)
        others.wait()
        stack.enter_context(
            accepting(app.blocks.app, shared, idle_s=_IDLE_S)
        )  # answers end after the others were told to
        typer.echo(said)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def _share(build: Callable[[], ReviewApp], shared: socket.socket, ready: Callable[[], None]) -> None:
    """One more process behind the same port, as one page to browsers."""
    app = build()
    _prepare(app)
    _start_beside(app)
    with accepting(app.blocks.app, shared, idle_s=_IDLE_S):
        ready()
        threading.Event().wait()


def _prepare(app: ReviewApp) -> None:
    """What nobody shall wait for when they open the page."""
    sys.setswitchinterval(_TURN_S)
    app.desk.statistics(reviewer=None)  # the first count reads every decision
    draw_ahead(app.desk)


def _start_beside(app: ReviewApp) -> None:
    """Gradio starts an app by serving it, on a port of its own; that server is not needed afterwards."""
    serve(app, host="127.0.0.1", port=None)
    app.blocks.server.close()


def serve(app: ReviewApp, *, host: str, port: int | None) -> None:
    """Serve the page from a thread of this process; `app.close()` ends it. Raises UsageError as `launch` does."""
    has_login = app.gate.has_login
    check_host(host, has_login=has_login)
    guard = Middleware(Guard, app.gate, app.desk.videos)
    try:
        app.blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=False,
            prevent_thread_lock=True,
            share=False,
            auth_dependency=app.gate.login_of if has_login else None,
            app_kwargs={"middleware": [guard]},
            ssr_mode=False,
            enable_monitoring=False,
            quiet=True,
            footer_links=[],
            theme=_theme(),
            css=(_HERE / "review.css").read_text() + DASHBOARD_STYLE.read_text(),
            head=_head(app.desk),
        )
    except OSError as error:
        raise UsageError(f"the page can not be served on {host}:{port} ({error}). Choose another --port.") from None
    app.blocks.server.config.timeout_keep_alive = _IDLE_S


def _head(desk: Desk) -> str:
    """The page's scripts, and the words they offer."""
    choices = {
        "positions": POSITIONS,
        "relations": RELATIONS,
        "sides": SIDES,
        "outcomes": OUTCOMES,
        "whens": WHENS,
        "labels": LABELS,
        "reasons": [reason for reason in REASONS if reason != UNUSABLE],
        "unusable": UNUSABLE,
        "mostCards": MOST_CARDS,
        "effectors": [end.name for end in desk.episodes.rig.end_effectors],
    }
    words = json.dumps(choices).replace("<", "\\u003c")  # a rig's names must not end the script
    scripts = [f"window.reviewChoices = {words};", *((_HERE / name).read_text() for name in _SCRIPTS)]
    return "".join(f"<script>{script}</script>" for script in scripts)


def _theme() -> gr.themes.Base:
    """System fonts only: the page must not reach for anything outside this machine."""
    return gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        spacing_size="sm",
        radius_size="md",
        text_size="sm",
        font=["system-ui", "-apple-system", "Segoe UI", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    )
