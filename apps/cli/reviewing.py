"""`review`: the page people decide on, and what its lead does beside it."""

import secrets
import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from apps.cli import leading
from apps.cli.options import DEFAULT_WORKSPACE, AsJson, LedgerUrl, WorkspaceDir
from apps.cli.output import show_json
from dataengine.workspace import Workspace
from schemas.errors import LedgerError, UsageError, did_you_mean
from schemas.refs import Ref

_PAGE = "open"  # what `dataengine review sim@1` means


class OpensThePage(TyperGroup):
    """Takes `review sim@1` for `review open sim@1`: a reviewer needs one verb."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - Typer keeps the type to itself
        """The words after `review`."""
        return super().parse_args(ctx, self._named(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - Typer keeps the type to itself
        """The verb that is meant, and its own words."""
        return super().resolve_command(ctx, self._named(args))

    def _named(self, args: list[str]) -> list[str]:
        return args if not args or args[0] in (*self.commands, "--help") else [_PAGE, *args]


review_app = typer.Typer(
    cls=OpensThePage,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Open the review page (review NAME@VERSION), check the ledger, copy it.",
)


@review_app.command(_PAGE)
def open_page(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes to review.")],
    reviewer: Annotated[str | None, typer.Option("--reviewer", envvar="DATAENGINE_REVIEWER", help="Your name.")] = None,
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 7860,
    batch_bound: Annotated[
        float, typer.Option("--batch-bound", help="A lead may accept a stratum at once below this audited error.")
    ] = 0.05,
    proxy_header: Annotated[
        str | None, typer.Option("--proxy-header", help="People log in at a proxy, which names them in this header.")
    ] = None,
    proxy_secret_file: Annotated[
        Path | None,
        typer.Option(
            "--proxy-secret-file", help="Holds what the proxy sends as X-Review-Proxy-Secret, to prove itself."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, help="That share the port; two for a team of a hundred.")
    ] = 1,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
) -> None:
    """Open the review page: watch, accept, edit or reject what was proposed.

    Example: dataengine review open sim@1 --reviewer alice (or dataengine review sim@1)
    """
    from apps.review.app import launch
    from apps.review.proxy import Proxy

    if (proxy_header is None) != (proxy_secret_file is None):
        raise UsageError(
            "a header alone proves nothing: anybody can send it. "
            "Give both --proxy-header NAME and --proxy-secret-file FILE."
        )
    proxy = None
    if proxy_header is not None and proxy_secret_file is not None:
        proxy = Proxy.read(proxy_header, proxy_secret_file)
    place = Workspace.at(workspace)
    ref = Ref.parse(episodes)
    place.find("episodes", ref)
    launch(
        workspace=place,
        episodes=ref,
        ledger_url=ledger or place.ledger_url,
        host=host,
        port=port,
        reviewer=reviewer,
        batch_bound=batch_bound,
        proxy=proxy,
        processes=processes,
    )


user_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Who may log in to the review page. Example: dataengine review user add alice --role reviewer",
)
review_app.add_typer(user_app, name="user")
review_app.command()(leading.stats)
review_app.command()(leading.batch)


@user_app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name that decisions will carry.")],
    role: Annotated[
        Literal["viewer", "reviewer", "adjudicator", "lead"],
        typer.Option("--role", help="Each may do what those before it may: look, decide, settle disagreements, lead."),
    ],
    no_password: Annotated[
        bool, typer.Option("--no-password", help="They log in at a proxy alone; see review open --proxy-header.")
    ] = False,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
) -> None:
    """Make an account; the password is asked for, or read from standard input. From then on everybody logs in.

    Example: dataengine review user add alice --role reviewer
    """
    from annotators.ledger import Ledger

    if no_password:
        password = secrets.token_urlsafe(32)  # which nobody ever learns
    else:
        password = getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    with Ledger.open(ledger or Workspace.at(workspace).ledger_url) as book:
        book.accounts.add(name, role, password)
    typer.echo(f"{name} may log in as {role}. A page that is open without logins has to be started again.")


@user_app.command("list")
def list_users(workspace: WorkspaceDir = DEFAULT_WORKSPACE, ledger: LedgerUrl = None, as_json: AsJson = False) -> None:
    """Who may log in, with which role.

    Example: dataengine review user list
    """
    from annotators.ledger import Ledger

    with Ledger.open(ledger or Workspace.at(workspace).ledger_url) as book:
        accounts = book.accounts.all()
    if as_json:
        show_json([{"name": account.name, "role": account.role} for account in accounts])
        return
    for account in accounts:
        typer.echo(f"{account.role:12} {account.name}")


@user_app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Whose account goes.")],
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
) -> None:
    """Take an account away and log it out at once; what it decided keeps its name. Add it again to change it.

    Example: dataengine review user remove alice
    """
    from annotators.ledger import Ledger

    with Ledger.open(ledger or Workspace.at(workspace).ledger_url) as book:
        book.accounts.remove(name)
    typer.echo(f"{name} can not log in any more.")


@review_app.command()
def assign(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes.")],
    overlap: Annotated[
        int | None, typer.Option("--overlap", min=1, help="So many people decide, each without seeing the others.")
    ] = None,
    gold: Annotated[
        bool | None,
        typer.Option("--gold/--no-gold", help="What stands now is the truth; reviewers meet it as a test."),
    ] = None,
    share: Annotated[float, typer.Option("--share", min=0.0, max=1.0, help="Only this share, the same each time.")] = 1,
    episode: Annotated[
        list[str] | None, typer.Option("--episode", help="Only this episode_id; repeat for several.")
    ] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
) -> None:
    """Say how items are reviewed from now on: by how many people, and which are gold.

    Example: dataengine review assign sim@1 --overlap 2 --share 0.1
    """
    from annotators.ledger import Ledger
    from annotators.review import chosen_share
    from dataengine.episode_set import EpisodeSet

    if overlap is None and gold is None:
        raise UsageError("nothing is to be assigned. Give --overlap N, --gold or both.")
    place = Workspace.at(workspace)
    ids = set(EpisodeSet.open(place, Ref.parse(episodes)).ids())
    if unknown := sorted(set(episode or ()) - ids):
        raise UsageError(f"{episodes} has no episode '{unknown[0]}'. {did_you_mean(unknown[0], ids)}")
    with Ledger.open(ledger or place.ledger_url) as book:
        _, items = book.snapshot()
        named = [row for row in items if row.episode_id in (ids if episode is None else episode)]
        wanted = [row.item_id for row in named if row.standing is not None or not gold]
        chosen = chosen_share(wanted, share)
        num_new = book.assign(chosen, overlap=overlap, gold=gold)
    typer.echo(f"{len(chosen)} of {len(wanted)} items chosen; assigned anew: {num_new}.")


@review_app.command()
def blank(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes.")],
    field: Annotated[
        Literal["trace", "segments", "scene"], typer.Option("--field", help="What people are to write.")
    ] = "segments",
    family: Annotated[str, typer.Option("--family", help="The task family, whose guideline they see.")] = "generic",
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
) -> None:
    """Put episodes that nothing was proposed about into the queue, for people to annotate from nothing.

    Example: dataengine review blank sim@1 --field segments
    """
    from annotators.blank import add_blanks
    from annotators.families import load_family
    from annotators.ledger import Ledger
    from dataengine.episode_set import EpisodeSet

    place = Workspace.at(workspace)
    shown = EpisodeSet.open(place, Ref.parse(episodes))
    with Ledger.open(ledger or place.ledger_url) as book:
        num_new = add_blanks(shown, book, field=field, family=load_family(family))
    typer.echo(f"{num_new} of {len(shown.ids())} episodes had no {field} and wait for a person now.")


@review_app.command()
def audit(
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Write the queue's table again from what was said and decided, first.")
    ] = False,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Replay every decision from the first one and compare; a row that was changed or removed is named, exit code 2.

    Example: dataengine review audit
    """
    from annotators.ledger import Ledger

    with Ledger.open(ledger or Workspace.at(workspace).ledger_url) as book:
        if rebuild:
            book.rebuild()
        found = book.audit()
    if as_json:
        show_json({name: getattr(found, name) for name in found.__slots__})
    else:
        typer.echo(
            f"seq {found.seq:,}: {found.num_proposals:,} proposals, {found.num_decisions:,} decisions, "
            f"last hash {found.last_hash[:16]}"
        )
    if found.problems:
        raise LedgerError(" ".join(found.problems))
    if not as_json:
        typer.echo("Everything fits.")


@review_app.command()
def backup(
    path: Annotated[Path, typer.Argument(help="New file for the copy.")],
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
) -> None:
    """Copy a SQLite ledger while people work on it; the copy is one moment of it, checked.

    Example: dataengine review backup backups/monday.db
    """
    from annotators.ledger import Ledger

    with Ledger.open(ledger or Workspace.at(workspace).ledger_url) as book:
        book.backup(path)
    typer.echo(f"copied to {path}; look at it with dataengine review audit --ledger sqlite:///{path}")
