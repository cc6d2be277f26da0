"""The review page: a Gradio app over one ledger and one set of episodes.

It keeps no state of its own between clicks (Gradio's per-tab state is lost on reload and loses updates): each handler
reads the ledger, and the page holds one `Token` that says what it shows.
"""

import os
from pathlib import Path
from typing import Any

import gradio as gr
import typer

from apps.review.access import Login, check_host, read_logins
from apps.review.desk import Desk
from apps.review.page import Page
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

_HERE = Path(__file__).parent
_SECONDS_BETWEEN_LOOKS = 20.0  # how soon a reviewer sees what others did


def build_app(
    *, workspace: Workspace, episodes: Ref, ledger_url: str, reviewer: str | None, has_login: bool = False
) -> gr.Blocks:
    """The page for one set of episodes. `reviewer` fills the name field; with a login, its name counts instead."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    desk = Desk(workspace=workspace, episodes=episodes, ledger_url=ledger_url)
    gr.set_static_paths([desk.episodes.path / "videos"])  # served from where they are, never copied
    app = gr.Blocks(title=f"Review {episodes}", analytics_enabled=False, fill_width=True)
    with app:
        page = Page(desk, reviewer or "", has_login=has_login)
        _connect(app, page)
    return app


def _connect(app: gr.Blocks, page: Page) -> None:
    """Every control with its own handler: controls that share one share its queue."""
    common: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
    inputs, outputs = page.inputs, page.outputs
    app.load(page.on_load, inputs, outputs, **common)
    app.load(page.on_login, [page.reviewer], [page.reviewer], **common)
    page.reviewer.submit(page.on_name, inputs, outputs, **common)
    page.reviewer.blur(page.on_name_left, inputs, outputs, **common)
    page.accept.click(page.on_accept, inputs, outputs, **common)
    page.save.click(page.on_save, inputs, outputs, **common)
    page.reject.click(page.on_reject, inputs, outputs, **common)
    page.skip.click(page.on_skip, inputs, outputs, **common)
    page.undo.click(page.on_undo, inputs, outputs, **common)
    page.reset.click(page.on_reset, inputs, outputs, **common)
    page.newest.click(page.on_newest, inputs, outputs, **common)
    page.queue.click(page.on_open, inputs, outputs, **common)
    # `change` and not `input`: the latter misses what is pasted or filled in without a key.
    typing = [field.change for field in page.fields]
    gr.on(typing, page.on_typing, inputs, [page.words], trigger_mode="always_last", **common)
    lists = [page.queue, page.progress]
    gr.on([page.status.input, page.rank.input, page.search.input], page.on_filter, inputs, lists, **common)
    gr.Timer(_SECONDS_BETWEEN_LOOKS).tick(page.on_tick, inputs, lists, **common)


def launch(
    *,
    workspace: Workspace,
    episodes: Ref,
    ledger_url: str,
    host: str = "127.0.0.1",
    port: int = 7860,
    reviewer: str | None = None,
    open_browser: bool = False,
    auth_file: Path | None = None,
) -> None:
    """Serve the page until interrupted. With `auth_file` everybody logs in, and decides under the name of the login.

    Raises UsageError when the port is taken, and for a host that other machines reach while there are no logins.
    """
    logins = None if auth_file is None else read_logins(auth_file)
    check_host(host, logins)
    app = build_app(
        workspace=workspace,
        episodes=episodes,
        ledger_url=ledger_url,
        reviewer=reviewer,
        has_login=logins is not None,
    )
    serve(app, host=host, port=port, open_browser=open_browser, logins=logins)
    typer.echo(f"Reviewing {episodes} at http://{host}:{port} (Ctrl+C ends it; every decision is saved as it is made).")
    app.block_thread()


def serve(
    app: gr.Blocks, *, host: str, port: int, open_browser: bool = False, logins: list[Login] | None = None
) -> None:
    """Serve the page from a thread of this process; `app.close()` ends it. Raises UsageError as `launch` does."""
    check_host(host, logins)
    app.queue(default_concurrency_limit=None)
    try:
        app.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            share=False,
            auth=logins,
            ssr_mode=False,
            enable_monitoring=False,
            quiet=True,
            footer_links=[],
            theme=_theme(),
            css=(_HERE / "review.css").read_text(),
            head=f"<script>{(_HERE / 'review.js').read_text()}</script>",
        )
    except OSError as error:
        raise UsageError(f"the page can not be served on {host}:{port} ({error}). Choose another --port.") from None


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
