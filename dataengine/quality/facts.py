"""One episode, measured: everything the checks need to know of it, small enough to keep for all episodes."""

from dataclasses import dataclass

import numpy as np

from dataengine.quality.camera_facts import CameraFacts, camera_facts
from dataengine.quality.likeness import Sketch, sketch
from dataengine.quality.limits import QualityLimits
from dataengine.quality.motion_facts import (
    ColumnFacts,
    LagFacts,
    StuckFacts,
    column_facts,
    lag_facts,
    paired_dims,
    stuck_facts,
)
from dataengine.quality.recordings import ACTION, STATE, Recording
from schemas.episodes import StreamSkew
from schemas.rigs import Rig

_LAG_TRIED_S = 1.0  # to either side


@dataclass(frozen=True, slots=True, kw_only=True)
class StampFacts:
    """Spacing of one stream's recorded stamps, in seconds."""

    usual_s: float
    longest_s: float
    longest_at: int  # the row after the gap
    num_taken: int  # different stamps
    num_lost: int  # frames that would have fitted into gaps


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EpisodeFacts:
    """What was measured."""

    episode_id: str
    num_frames: int
    rate_hz: int
    columns: dict[str, ColumnFacts]
    cameras: dict[str, CameraFacts]
    stamps: dict[str, StampFacts]
    skew: dict[str, StreamSkew]
    skew_frames: int  # rows that it counts
    sketch: Sketch
    pairs: tuple[tuple[int, int], ...]  # dimension of the action, dimension of the state it commands
    lag: LagFacts | None
    stuck: StuckFacts | None


def measure(recording: Recording, rig: Rig, limits: QualityLimits) -> EpisodeFacts:
    """Measure one episode; every camera is walked once."""
    columns, rate_hz = recording.columns, recording.rate_hz
    state, action = columns.get(STATE), columns.get(ACTION)
    pairs: tuple[tuple[int, int], ...] = ()
    lag: LagFacts | None = None
    stuck: StuckFacts | None = None
    if state is not None and action is not None:
        pairs = paired_dims(_names(rig, ACTION), _names(rig, STATE), action.shape[1], state.shape[1])
        lag = lag_facts(state, action, pairs, most=max(2, round(_LAG_TRIED_S * rate_hz)))
        stuck = stuck_facts(state, action, pairs, rate_hz=rate_hz, stuck_s=limits.stuck_s)
    return EpisodeFacts(
        episode_id=recording.episode_id,
        num_frames=recording.num_frames,
        rate_hz=rate_hz,
        columns={key: column_facts(values) for key, values in columns.items() if values.dtype.kind in "fiu"},
        cameras={
            key: camera_facts(
                pictures(),
                state,
                num_frames=recording.num_frames,
                difference=limits.frozen_difference,
                least_frames=max(1, round(limits.frozen_s * rate_hz / 2)),
            )
            for key, pictures in recording.cameras.items()
        },
        stamps={key: _stamp_facts(recording, rig, key) for key, row in recording.stamps_ns.items() if len(row) > 2},
        skew=dict(recording.skew),
        skew_frames=recording.skew_frames or recording.num_frames,
        sketch=sketch(columns),
        pairs=pairs,
        lag=lag,
        stuck=stuck,
    )


def _names(rig: Rig, feature: str) -> tuple[str, ...]:
    return rig.features[feature].names if feature in rig.features else ()


def _stamp_facts(recording: Recording, rig: Rig, key: str) -> StampFacts:
    """Spacing of one stream; of one aligned to rows of another clock, without the gaps that the alignment makes."""
    steps = np.diff(recording.stamps_ns[key]) / 1e9
    taken = steps[steps > 0]  # rows of a faster clock take a message again
    usual = float(np.median(taken)) if len(taken) else 0.0
    lost = int(np.sum(np.maximum(np.round(taken / usual) - 1, 0))) if usual > 0 else 0
    skew = recording.skew.get(key)
    if key != rig.clock.reference and (skew is not None or rig.aligns):
        # rows of a slower clock pass over messages, which leaves gaps although none is lost; a frame store counts none
        lost = max(0, lost - skew.num_dropped) if skew is not None else 0
        row_s = 1 / recording.rate_hz
        rows_ns = recording.stamps_ns.get(rig.clock.reference or "")
        if rows_ns is not None:  # where the rows have a gap, the stream has none
            steps -= np.diff(rows_ns) / 1e9 - row_s
        usual = max(usual, row_s)
    at = int(np.argmax(steps))
    return StampFacts(
        usual_s=usual, longest_s=float(steps[at]), longest_at=at + 1, num_taken=len(taken) + 1, num_lost=lost
    )
