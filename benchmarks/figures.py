"""One measured figure, how it is printed, and where the last full result is kept."""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

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


def report(name: str, measure: Callable[[bool], list[Figure]], description: str | None) -> None:
    """Parse the flags, measure, print, and keep a full result beside its command and machine."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="a one-minute smoke of the same code")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON, last")
    flags = parser.parse_args()
    figures = measure(flags.quick)
    rows = [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for figure in figures:
        ratio = "" if figure.ratio is None else f"  ratio {figure.ratio:.2f}"
        peer = "" if figure.peer is None else f"  {figure.peer_name}: {figure.peer:.3g} {figure.unit}"
        reach = f"  (asked: {figure.reach})" if figure.reach else ""
        print(f"{figure.figure}: {figure.ours:.3g} {figure.unit}{peer}{ratio}{reach}  {figure.note}".rstrip())
    print(f"machine: {machine}; repeats: {max((figure.repeats for figure in figures), default=0)}")
    if not flags.quick:
        RESULTS.mkdir(exist_ok=True)
        kept = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine,
            "command": f"python -m benchmarks.{name}",
            "figures": rows,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    if flags.json:
        print(json.dumps(rows))
    sys.stdout.flush()
