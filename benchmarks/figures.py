"""One measured figure, how it is printed, and where the last full result is kept."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measurement of ours beside a peer's, or beside a limit. `reach` is what was asked for; ratio = ours / peer."""

    figure: str
    ours: float
    peer: float | None
    peer_name: str
    unit: str
    repeats: int
    reach: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's; None where there is no peer to divide by."""
        return None if self.peer is None or self.peer == 0 else self.ours / self.peer


def report(
    name: str,
    measure: Callable[[bool], list[Figure]] | Mapping[str, Callable[[bool], list[Figure]]],
    description: str | None,
) -> None:
    """Parse the flags, measure, print, and keep a full result beside its command and machine.

    Of several groups, `--only GROUP` measures one anew and leaves the others as they were kept.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a one-minute smoke of the same code")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, last")
    if isinstance(measure, Mapping):
        parser.add_argument("--only", choices=list(measure), help="measure one group of figures alone")
    flags = parser.parse_args()
    only = getattr(flags, "only", None)
    groups = measure if isinstance(measure, Mapping) else {"all": measure}
    figures = [figure for group in ([only] if only else groups) for figure in groups[group](flags.quick)]
    date = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [{**asdict(figure), "ratio": figure.ratio, "date": date} for figure in figures]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for figure in figures:
        ratio = "" if figure.ratio is None else f"  ratio {figure.ratio:.2f}"
        peer = "" if figure.peer is None else f"  {figure.peer_name}: {figure.peer:.3g} {figure.unit}"
        reach = f"  (asked: {figure.reach})" if figure.reach else ""
        print(f"{figure.figure}: {figure.ours:.3g} {figure.unit}{peer}{ratio}{reach}  {figure.note}".rstrip())
    print(f"machine: {machine}; repeats: {max((figure.repeats for figure in figures), default=0)}")
    if not flags.quick:
        _keep(RESULTS / f"{name}.json", name, machine, rows, whole=only is None)
    if flags.json:
        print(json.dumps(rows))
    sys.stdout.flush()


def _keep(path: Path, name: str, machine: str, rows: list[dict[str, Any]], *, whole: bool) -> None:
    """Write the result; rows of other groups stay, each with the date of its own run."""
    kept = [] if whole or not path.is_file() else json.loads(path.read_text())["figures"]
    fresh = {row["figure"]: row for row in rows}
    merged = [fresh.pop(row["figure"], row) for row in kept] + list(fresh.values())
    path.parent.mkdir(exist_ok=True)
    result = {"machine": machine, "command": f"python -m benchmarks.{name}", "figures": merged}
    path.write_text(json.dumps(result, indent=1) + "\n")
