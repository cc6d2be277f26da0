"""What the robot's own numbers say: gripper events, segments and move primitives. Computed, never asked for.

An end effector *closes* where its openness falls from a turning point by a share of the episode's range, and *opens*
where it rises again; the stamp is the frame at which that movement begins. Turning points, not fixed levels, because a
gripper that holds something stops wherever the thing is as thick as it is. Where the rig declares no end effector,
events are unknown and the whole episode is one segment labelled "unknown".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from annotators.moves import UNKNOWN, Columns, FloatArray, Moves, arms_of, joints_of, tool_path_m
from schemas.annotations import GripperEvent, Segment, SegmentList
from schemas.errors import EpisodeError
from schemas.rigs import Arm, EndEffector, Rig
from schemas.spans import NS_PER_S

COMMAND = "action"  # the feature that holds what the robot was told

# Shares of the openness range of one episode. 0.22: an ALOHA gripper lets a card go by opening from 0.52 to 0.74 while
# an empty try in the same episode closes to 0.25 (range 0.7); tremor and sensor noise stay under 0.08.
_TURN_SHARE = 0.22
_LEAST_TURN = 0.12
_LEAST_RANGE = 0.25  # of openness in an episode; an idle hand of a real humanoid wanders by up to 0.21
# A hand that holds something wide hardly moves (0.24 around a disc of 4 cm) while its command goes on (0.6).
_LEAST_COMMANDED_RANGE = 0.15
_STILL_SHARE = 0.1  # of the movement's fastest stretch; slower than this it has not begun, or it is over
_STILL_LEAST = 0.015  # and below this it is noise
_STILL_S = 0.2  # hands that report at 10 Hz step: shorter looks see stillness between two steps
_CLOSED_BELOW_SHARE = 0.5  # a hand that only relaxes half-way after letting go has not closed
_LEAST_EVENT_S = 0.06
_REST_SHARE = 0.06  # of the fast joint speed of the episode
_LEAST_REST_S = 0.1  # as long as the speed is smoothed over; a shorter stop can not be told from a turn
_LEAST_MOVE_RAD, _LEAST_MOVE_M = 0.05, 0.015  # in a second: an episode without events that stays below it is a hold
_REST_TRAVEL_RAD, _REST_TRAVEL_M = 0.15, 0.03
# A hand that holds something begins to carry once it is further than it sways from where it closed; one that soon opens
# again, before it got a step away, has carried nothing. Of the tool in metres where it is known, else of the joint that
# turns most. Longer than a try and it stands still on purpose, for the other hand.
_SWAY_M, _STEP_M = 0.003, 0.01
_SWAY_RAD, _STEP_RAD = 0.01, 0.03
_TRY_S = 0.5
_MOVES_PER_SEGMENT = 2
# Which phase names a stretch in which two end effectors are at work.
_LOUDNESS = {"grasp": 5, "release": 4, "carry": 3, "reach": 2, "retreat": 1, "hold": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One closing or opening: frames at which it begins and at which it is over."""

    event: str  # "close" | "open"
    onset: int
    settled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Phase:
    """Frames [start, stop) of one end effector."""

    label: str
    start: int
    stop: int
    end_effector: str


def is_point(arm: Arm) -> bool:
    """True where an arm's numbers are the position of its tool, in metres: its joints were not recorded."""
    tool = arm.position
    return tool is not None and (arm.feature, arm.indices) == (tool.feature, tool.indices)


def openness(columns: Columns, end_effector: EndEffector) -> FloatArray:
    """How open an end effector is in every row, (T,), 0 closed to 1 open. Raises EpisodeError if the rig misfits."""
    column = columns.get(end_effector.feature)
    if column is None or max(end_effector.indices) >= column.shape[1]:
        raise EpisodeError(
            f"'{end_effector.name}' reads {end_effector.feature}{list(end_effector.indices)}, which the episode lacks."
        )
    values = np.asarray(column[:, list(end_effector.indices)], dtype=np.float64)
    closed, opened = np.asarray(end_effector.closed, np.float64), np.asarray(end_effector.open, np.float64)
    return np.asarray(np.clip((values - closed) / (opened - closed), 0.0, 1.0).mean(axis=1))


