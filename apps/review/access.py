"""Who reaches the review page: the one person of this machine, or people who log in. Each asks for what a role may.

Two walls, each of which would do: `Guard` stands before every address of the server, and each handler of the page asks
its `Gate` who calls. A button that is not shown is no wall, since anybody can send what it sends.
"""

import html
import ipaddress
import time
from pathlib import Path
from urllib.parse import parse_qs

from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotators.ledger import Account, Accounts, Role
from annotators.ledger.accounts import SESSION_S
from apps.review.proxy import Proxy
from apps.review.videos import VIDEOS, Videos
from schemas.errors import AccessError, UsageError

_COOKIE = "review_session"
_PAGES = ("/", "/dashboard", "/dashboard/")
_MOST_BODY = 2_000_000  # bytes; what the page sends is far smaller
_ANYBODY = ("/login", "/favicon.ico", "/gradio_api/startup-events")  # the last starts Gradio's queue, and says nothing
_NEEDED = (  # what the page itself asks for; Gradio offers uploads, proxies, recordings and more
    "/assets/",
    "/static/",
    "/svelte/",
    "/config",
    "/theme.css",
    "/manifest.json",
    "/robots.txt",
    "/logout",
    "/gradio_api/run/",
    "/gradio_api/heartbeat/",
    "/gradio_api/theme.css",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/login_check",
    "/gradio_api/app_id",
    "/gradio_api/info",
)
_PASSIVE = (VIDEOS, "/assets/", "/static/", "/svelte/")  # watching, and the page's own scripts
_WATCH_S = 2.0  # for so long a login is good for watching without another look
_MOST_LATELY = 1_000  # logins remembered before old ones are dropped
_LOGIN = "review.login"  # in the scope of a request that was let past: who sent it
_STYLE = (Path(__file__).parent / "login.css").read_text()


class Gate:
    """Says who calls. Without accounts it is whoever types a name, on this machine only."""

    def __init__(self, accounts: Accounts, *, has_login: bool, proxy: Proxy | None = None) -> None:
        self.accounts, self.proxy = accounts, proxy
        self.has_login = has_login or proxy is not None
        self._lately: dict[str, float] = {}  # until when a login is good for watching

    def caller(self, login: str | None, typed: str, *, role: Role) -> Account | None:
        """The account behind a login, or, where nobody logs in, the typed name; None when there is no name yet.

        Raises AccessError when nobody is logged in, and when the account may not act as that role.
        """
        if not self.has_login:
            return Account(name=typed, role="lead") if typed else None
        account = self.accounts.find(login) if login else None
        if account is None:
            raise AccessError("you are not logged in. Reload the page and log in.")
        if not account.may(role):
            raise AccessError(f"the role {account.role} may not do that; it takes {role}. Ask your lead.")
        return account

    def login_of(self, request: Request) -> str | None:
        """Who sends a request: whom the proxy names, or whose session it carries; None for nobody with an account."""
        if _LOGIN in request.scope:  # the guard has looked already; the page asks again for every request
            return str(request.scope[_LOGIN])
        key = self._key(request)
        account = None
        if key:
            account = self.accounts.find(key) if self.proxy is not None else self.accounts.who(key)
        if account is None:
            return None
        now = time.monotonic()
        if len(self._lately) > _MOST_LATELY:
            self._lately = {other: until for other, until in list(self._lately.items()) if until > now}
        self._lately[str(key)] = now + _WATCH_S
        return account.name

    def was_let_in(self, request: Request) -> bool:
        """True when the ledger was asked about this login a moment ago: a browser pulls video in many small ranges."""
        return self._lately.get(self._key(request) or "", 0.0) > time.monotonic()

    def forget(self) -> None:
        """Somebody logged out here: ask about everybody again."""
        self._lately = {}

    def _key(self, request: Request) -> str | None:
        """What says who sends a request: the name that the proxy gives, or the secret of a session."""
        return self.proxy.name_of(request) if self.proxy is not None else request.cookies.get(_COOKIE)


