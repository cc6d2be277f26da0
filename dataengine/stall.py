"""Whether Ray workers of this machine still get anywhere: a codec can wait for itself, a lost task for nobody."""

import time
from dataclasses import dataclass, field

import psutil

_WORKER = "ray::_isolated_batch"  # what Ray calls a process that does a task of ours
_BUSY = 0.025  # of one processor: threads of Ray's own take 0.01 beside a task that stands still
_BUSY_BYTES_PER_S = 10_000


@dataclass(slots=True, kw_only=True)
class Watch:
    """Looks at the Ray workers below this process each time it is asked."""

    limit_s: float  # without any work, and it is a stall
    _idle_since_s: float = field(default_factory=time.monotonic)
    _looked_s: float = field(default_factory=time.monotonic)
    _last: dict[int, tuple[float, int]] = field(default_factory=dict)

    def progressed(self) -> None:
        """A result came."""
        self._idle_since_s = time.monotonic()

    def sees_a_stall(self) -> bool:
        """Whether for `limit_s` no result came and no worker worked.

        Seconds of the processor and bytes read and written count as work: a slow disk is no stall.
        """
        now_s, seen = time.monotonic(), _work_done()
        elapsed_s = now_s - self._looked_s
        for pid, (cpu_s, num_bytes) in seen.items():
            cpu_before_s, bytes_before = self._last.get(pid, (0.0, 0))
            worked = cpu_s - cpu_before_s > _BUSY * elapsed_s
            if worked or num_bytes - bytes_before > _BUSY_BYTES_PER_S * elapsed_s:
                self._idle_since_s = now_s
        # Where this process itself was stopped, or the machine slept, nobody had time to work.
        if elapsed_s > self.limit_s:
            self._idle_since_s = now_s
        self._last, self._looked_s = seen, now_s
        return now_s - self._idle_since_s > self.limit_s


def _work_done() -> dict[int, tuple[float, int]]:
    """Processor seconds and bytes of each worker so far, by process."""
    found: dict[int, tuple[float, int]] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            with process.oneshot():
                if not " ".join(process.cmdline()[:1]).startswith(_WORKER):
                    continue
                cpu = process.cpu_times()
                found[process.pid] = (cpu.user + cpu.system, _num_bytes(process))
        except psutil.Error:
            continue  # it ended meanwhile
    return found


def _num_bytes(process: psutil.Process) -> int:
    """Bytes read and written; 0 where the system does not tell (macOS)."""
    if not hasattr(process, "io_counters"):
        return 0
    counters = process.io_counters()
    return int(counters.read_chars + counters.write_chars + counters.read_bytes)