def turns(opening: FloatArray, rate_hz: int, *, least_range: float = _LEAST_RANGE) -> tuple[Turn, ...]:
    """Closings and openings in alternation, the first one a closing. Debounced: shorter ones than 60 ms are noise."""
    low, high = np.percentile(opening, [1, 99])
    if high - low < least_range:
        return ()
    smooth = _median(opening, max(1, round(_LEAST_EVENT_S * rate_hz)) | 1)
    turn = max(_LEAST_TURN, _TURN_SHARE * float(high - low))
    closed_below = float(low + _CLOSED_BELOW_SHARE * (high - low))
    window = max(2, round(_STILL_S * rate_hz))
    found: list[Turn] = []
    best, best_at = float(smooth[0]), 0  # running maximum while open, minimum while closed
    is_closed = False
    for at, value in enumerate(smooth.tolist()):
        gone = value - best if is_closed else best - value
        if gone <= 0:
            best, best_at = value, at
        elif gone >= turn and (is_closed or value < closed_below):
            event = "open" if is_closed else "close"
            onset = _onset(smooth, best_at, at, window)
            found.append(Turn(event=event, onset=onset, settled=_settled(smooth, onset, at, window)))
            best, best_at, is_closed = value, at, not is_closed
    if not found:
        return ()
    return tuple(
        Turn(event=one.event, onset=one.onset, settled=min(one.settled, following.onset if following else len(smooth)))
        for one, following in zip(found, [*found[1:], None], strict=True)
    )


def _onset(smooth: FloatArray, start: int, stop: int, window: int) -> int:
    """Where the movement that `stop` lies in begins: the last stretch in which openness hardly moved on.

    Not the turning point itself: a gripper may drift for a second between its widest and the moment it closes.
    """
    if stop - start <= window:
        return start
    travel = np.abs(smooth[start + window : stop + 1] - smooth[start : stop + 1 - window])
    slow = np.flatnonzero(travel < max(_STILL_LEAST, _STILL_SHARE * travel.max()))
    return start + (int(slow[-1]) + 3 * window // 4 if len(slow) else 0)


def _settled(smooth: FloatArray, onset: int, at: int, window: int) -> int:
    """The first frame from `at` on after which openness hardly moves, compared with the movement's fastest stretch."""
    begin = max(0, min(onset, at - window))
    travel = smooth[begin + window : at + 1] - smooth[begin : max(begin, at + 1 - window)]
    fastest = np.abs(travel).max(initial=0.0)
    for frame in range(at, len(smooth) - window):
        if abs(smooth[frame + window] - smooth[frame]) < max(_STILL_LEAST, _STILL_SHARE * fastest):
            return frame + window // 4
    return len(smooth)


def _median(values: FloatArray, width: int) -> FloatArray:
    if width < 3 or len(values) < width:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))


def _working_turns(columns: Columns, rig: Rig, end: EndEffector) -> tuple[Turn, ...]:
    """Turns without a hand's going back to rest: a last closing, after a finished grasp, with which no arm goes on.

    76 of 100 episodes of a real humanoid end so: the fingers curl again while the arm already hangs still.
    """
    least_range = _LEAST_RANGE
    if _mirrors(columns, rig, end):
        low, high = np.percentile(openness(columns, end.model_copy(update={"feature": COMMAND})), [1, 99])
        least_range = _LEAST_COMMANDED_RANGE if high - low >= _LEAST_RANGE else _LEAST_RANGE
    found = turns(openness(columns, end), rig.rate_hz, least_range=least_range)
    arms = arms_of(rig, end)
    if len(found) < 3 or found[-1].event != "close" or not arms:
        return found
    stays = all(_stays(columns, arm, found[-1].settled) for arm in arms)
    return found[:-1] if stays else found


def _stays(columns: Columns, arm: Arm, settled: int) -> bool:
    """True where an arm goes nowhere any more from frame `settled` on."""
    path = joints_of(columns, [arm])
    after = path[min(settled, len(path) - 1) :]
    return float(np.abs(after - after[0]).max()) < (_REST_TRAVEL_M if is_point(arm) else _REST_TRAVEL_RAD)


def gripper_events(columns: Columns, rig: Rig, stamps_ns: NDArray[np.int64]) -> tuple[GripperEvent, ...] | None:
    """Every closing and opening of every end effector, in time order; None where the rig declares none."""
    if not rig.end_effectors:
        return None
    events = [
        GripperEvent(
            stamp_ns=int(stamps_ns[turn.onset]),
            end_effector=end.name,
            event="close" if turn.event == "close" else "open",
        )
        for end in rig.end_effectors
        for turn in _working_turns(columns, rig, end)
    ]
    return tuple(sorted(events, key=lambda event: (event.stamp_ns, event.end_effector)))


