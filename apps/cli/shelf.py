"""`list` and `show`: what is in the workspace."""

from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, WorkspaceDir
from apps.cli.output import show_json, show_record
from dataengine.workspace import Workspace
from schemas.errors import RefError, UsageError, did_you_mean
from schemas.records import Record
from schemas.refs import KINDS, Kind, Ref


def list_artifacts(workspace: WorkspaceDir = DEFAULT_WORKSPACE, as_json: AsJson = False) -> None:
    """List every artifact in the workspace.

    Example: dataengine list
    """
    records = Workspace.at(workspace).all_records()
    if as_json:
        show_json([record.model_dump(mode="json", exclude={"files"}) for record in records])
        return
    if not records:
        typer.echo(f"Nothing yet in {workspace}. Start with: dataengine simulate, or dataengine inspect PATH")
    for record in records:
        counts = ", ".join(f"{value:,} {name}" for name, value in record.counts.items() if isinstance(value, int))
        typer.echo(f"{record.kind:<12} {record.name}@{record.version:<8} {record.created:%Y-%m-%d %H:%M}  {counts}")


def show(
    ref: Annotated[str, typer.Argument(help="NAME@VERSION, with KIND/ before it when several kinds share it.")],
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Show one artifact: what it holds, what it was made from, what was left out and why.

    Example: dataengine show episodes/sim@1
    """
    show_record(find_record(Workspace.at(workspace), ref), as_json=as_json)


def find_record(workspace: Workspace, text: str) -> Record:
    """The record that `NAME@VERSION` or `KIND/NAME@VERSION` names. Raises RefError or UsageError."""
    kind_text, slash, rest = text.rpartition("/")
    ref = Ref.parse(rest)
    if slash:
        for kind in KINDS:
            if kind == kind_text:
                return workspace.record(kind, ref)
        raise UsageError(f"'{kind_text}' is no kind of artifact. {did_you_mean(kind_text, KINDS)}")
    kinds: list[Kind] = [kind for kind in KINDS if ref in workspace.refs(kind)]
    if not kinds:
        known = {str(known) for kind in KINDS for known in workspace.refs(kind)}
        raise RefError(f"no artifact '{ref}' in the workspace. {did_you_mean(str(ref), known)}")
    if len(kinds) > 1:
        choices = " or ".join(f"{kind}/{ref}" for kind in kinds)
        raise UsageError(f"'{ref}' names {len(kinds)} artifacts. Write {choices}.")
    return workspace.record(kinds[0], ref)
