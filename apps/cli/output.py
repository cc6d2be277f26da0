"""How facts reach a person (short lines) or a program (one JSON document)."""

import json
from typing import Any

import typer

from apps.cli.words import note_words, rejected_words
from schemas.records import Record


def show_json(value: Any) -> None:  # noqa: ANN401 - any JSON value
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def show_record(record: Record, *, as_json: bool) -> None:
    """What an artifact is and holds, what it was made from, and what was not taken or left out."""
    if as_json:
        show_json(record.model_dump(mode="json"))
        return
    typer.echo(f"{record.kind} {record.name}@{record.version}  fingerprint {record.fingerprint[:16]}")
    for name, value in record.counts.items():
        typer.echo(f"  {name.replace('_', ' ')}: {value:,}" if isinstance(value, int) else f"  {name}: {value:.3f}")
    for row in record.inputs:
        typer.echo(f"  from {row.kind} {row.ref} ({row.fingerprint[:12]})")
    for line in (*note_words([record]), *(f"  {words}" for words in rejected_words(record.rejected))):
        typer.echo(line)