def commanded_events(columns: Columns, rig: Rig, stamps_ns: NDArray[np.int64]) -> tuple[GripperEvent, ...] | None:
    """Every closing and opening that was asked for: the same events, of the same indices, in the command's columns.

    None where there is no command to compare with: no end effector, a command whose names or unit differ from the
    state's, or one that only repeats the state (some recorders write the next state as the action).
    """
    if not rig.end_effectors or not all(_mirrors(columns, rig, end) for end in rig.end_effectors):
        return None
    ends = tuple(end.model_copy(update={"feature": COMMAND}) for end in rig.end_effectors)
    arms = tuple(_commanded(arm) for arm in rig.arms if _mirrors(columns, rig, arm))
    return gripper_events(columns, rig.model_copy(update={"end_effectors": ends, "arms": arms}), stamps_ns)


def _commanded(arm: Arm) -> Arm:
    """The same arm as the command has it: a point stays one."""
    tool = arm.position
    if tool is not None and is_point(arm):
        tool = tool.model_copy(update={"feature": COMMAND})
    return arm.model_copy(update={"feature": COMMAND, "position": tool})


def _mirrors(columns: Columns, rig: Rig, part: EndEffector | Arm) -> bool:
    """True where the command says about `part`, in the same places and unit, something of its own."""
    state, command = rig.features[part.feature], rig.features.get(COMMAND)
    if command is None or part.feature == COMMAND or COMMAND not in columns:
        return False
    if not state.names or (state.names, state.unit) != (command.names, command.unit):
        return False
    told, done = columns[COMMAND][:, list(part.indices)], columns[part.feature][:, list(part.indices)]
    repeats = np.array_equal(told, done) or np.array_equal(told[:-1], done[1:])
    return not repeats or not np.ptp(done, axis=0).any()  # what never moves is equal without being a copy


def segment(columns: Columns, rig: Rig, stamps_ns: NDArray[np.int64]) -> SegmentList:
    """Cut one episode: hold, reach, grasp, carry, release, retreat; ordered, half-open, without a gap."""
    num_frames = len(stamps_ns)
    events = gripper_events(columns, rig, stamps_ns)
    if events is None:
        phases = [_Phase(label=UNKNOWN, start=0, stop=num_frames, end_effector=UNKNOWN)]
    else:
        timelines = [
            timeline for end in rig.end_effectors if (timeline := _timeline(columns, rig, end, num_frames)) is not None
        ]
        phases = _merge(timelines, num_frames) if timelines else [_eventless(columns, rig, num_frames)]
    moves = Moves.of(columns, rig, stamps_ns)
    end_ns = int(stamps_ns[-1]) + NS_PER_S // rig.rate_hz
    edges = [*stamps_ns.tolist(), end_ns]
    return SegmentList(
        segments=tuple(
            Segment(
                start_ns=edges[phase.start],
                end_ns=edges[phase.stop],
                label=phase.label,
                end_effector=phase.end_effector,
                moves=moves.over(phase.start, phase.stop, phase.end_effector)[:_MOVES_PER_SEGMENT]
                if moves
                else (UNKNOWN,),
            )
            for phase in phases
        ),
        events=events or (),
    )


def _timeline(columns: Columns, rig: Rig, end: EndEffector, num_frames: int) -> list[_Phase] | None:
    """Phases of one end effector, gap-free; None where it neither closes nor opens."""
    found = _working_turns(columns, rig, end)
    if not found:
        return None
    cuts: list[tuple[str, int]] = [("reach", 0)]
    for at, turn in enumerate(found):
        last = at == len(found) - 1
        if turn.event == "close":
            carries = turn.settled if last else _leaves(columns, rig, end, turn.settled, found[at + 1].onset)
            cuts += [("grasp", turn.onset), ("carry", carries)]
        else:
            cuts += [("release", turn.onset), ("retreat" if last else "reach", turn.settled)]
    bounds = [start for _, start in cuts[1:]] + [num_frames]
    phases = [
        _Phase(label=label, start=start, stop=stop, end_effector=end.name)
        for (label, start), stop in zip(cuts, bounds, strict=True)
        if start < stop
    ]
    return _rests(phases, _speed(columns, arms_of(rig, end)), rig.rate_hz)


