"""What a quality check says about one stream of one episode."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from schemas.refs import Ref

Check = Literal[
    "not_finite",
    "jump",
    "stuck_joint",
    "static_episode",
    "action_lag",
    "dropped_frames",
    "length_outlier",
    "duplicate_episode",
    "frozen_camera",
    "black_camera",
    "washed_out_camera",
    "unreadable",
]
Verdict = Literal["pass", "fail", "unknown"]
WORDS: dict[Check, str] = {
    "not_finite": "NaN or infinite values",
    "jump": "values that jump",
    "stuck_joint": "a joint stands still although it is told to move",
    "static_episode": "nothing moves",
    "action_lag": "state and action do not belong together in time",
    "dropped_frames": "frames are missing",
    "length_outlier": "unusually long or short",
    "duplicate_episode": "recorded twice",
    "frozen_camera": "a camera shows the same picture while the robot moves",
    "black_camera": "a camera is black",
    "washed_out_camera": "a camera is washed out",
    "unreadable": "the episode cannot be read",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRow:
    """One verdict. `value` and `limit` are in `unit`; `frame` to `frame + num_frames` is where to look."""

    episode_id: str
    check: Check
    stream: str  # feature, camera or "all"
    verdict: Verdict
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    detail: str = ""  # what was seen, or why nothing can be said
    dim: int | None = None
    frame: int | None = None
    num_frames: int = 1
    other: str | None = None  # the episode this one repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityReport:
    """All verdicts about one dataset."""

    ref: Ref
    rows: tuple[QualityRow, ...]
    num_episodes: int
    limits: dict[str, Any]

    @property
    def failed(self) -> tuple[QualityRow, ...]:
        """What needs a look."""
        return tuple(row for row in self.rows if row.verdict == "fail")

    @property
    def ok(self) -> bool:
        """True when no check failed; what is unknown is no failure."""
        return not self.failed

    def counts(self) -> dict[Check, Counter[Verdict]]:
        """Episodes per check and verdict: the worst of its streams, unknown only where none could be judged."""
        worst: dict[tuple[Check, str], Verdict] = {}
        order: Sequence[Verdict] = ("unknown", "pass", "fail")
        for row in self.rows:
            key = (row.check, row.episode_id)
            worst[key] = max(worst.get(key, "unknown"), row.verdict, key=order.index)
        found: dict[Check, Counter[Verdict]] = {}
        for (check, _), verdict in worst.items():
            found.setdefault(check, Counter())[verdict] += 1
        return found

    def bad_episodes(self) -> tuple[str, ...]:
        """Ids of episodes with a failed check, in dataset order."""
        return tuple(dict.fromkeys(row.episode_id for row in self.failed))

    def to_json(self) -> dict[str, Any]:
        """Plain values; every verdict that is not a pass is listed, passes are counted."""
        return {
            "ref": str(self.ref),
            "ok": self.ok,
            "num_episodes": self.num_episodes,
            "bad_episodes": list(self.bad_episodes()),
            "checks": {check: dict(counted) for check, counted in sorted(self.counts().items())},
            "rows": [asdict(row) for row in self.rows if row.verdict != "pass"],
            "limits": self.limits,
        }
