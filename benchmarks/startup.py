"""How long `dataengine --help` takes, beside an interpreter that only imports the argument parser it uses."""

import statistics
import subprocess
import sys
import time

from benchmarks.figures import Figure, report


def measure(quick: bool) -> list[Figure]:
    """Interleaved medians of whole processes."""
    repeats = 3 if quick else 15
    ours: list[float] = []
    peer: list[float] = []
    for _ in range(repeats):
        ours.append(_seconds([sys.executable, "-m", "apps", "--help"]))
        peer.append(_seconds([sys.executable, "-c", "import typer"]))
    return [
        Figure(
            figure="dataengine --help",
            ours=statistics.median(ours),
            peer=statistics.median(peer),
            peer_name="python -c 'import typer'",
            unit="s",
            repeats=repeats,
            reach="under 1 s",
        )
    ]


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    report("startup", measure, __doc__)
