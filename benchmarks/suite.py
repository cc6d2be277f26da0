"""How long `make test` takes, beside the limit asked for. `--quick` runs the same command on one folder of tests."""

import subprocess
import sys
import time

from benchmarks.figures import Figure, report

LIMIT_S = 600.0
AS_MAKE_TEST = ("-m", "not slow", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")


def measure(quick: bool) -> list[Figure]:
    """Run the suite once, as the Makefile does."""
    where = ["tests/schemas"] if quick else []
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pytest", *AS_MAKE_TEST, *where], stdout=sys.stderr, check=False)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise SystemExit(f"the suite ended with exit code {done.returncode}; its time says nothing. Run `make test`.")
    return [
        Figure(
            figure="make test",
            ours=seconds,
            peer=LIMIT_S,
            peer_name="limit",
            unit="s",
            repeats=1,
            reach="under 10 minutes",
            note="tests/schemas alone" if quick else "the whole suite",
        )
    ]


if __name__ == "__main__":
    report("suite", measure, __doc__)
