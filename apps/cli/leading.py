"""`review stats` and `review batch`: what a lead asks of a review, and accepts without a look."""

import sys
from getpass import getpass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, LedgerUrl, WorkspaceDir
from apps.cli.output import show_json
from dataengine.workspace import Workspace
from schemas.errors import AccessError
from schemas.refs import Ref

if TYPE_CHECKING:
    from annotators.ledger import Ledger
    from annotators.ledger.statistics import Statistics
    from schemas.annotations import FieldName
    from schemas.shares import Share

_SHOWN = 10  # rows of each kind; --json has all


def stats(
    episodes: Annotated[
        str | None, typer.Argument(help="NAME@VERSION of the episodes. Default: all of the ledger.")
    ] = None,
    reviewer: Annotated[str | None, typer.Option("--reviewer", help="Only this person's own figures.")] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Agreement, gold accuracy, edit rates, throughput, what waits, hours left, audited error: as on the dashboard.

    Example: dataengine review stats sim@1
    """
    from annotators.ledger import Ledger, QueueFilter

    place = Workspace.at(workspace)
    with Ledger.open(ledger or place.ledger_url) as book:
        wanted = QueueFilter() if episodes is None else QueueFilter(scope=_scope(book, place, episodes))
        found = book.statistics(wanted, reviewer=reviewer)
    if as_json:
        show_json(found.to_json())
    else:
        typer.echo("\n".join(_lines(found)))


def batch(
    episodes: Annotated[str, typer.Argument(help="NAME@VERSION of the episodes.")],
    stratum: Annotated[str, typer.Option("--stratum", help="The kind of scene, as review stats names it.")],
    reviewer: Annotated[
        str, typer.Option("--reviewer", envvar="DATAENGINE_REVIEWER", help="In whose name. With accounts: a lead.")
    ],
    field: Annotated[str | None, typer.Option("--field", help="Only items about this, e.g. trace.")] = None,
    family: Annotated[str | None, typer.Option("--family", help="Only proposals of this task family.")] = None,
    annotator: Annotated[str | None, typer.Option("--annotator", help="Only proposals of this model.")] = None,
    bound: Annotated[float, typer.Option("--bound", help="The audited error must be below this share.")] = 0.05,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ledger: LedgerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Accept in your name what waits in a stratum: only what every verifier passed, where random audits allow it.

    Each item gets its own decision, which says that it was one of a batch. Where there are accounts, the password is
    asked for, or read from standard input.

    Example: dataengine review batch sim@1 --stratum "sum with +" --reviewer alice
    """
    from annotators.ledger import Ledger, QueueFilter

    place = Workspace.at(workspace)
    with Ledger.open(ledger or place.ledger_url) as book:
        _check_lead(book, reviewer)
        scope = _scope(book, place, episodes)
        about = cast("FieldName | None", field)
        wanted = QueueFilter(scope=scope, stratum=stratum, field=about, family=family, annotator=annotator)
        done = book.accept_batch(reviewer=reviewer, wanted=wanted, bound=bound)
    if as_json:
        show_json({"batch_id": done.batch_id, "accepted": done.num_accepted, "left": dict(done.left)})
        return
    typer.echo(f"{done.num_accepted:,} items accepted in the name of {reviewer}.")
    for reason, count in done.left.items():
        typer.echo(f"  left to people: {count:,}, {reason}")


def _scope(book: "Ledger", place: Workspace, episodes: str) -> str:
    from dataengine.episode_set import EpisodeSet

    return book.scope(EpisodeSet.open(place, Ref.parse(episodes)).ids())


def _check_lead(book: "Ledger", name: str) -> None:
    """Raises AccessError for a wrong password and for who is no lead; without accounts whoever types a name decides."""
    if not book.accounts.all():
        return
    password = getpass(f"Password of {name}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    secret = book.accounts.log_in(name, password)
    account = book.accounts.who(secret)
    book.accounts.log_out(secret)
    if account is None or not account.may("lead"):
        raise AccessError(f"{name} is no lead, so nothing was accepted. Ask your lead.")


def _lines(found: "Statistics") -> list[str]:
    hours = "hours left not known yet" if found.hours_left is None else f"{found.hours_left:,.1f} hours left"
    head = f"{found.num_done:,} of {found.num_items:,} items done; {found.num_decisions_left:,} decisions left"
    lines = [f"{head}, {hours}"]
    lines += [f"  waits: {count:,}, {reason}" for reason, count in found.waiting.items()]
    for person in found.people[:_SHOWN]:
        time = "" if person.median_s is None else f", median {person.median_s:.1f} s"
        gold = f", gold {_share(person.gold)}" if person.gold.of else ""
        lines.append(f"  {person.reviewer}: {person.num_decisions:,} decisions{time}{gold}")
    lines += [f"  changed {rate.field}: {_share(rate.changed)}" for rate in found.edit_rates[:_SHOWN]]
    for row in found.speakers[:_SHOWN]:
        who = f"{row.speaker.backend} {row.speaker.model} ({row.field})"
        lines.append(f"  {who}: edited {_share(row.edited)}, rejected {_share(row.rejected)}")
    for field in found.agreement:
        alpha = "not defined" if field.alpha is None else f"{field.alpha:.3f}"
        lines.append(f"  alpha of {field.field}: {alpha} over {field.num_items:,} items")
    for pair in found.pairs[:_SHOWN]:
        kappa = "not defined" if pair.kappa is None else f"{pair.kappa:.3f}"
        lines.append(f"  kappa of {pair.first} and {pair.second}, {pair.field}: {kappa} over {pair.num_items:,} items")
    for place in found.boundaries:
        if place.f1 is not None:
            lines.append(f"  boundary F1 within {place.tolerance_s:g} s: {place.f1:.3f} over {place.num_pairs:,} pairs")
    for stratum in found.strata[:_SHOWN]:
        error = _share(stratum.error) if stratum.error.of else "not known"
        lines.append(f"  audited error of {stratum.name}: {error}; {stratum.num_waiting:,} wait")
    cut = max(len(rows) for rows in (found.people, found.edit_rates, found.speakers, found.pairs, found.strata))
    return [*lines, "more rows: --json"] if cut > _SHOWN else lines


def _share(share: "Share") -> str:
    value = 0.0 if share.value is None else share.value
    return f"{value:.1%} of {share.of:,} ({share.low:.1%} to {share.high:.1%})"