def _leaves(columns: Columns, rig: Rig, end: EndEffector, settled: int, opens: int) -> int:
    """When a hand that has closed goes away with what it holds; `opens` where it let go at once, where it was.

    `settled` where no arm is declared, and where it stays longer than a try: it holds something for the other hand.
    """
    leaves = []
    tried = settled + round(_TRY_S * rig.rate_hz)
    for arm in arms_of(rig, end):
        tool = tool_path_m(columns, rig, arm)
        path = joints_of(columns, [arm]) if tool is None else tool
        sway, step = (_SWAY_RAD, _STEP_RAD) if tool is None else (_SWAY_M, _STEP_M)
        gone = np.abs(path[settled:opens] - path[settled : settled + 1]).max(axis=1, initial=0.0)
        if bool(np.any(gone > step)):
            leaves.append(settled + max(0, int(np.argmax(gone > sway)) - 1))
        else:
            leaves.append(opens)
    first = min(leaves, default=settled)
    return first if first <= tried else settled


def _rests(phases: list[_Phase], speed: FloatArray | None, rate_hz: int) -> list[_Phase]:
    """Split waiting off the first reach and off the last retreat: the change points between rest and motion."""
    if speed is None or not len(speed):
        return phases
    moving = np.flatnonzero(speed > _REST_SHARE * np.percentile(speed, 95))
    if not len(moving):
        return phases
    least = round(_LEAST_REST_S * rate_hz)
    first, last = phases[0], phases[-1]
    begin, end = int(moving[0]), int(moving[-1]) + 2
    if first.label == "reach" and least <= begin < first.stop:
        phases = [
            _Phase(label="hold", start=first.start, stop=begin, end_effector=first.end_effector),
            _Phase(label="reach", start=begin, stop=first.stop, end_effector=first.end_effector),
            *phases[1:],
        ]
    if last.label == "retreat" and last.start < end <= last.stop - least:
        phases = [
            *phases[:-1],
            _Phase(label="retreat", start=last.start, stop=end, end_effector=last.end_effector),
            _Phase(label="hold", start=end, stop=last.stop, end_effector=last.end_effector),
        ]
    return phases


def _merge(timelines: Sequence[list[_Phase]], num_frames: int) -> list[_Phase]:
    """One timeline out of several: each stretch is named by the end effector that does the most telling thing."""
    edges = sorted({0, num_frames, *(phase.start for timeline in timelines for phase in timeline)})
    merged: list[_Phase] = []
    for start, stop in pairwise(edges):
        present = [phase for timeline in timelines for phase in timeline if phase.start <= start < phase.stop]
        told = max(present, key=lambda phase: _LOUDNESS[phase.label])
        if merged and (merged[-1].label, merged[-1].end_effector) == (told.label, told.end_effector):
            start = merged.pop().start
        merged.append(_Phase(label=told.label, start=start, stop=stop, end_effector=told.end_effector))
    return merged


def _eventless(columns: Columns, rig: Rig, num_frames: int) -> _Phase:
    """An episode in which no end effector closed: it moved, or it held still; which one acted is not known."""
    speed = _speed(columns, rig.arms)
    label = UNKNOWN if speed is None else "move" if bool(np.any(speed > _LEAST_MOVE_RAD / rig.rate_hz)) else "hold"
    return _Phase(label=label, start=0, stop=num_frames, end_effector=UNKNOWN)


def _speed(columns: Columns, arms: Sequence[Arm]) -> FloatArray | None:
    """Joint speed between rows, (T-1,), radians per row, over all joints of `arms`; None where there are none.

    Metres of a point count as the radians that are as many least moves.
    """
    if not arms:
        return None
    paths = [joints_of(columns, [arm]) * (_LEAST_MOVE_RAD / _LEAST_MOVE_M if is_point(arm) else 1.0) for arm in arms]
    speed = np.linalg.norm(np.diff(np.concatenate(paths, axis=1), axis=0), axis=1)
    if len(speed) < 5:
        return np.asarray(speed)
    return np.asarray(np.convolve(np.pad(speed, 2, mode="edge"), np.full(5, 0.2), mode="valid"))
