"""One closed-loop trial: look, ask the server, act on the first part of the chunk, look again."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apps.robot.client import RefusedError, RobotClient
from apps.sim.game import Split
from apps.sim.robot import SimRobot
from apps.sim.world import TrialOutcome
from schemas.control import Observation
from schemas.errors import UsageError
from schemas.normalization import FloatArray

_HOLD_STEPS = 5  # 0.1 s at 50 Hz: a refused robot waits a moment before it asks again

End = Literal["success", "time limit", "aborted by gate", "policy failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """How to run a trial. Of each chunk the first `execute_steps` are executed, then the robot looks again."""

    split: Split
    seed: int
    index: int
    execute_steps: int = 25
    max_steps: int = 500

    def __post_init__(self) -> None:
        if self.execute_steps < 1 or self.max_steps < 1:
            raise UsageError(
                f"a trial of {self.max_steps} steps by {self.execute_steps} does nothing. Give at least 1."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkEvent:
    """One answer of the server: when it was asked for, what it said, how long it took."""

    step: int
    reasoning: str
    refusal: str | None
    round_trip_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trial:
    """What happened. `views` holds what the first camera saw at each request, when asked for."""

    plan: TrialPlan
    end: End
    outcome: TrialOutcome
    events: tuple[ChunkEvent, ...]
    wall_s: float
    views: tuple[NDArray[np.uint8], ...]

    @property
    def num_rejected(self) -> int:
        """Chunks that the gate kept from the robot."""
        return sum(event.refusal is not None for event in self.events)

    @property
    def reasoning(self) -> str:
        """The first reasoning that was said, or an empty text."""
        return next((event.reasoning for event in self.events if event.reasoning), "")


@dataclass(slots=True, kw_only=True)
class _Log:
    events: list[ChunkEvent] = field(default_factory=list)
    views: list[NDArray[np.uint8]] = field(default_factory=list)


def run_trial(
    robot: SimRobot,
    client: RobotClient,
    plan: TrialPlan,
    *,
    keep_views: bool = False,
    on_chunk: Callable[[ChunkEvent], None] = lambda event: None,
) -> Trial:
    """Reset robot and policy, then close the loop until success, the step limit, or the gate ends it.

    Cameras are rendered only when a chunk is asked for. Raises WireError when the connection is lost.
    """
    if plan.execute_steps > client.metadata.chunk_steps:
        raise UsageError(
            f"the policy's chunks have {client.metadata.chunk_steps} steps, {plan.execute_steps} cannot be executed. "
            "Lower execute_steps."
        )
    for camera in client.metadata.cameras:
        if camera not in robot.cameras:
            raise UsageError(f"the policy wants camera '{camera}', this robot has {', '.join(robot.cameras)}.")
    started = time.perf_counter()
    robot.reset(split=plan.split, seed=plan.seed, index=plan.index)
    client.reset()
    log = _Log()
    end: End | None = None
    hold: FloatArray | None = None
    while end is None and robot.outcome().num_steps < plan.max_steps:
        seen = robot.observe()
        if keep_views:
            log.views.append(seen.images[robot.cameras[0]])
        images = {camera: seen.images[camera] for camera in client.metadata.cameras}
        observation = Observation(images=images, state=seen.qpos, prompt=robot.task)
        actions, end = _ask(client, observation, robot.outcome().num_steps, log, on_chunk)
        if end is None:
            hold = observation.state if hold is None else hold
            steps = np.repeat(hold[None], _HOLD_STEPS, axis=0) if actions is None else actions[: plan.execute_steps]
            end, hold = _execute(robot, steps, plan.max_steps), steps[-1]
    if keep_views:
        log.views.append(robot.observe().images[robot.cameras[0]])
    return Trial(
        plan=plan,
        end=end or "time limit",
        outcome=robot.outcome(),
        events=tuple(log.events),
        wall_s=time.perf_counter() - started,
        views=tuple(log.views),
    )


def _ask(
    client: RobotClient, observation: Observation, step: int, log: _Log, on_chunk: Callable[[ChunkEvent], None]
) -> tuple[FloatArray | None, End | None]:
    """One request: the actions when they may be executed, and the end of the trial when the server says so."""
    asked = time.perf_counter()
    actions: FloatArray | None = None
    reasoning, refusal, infer_ms = "", None, 0.0
    end: End | None = None
    try:
        reply = client.infer(observation)
        actions, reasoning, infer_ms = reply.chunk.actions, reply.chunk.reasoning, reply.timing.infer_ms
    except RefusedError as refused:
        refusal, reasoning, infer_ms = refused.reason, refused.reasoning, refused.infer_ms
        match refused.code:
            case "rejected_chunk":
                pass
            case "trial_aborted":
                end = "aborted by gate"
            case "policy_error":
                end = "policy failed"
            case "bad_message":
                raise  # our own observation does not fit the server: no trial would
    log.events.append(
        ChunkEvent(
            step=step,
            reasoning=reasoning,
            refusal=refusal,
            round_trip_ms=(time.perf_counter() - asked) * 1e3,
            infer_ms=infer_ms,
        )
    )
    on_chunk(log.events[-1])
    return actions, end


def _execute(robot: SimRobot, actions: FloatArray, max_steps: int) -> End | None:
    for action in actions:
        robot.apply(action)
        outcome = robot.outcome()
        if outcome.success:
            return "success"
        if outcome.num_steps >= max_steps:
            return "time limit"
    return None
