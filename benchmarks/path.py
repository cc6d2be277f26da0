"""The whole path: wall time and peak memory of `dataengine demo` in an empty workspace, beside the limits asked for."""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.figures import Figure, report

LIMIT_S = 600.0
LIMIT_GB = 6.0


def measure(quick: bool) -> list[Figure]:
    """Run the demo once; memory is the summed PSS of its whole process tree, sampled twice a second."""
    size = ["--episodes", "4", "--steps", "8", "--trials", "2"] if quick else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "apps", "demo", "--workspace", str(Path(folder) / "workspace"), *size]
        start = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            peak = _PeakMemory(process.pid)
            code = process.wait()
            peak.stop()
        seconds = time.monotonic() - start
    if code != 0:
        raise SystemExit(f"the demo ended with exit code {code}; run `dataengine demo` to see why")
    note = "4 episodes, 8 steps, 2 trials" if quick else "as `make demo` runs it"
    return [
        Figure(
            figure="demo, wall time", ours=seconds, peer=LIMIT_S, peer_name="limit", unit="s", repeats=1, note=note,
            reach="under 10 minutes",
        ),
        Figure(
            figure="demo, peak memory", ours=peak.gigabytes, peer=LIMIT_GB, peer_name="limit", unit="GB", repeats=1,
            note=note, reach="under 6 GB",
        ),
    ]  # fmt: skip


class _PeakMemory:
    """Samples a process tree until stopped. Shared pages are counted once (PSS), as the machine feels them."""

    def __init__(self, pid: int) -> None:
        self.gigabytes = 0.0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            total = 0
            try:
                members = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for member in members:
                try:
                    total += member.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it ended between the listing and the look
            self.gigabytes = max(self.gigabytes, total / 1e9)


if __name__ == "__main__":
    report("path", measure, __doc__)
