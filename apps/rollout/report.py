"""What a rollout found: one row per trial, one line per policy, and how both are kept on disk."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.intervals import wilson_interval
from schemas.records import sha256_of

_TIMINGS = frozenset({"wall_s", "infer_ms", "round_trip_ms"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial. `answer` and the three `*_right` are scored with what only the simulator knows.

    `infer_ms` and `round_trip_ms` are medians over the trial's chunks; `reasoning` has one text per chunk,
    `refusals` the gate's reasons.
    """

    policy: str
    trial: int
    split: str
    seed: int
    index: int
    episode_id: str
    end: str
    success: bool
    equation: str
    answer: int
    picked_number: int | None
    picked_position: str | None
    picked_right: bool
    placed: bool
    on_ledge: bool
    read_right: bool | None
    math_right: bool | None
    plan_right: bool | None
    num_steps: int
    num_chunks: int
    gate_rejects: int
    wall_s: float
    infer_ms: float
    round_trip_ms: float
    reasoning: tuple[str, ...]
    refusals: tuple[str, ...]
    frames: tuple[str, ...]  # JPEG files of the artifact, in time order

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**value, **{name: tuple(value[name]) for name in ("reasoning", "refusals", "frames")}})

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @property
    def failure(self) -> str:
        """The one word for what went wrong; empty on success."""
        if self.success:
            return ""
        if self.end in ("aborted by gate", "policy failed"):
            return self.end
        if self.picked_number is None:
            return "no grasp"
        if not self.picked_right:
            return "wrong card"
        return "not let go" if not self.placed else "not on the ledge"

    @property
    def reasoning_line(self) -> str:
        """The first reasoning said, on one line."""
        return next((" ".join(text.split()) for text in self.reasoning if text), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySummary:
    """One policy on one split. The `*_right` are (right, claimed); failures count trials by their word."""

    policy: str
    split: str
    trials: int
    successes: int
    low: float
    high: float
    grasped: int
    picked_right: int
    read_right: tuple[int, int]
    math_right: tuple[int, int]
    plan_right: tuple[int, int]
    gate_rejects: int
    failures: dict[str, int]
    round_trip_ms: float

    def line(self) -> str:
        """One line for people: `recorded in-domain: 20/20 (95 % interval 84-100 %)`."""
        words = ", ".join(f"{count} {word}" for word, count in self.failures.items())
        return (
            f"{self.policy} {self.split}: {self.successes}/{self.trials} "
            f"(95 % interval {self.low:.0%}-{self.high:.0%}); "
            f"{self.grasped} grasped, {self.picked_right} the right card"
            + (f"; {words}" if words else "")
            + (f"; {self.gate_rejects} chunks rejected" if self.gate_rejects else "")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReport:
    """All trials of a rollout, and the folder that keeps them."""

    path: Path
    rows: tuple[TrialRow, ...]

    def summaries(self) -> tuple[PolicySummary, ...]:
        """One per policy and split, in the order in which they ran."""
        groups: dict[tuple[str, str], list[TrialRow]] = {}
        for row in self.rows:
            groups.setdefault((row.policy, row.split), []).append(row)
        return tuple(_summarize(policy, split, rows) for (policy, split), rows in groups.items())

    def to_json(self) -> dict[str, Any]:
        """Summaries and rows for `--json`."""
        return {
            "summaries": [asdict(summary) for summary in self.summaries()],
            "trials": [{**row.to_json(), "failure": row.failure} for row in self.rows],
        }

    def fingerprint(self) -> str:
        """Of what happened, not of how long it took."""
        return sha256_of(
            [{key: value for key, value in row.to_json().items() if key not in _TIMINGS} for row in self.rows]
        )

    def write(self, folder: Path) -> None:
        """`trials.parquet` for programs, `summary.json` for people."""
        pq.write_table(
            pa.Table.from_pylist([row.to_json() for row in self.rows], schema=_SCHEMA), folder / "trials.parquet"
        )
        (folder / "summary.json").write_text(json.dumps([asdict(summary) for summary in self.summaries()], indent=1))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """A rollout that was kept as an artifact."""
        rows = pq.read_table(folder / "trials.parquet", schema=_SCHEMA).to_pylist()
        return cls(path=folder, rows=tuple(TrialRow.from_json(row) for row in rows))


_INTS = ("trial", "seed", "index", "answer", "picked_number", "num_steps", "num_chunks", "gate_rejects")
_BOOLS = ("success", "picked_right", "placed", "on_ledge", "read_right", "math_right", "plan_right")
_LISTS = ("reasoning", "refusals", "frames")


def _column_type(name: str) -> pa.DataType:
    if name in _INTS:
        return pa.int64()
    if name in _BOOLS:
        return pa.bool_()
    if name in _LISTS:
        return pa.list_(pa.string())
    return pa.float64() if name in _TIMINGS else pa.string()


_SCHEMA = pa.schema([(name, _column_type(name)) for name in TrialRow.__dataclass_fields__])


def _summarize(policy: str, split: str, rows: list[TrialRow]) -> PolicySummary:
    successes = sum(row.success for row in rows)
    low, high = wilson_interval(successes, len(rows))
    failures: dict[str, int] = {}
    for row in rows:
        if row.failure:
            failures[row.failure] = failures.get(row.failure, 0) + 1
    trips = sorted(row.round_trip_ms for row in rows)
    return PolicySummary(
        policy=policy,
        split=split,
        trials=len(rows),
        successes=successes,
        low=low,
        high=high,
        grasped=sum(row.picked_number is not None for row in rows),
        picked_right=sum(row.picked_right for row in rows),
        read_right=_right_of_claimed([row.read_right for row in rows]),
        math_right=_right_of_claimed([row.math_right for row in rows]),
        plan_right=_right_of_claimed([row.plan_right for row in rows]),
        gate_rejects=sum(row.gate_rejects for row in rows),
        failures=failures,
        round_trip_ms=trips[len(trips) // 2],
    )


def _right_of_claimed(claims: list[bool | None]) -> tuple[int, int]:
    return sum(claim is True for claim in claims), sum(claim is not None for claim in claims)