class Guard:
    """Stands before the page's server: logs people in and out, lets nobody else past, and serves the videos itself."""

    def __init__(self, app: ASGIApp, gate: Gate, videos: Path) -> None:
        self._app, self._gate, self._accounts = app, gate, gate.accounts
        self._videos = Videos(videos)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # the page uses no websocket
        path = scope["path"]
        if not (path in _PAGES or path.startswith((*_ANYBODY, *_NEEDED, VIDEOS))):
            await JSONResponse({"error": "not served"}, 404)(scope, receive, send)
            return
        request = Request(scope, _limited(receive))
        if int(request.headers.get("content-length", "0")) > _MOST_BODY:  # the server refuses what is no number
            await JSONResponse({"error": "too large"}, 413)(scope, receive, send)
            return
        refusal = await self._refusal(request) if self._gate.has_login else self._stranger(request)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif path.startswith(VIDEOS):
            await self._videos.serve(path.removeprefix(VIDEOS), request, send)
        else:
            await self._app(scope, request.receive, send)

    def _stranger(self, request: Request) -> Response | None:
        """The answer to a web page that calls this machine by a name of its own, to decide in its visitor's name."""
        here = _is_loopback(request.url.hostname or "")
        return None if here else JSONResponse({"error": "open the page as 127.0.0.1 or localhost"}, 403)

    async def _refusal(self, request: Request) -> Response | None:
        """The answer to everybody who is not logged in, and to who logs in or out; None lets the request past."""
        path, secret = request.url.path, request.cookies.get(_COOKIE)
        is_own = self._gate.proxy is None  # else people log in and out at the proxy
        if path == "/login" and is_own:
            return await self._login(request)
        if path in _ANYBODY and (is_own or path != "/login"):
            return None
        if path.startswith(_PASSIVE) and self._gate.was_let_in(request):
            return None
        login = await run_sync(self._gate.login_of, request)
        if login is None:
            if not is_own:
                return JSONResponse({"error": "the proxy names nobody who has an account; ask your lead"}, 401)
            return RedirectResponse("/login", 303) if path in _PAGES else JSONResponse({"error": "log in first"}, 401)
        request.scope[_LOGIN] = login
        if path in ("/login", "/logout") and not is_own:
            return JSONResponse({"error": "log in and out at the proxy"}, 404)
        return await self._logout(request.method, secret) if path == "/logout" else None

    async def _login(self, request: Request) -> Response:
        if request.method != "POST":
            return _form("")
        try:
            fields = parse_qs((await request.body()).decode(), max_num_fields=10)
        except (ClientDisconnect, ValueError):  # too large, no text, or too many fields
            return _form("that is no login. Try again.", 400)
        name, password = (fields.get(key, [""])[0] for key in ("name", "password"))
        try:
            secret = await run_sync(self._accounts.log_in, name, password)  # hashing must not hold up others' video
        except AccessError as error:
            return _form(str(error), 401)
        response = RedirectResponse("/", 303)
        is_safe = request.url.scheme == "https"
        response.set_cookie(_COOKIE, secret, max_age=int(SESSION_S), httponly=True, samesite="strict", secure=is_safe)
        return response

    async def _logout(self, method: str, secret: str | None) -> Response:
        if method != "POST":  # a link on another page must not log anybody out
            return JSONResponse({"error": "log out with POST"}, 405)
        await run_sync(self._accounts.log_out, secret)
        self._gate.forget()
        response = RedirectResponse("/login", 303)
        response.delete_cookie(_COOKIE)
        return response


def _limited(receive: Receive) -> Receive:
    """Ends a request whose body is larger than anything the page sends, as if its sender had hung up."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > _MOST_BODY else message

    return limited


def _form(problem: str, status: int = 200) -> HTMLResponse:
    said = f'<p role="alert">{html.escape(problem)}</p>' if problem else ""
    return HTMLResponse(
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Log in</title>
<style>{_STYLE}</style></head><body><main><form method="post" action="/login"><h1>Review</h1>{said}
<label>Name <input name="name" autocomplete="username" required autofocus maxlength="80"></label>
<label>Password <input name="password" type="password" autocomplete="current-password" required></label>
<button>Log in</button></form></main></body></html>""",
        status,
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, *, has_login: bool) -> None:
    """Raises UsageError for a host that other machines can reach while nobody has to log in."""
    if not _is_loopback(host) and not has_login:
        raise UsageError(
            f"host '{host}' can be reached from other machines, and without accounts anybody could decide in anybody's "
            "name. Add them with dataengine review user add NAME --role reviewer, or stay on 127.0.0.1."
        )
