"""`dataengine rollout`: every policy behind the real server, every trial over the socket, one artifact of results."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import simplejpeg

from apps.robot.client import RobotClient
from apps.robot.scoring import score_reasoning
from apps.robot.trial import Trial, TrialPlan, run_trial
from apps.robot.yardsticks import RandomPolicy, RecordedPolicy
from apps.rollout.report import RolloutReport, TrialRow
from apps.rollout.scenes import TrialScene, fresh_scenes, recorded_scenes, recorded_seeds
from apps.server.gate import ActionGate
from apps.server.run import read_lock
from apps.server.server import running_server
from apps.sim.game import SPLITS, Split, draw_scene
from apps.sim.robot import SimRobot
from apps.sim.tabletop import CONTROL_HZ, action_limits
from dataengine.artifacts import Draft, begin, write_atomic
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.control import Policy
from schemas.errors import UsageError
from schemas.normalization import Normalizer
from schemas.records import InputRef, Record, canonical_json
from schemas.refs import Kind, Ref
from schemas.wire import ServerMetadata

if TYPE_CHECKING:
    from trainers.policy import VlaPolicy

YardstickName = Literal["recorded", "random"]
_GRIPPERS = np.isin(np.arange(14), (6, 13))
# Demonstrations peak at 0.07 rad and 0.11 of the gripper's travel per 20 ms step, and at 0.22 rad and 0.32 between
# command and follower (a card between the fingers); the gate lets half as much again pass.
_MAX_STEP = np.where(_GRIPPERS, 0.17, 0.10).astype(np.float32)
_MAX_START_JUMP = np.where(_GRIPPERS, 0.60, 0.35).astype(np.float32)
_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate", "gripper")
_FILMSTRIP_FRAMES = 6
_ANSWER_TIMEOUT_S = 300.0  # the first answer of a large model on a CPU warms up for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSettings:
    """What is the same for every trial, and part of the artifact's identity."""

    trials: int
    seed: int
    policy_trials: int | None = None  # of the checkpoint, on each split; None: as many as the yardsticks play
    execute_steps: int = 25
    chunk_steps: int = 50  # of the yardsticks; a trained policy brings its own
    max_steps: int = 500
    image_size: tuple[int, int] = (320, 240)
    filmstrips: int = 3  # trials per policy of which pictures are kept

    def __post_init__(self) -> None:
        for trials in (self.trials, self.policy_trials):
            if trials is not None and trials < 1:
                raise UsageError(f"--trials is {trials}. Give at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contender:
    """A policy with the scenes it plays; `select` tells it which scene comes next."""

    policy: Policy
    chunk_steps: int
    scenes: tuple[TrialScene, ...]
    cameras: tuple[str, ...] = SimRobot.cameras
    select: Callable[[TrialScene], None] = lambda scene: None


def sim_gate(chunk_steps: int) -> ActionGate:
    """What the simulated robot may be told."""
    lower, upper = action_limits()
    return ActionGate(
        lower=lower,
        upper=upper,
        max_start_jump=_MAX_START_JUMP,
        max_step=_MAX_STEP,
        chunk_steps=chunk_steps,
        names=tuple(f"{side}_{joint}" for side in ("left", "right") for joint in _JOINTS),
    )


def sim_metadata(policy: str, *, chunk_steps: int, cameras: tuple[str, ...] = SimRobot.cameras) -> ServerMetadata:
    """What a policy for the simulated robot announces."""
    return ServerMetadata(
        policy=policy,
        cameras=cameras,
        state_dim=len(_GRIPPERS),
        action_dim=len(_GRIPPERS),
        chunk_steps=chunk_steps,
        rate_hz=CONTROL_HZ,
    )


def rollout(
    *,
    workspace: Workspace,
    to: Ref,
    settings: RolloutSettings,
    episodes: Ref | None = None,
    ground_truth: Path | None = None,
    checkpoint: Ref | None = None,
    embodiment: str | None = None,
    mix: Ref | None = None,
    yardsticks: Sequence[YardstickName] = ("recorded", "random"),
    splits: Sequence[Split] = SPLITS,
    on_progress: Callable[[int, int, TrialRow | None], None] = lambda done, total, row: None,
) -> RolloutReport:
    """Play `settings.trials` trials with each yardstick, and with the checkpoint on each of `splits`.

    The recorded yardstick needs `episodes` and `ground_truth` (the folder that `simulate` wrote beside the raw data)
    and replays in the recorded scenes, through the normaliser of the checkpoint, else of the mix, else of its own; the
    random one plays in the same. The checkpoint plays in scenes with a seed
    that no demonstration had. A killed rollout goes on after the last finished trial.
    """
    if not yardsticks and checkpoint is None:
        raise UsageError("there is no policy to try. Give a --checkpoint, or a --yardstick.")
    robot_episodes = None if episodes is None else EpisodeSet.open(workspace, episodes)
    inputs = _inputs(workspace, episodes=episodes, checkpoint=checkpoint, mix=mix)
    recipe = {**asdict(settings), "yardsticks": list(yardsticks), "splits": list(splits), "embodiment": embodiment}
    draft = begin(workspace, "evaluations", to, recipe=json.loads(canonical_json(recipe)), inputs=inputs)
    if isinstance(draft, Record):
        return RolloutReport.read(workspace.find("evaluations", to))
    with draft:
        scenes = _yardstick_scenes(robot_episodes, ground_truth, settings, splits[0]) if yardsticks else ()
        policy = None if checkpoint is None else _load(workspace, checkpoint, embodiment)
        contenders: list[_Contender] = []
        for name in yardsticks:
            match name:
                case "recorded":
                    known = known_normalizers(workspace, mix=mix, policy=policy)
                    contenders.append(_recorded(robot_episodes, scenes, settings, known))
                case "random":
                    contenders.append(_random(scenes, settings))
        if policy is not None:
            contenders.append(_trained(policy, settings, splits, recorded_seeds(ground_truth)))
        rows = tuple(_play(contenders, draft, settings, on_progress))
        report = RolloutReport(path=workspace.path("evaluations", to), rows=rows)
        report.write(draft.path)
        counts: dict[str, int | float] = {"trials": len(rows), "successes": sum(row.success for row in rows)}
        draft.publish(fingerprint=report.fingerprint(), counts=counts)
        return report


def known_normalizers(workspace: Workspace, *, mix: Ref | None, policy: "VlaPolicy | None") -> dict[str, Normalizer]:
    """The normalisers that training used, by embodiment: those a mix locked, and before them the checkpoint's own."""
    known: dict[str, Normalizer] = {}
    if mix is not None:
        locked = read_lock(workspace, mix).normalizers
        known = {name: Normalizer.from_json(value) for name, value in locked.items()}
    if policy is not None:
        known[policy.robot.name] = policy.robot.normalizer
    return known


def _inputs(
    workspace: Workspace, *, episodes: Ref | None, checkpoint: Ref | None, mix: Ref | None
) -> tuple[InputRef, ...]:
    named: tuple[tuple[Kind, Ref | None], ...] = (("episodes", episodes), ("checkpoints", checkpoint), ("mixes", mix))
    return tuple(
        InputRef(kind=kind, ref=str(ref), fingerprint=workspace.record(kind, ref).fingerprint)
        for kind, ref in named
        if ref is not None
    )


def _yardstick_scenes(
    episodes: EpisodeSet | None, ground_truth: Path | None, settings: RolloutSettings, split: Split
) -> tuple[TrialScene, ...]:
    """The recorded scenes, `trials` of them spread evenly over the episodes; fresh ones without recordings."""
    if episodes is None or ground_truth is None:
        return fresh_scenes(split, trials=settings.trials, seed=settings.seed, taken=recorded_seeds(ground_truth))
    ids = episodes.ids()
    if len(ids) < settings.trials:
        raise UsageError(
            f"{settings.trials} trials of recorded episodes were asked for, {episodes.ref} has {len(ids)}. "
            "Ask for fewer trials, or simulate more episodes."
        )
    chosen = [ids[place] for place in np.linspace(0, len(ids) - 1, settings.trials).round().astype(int)]
    return recorded_scenes(ground_truth, [(name, episodes.row(name).metadata["raw_name"]) for name in chosen])


def _recorded(
    episodes: EpisodeSet | None,
    scenes: tuple[TrialScene, ...],
    settings: RolloutSettings,
    normalizers: dict[str, Normalizer],
) -> _Contender:
    if episodes is None or not all(scene.episode_id for scene in scenes):
        raise UsageError(
            "the recorded yardstick needs --episodes and --ground-truth. Give both, or leave out --yardstick recorded."
        )
    columns = {name: episodes.columns(name) for name in episodes.ids()}
    normalizer = normalizers.get(episodes.rig.name)
    if normalizer is None:  # neither mix nor checkpoint: what a mix of all these episodes would fit
        normalizer = Normalizer.fit(
            episodes.rig.name,
            np.concatenate([column["observation.state"] for column in columns.values()]),
            np.concatenate([column["action"] for column in columns.values()]),
        )
    policy = RecordedPolicy(
        lambda episode_id: columns[episode_id]["action"],
        normalizer,
        chunk_steps=settings.chunk_steps,
        stride=settings.execute_steps,
    )
    return _Contender(
        policy=policy,
        chunk_steps=settings.chunk_steps,
        scenes=scenes,
        select=lambda scene: policy.select(scene.episode_id),
    )


def _random(scenes: tuple[TrialScene, ...], settings: RolloutSettings) -> _Contender:
    lower, upper = action_limits()
    policy = RandomPolicy(
        lower=lower,
        upper=upper,
        max_step=_MAX_STEP * np.float32(0.25),
        chunk_steps=settings.chunk_steps,
        seed=settings.seed,
    )
    return _Contender(
        policy=policy,
        chunk_steps=settings.chunk_steps,
        scenes=scenes,
        select=lambda scene: policy.select(f"{scene.split}/{scene.seed}/{scene.index}"),
    )


def _load(workspace: Workspace, checkpoint: Ref, embodiment: str | None) -> "VlaPolicy":
    # Imported here: a rollout of yardsticks alone needs no torch.
    from trainers.policy import load_policy

    return load_policy(workspace.find("checkpoints", checkpoint), embodiment=embodiment)


def _trained(
    policy: "VlaPolicy", settings: RolloutSettings, splits: Sequence[Split], taken: frozenset[int]
) -> _Contender:
    trials = settings.policy_trials or settings.trials
    scenes = [
        scene for split in splits for scene in fresh_scenes(split, trials=trials, seed=settings.seed, taken=taken)
    ]
    return _Contender(policy=policy, chunk_steps=policy.chunk_steps, scenes=tuple(scenes), cameras=policy.cameras)


def _play(
    contenders: Sequence[_Contender],
    draft: Draft,
    settings: RolloutSettings,
    on_progress: Callable[[int, int, TrialRow | None], None],
) -> Iterator[TrialRow]:
    """All trials of all policies in order; finished ones of a killed rollout are read back, not played again."""
    total, done = sum(len(contender.scenes) for contender in contenders), 0
    on_progress(done, total, None)
    for contender in contenders:
        with _driven(contender, settings) as play:
            for number, scene in enumerate(contender.scenes):
                kept = draft.staging / f"{contender.policy.name}-{number}.json"
                if kept.exists():
                    row = TrialRow.from_json(json.loads(kept.read_bytes()))
                else:
                    row = _row(contender.policy.name, number, scene, play(scene, number), draft.path)
                    write_atomic(kept, json.dumps(row.to_json()).encode())
                done += 1
                on_progress(done, total, row)
                yield row


@contextmanager
def _driven(contender: _Contender, settings: RolloutSettings) -> Iterator[Callable[[TrialScene, int], Trial]]:
    """The policy behind its server, the robot connected to it."""
    name, steps = contender.policy.name, contender.chunk_steps
    robot = SimRobot(image_size=settings.image_size)
    metadata = sim_metadata(name, chunk_steps=steps, cameras=contender.cameras)
    server = running_server(contender.policy, gate=sim_gate(steps), metadata=metadata)
    with server as running, RobotClient(running.url, timeout_s=_ANSWER_TIMEOUT_S) as client:

        def play(scene: TrialScene, number: int) -> Trial:
            contender.select(scene)
            plan = TrialPlan(
                split=scene.split,
                seed=scene.seed,
                index=scene.index,
                execute_steps=min(settings.execute_steps, steps),
                max_steps=settings.max_steps,
            )
            return run_trial(robot, client, plan, keep_views=number < settings.filmstrips)

        try:
            yield play
        finally:
            robot.close()


def _row(policy: str, number: int, scene: TrialScene, trial: Trial, folder: Path) -> TrialRow:
    truth = draw_scene(split=scene.split, seed=scene.seed, index=scene.index)
    said = score_reasoning(trial.reasoning, truth)
    outcome = trial.outcome
    return TrialRow(
        policy=policy,
        trial=number,
        split=scene.split,
        seed=scene.seed,
        index=scene.index,
        episode_id=scene.episode_id,
        end=trial.end,
        success=outcome.success,
        equation=truth.equation.text,
        answer=truth.equation.answer,
        picked_number=outcome.picked_number,
        picked_position=outcome.picked_position,
        picked_right=outcome.picked_number == truth.equation.answer,
        placed=outcome.placed,
        on_ledge=outcome.on_ledge,
        read_right=said.read_right,
        math_right=said.math_right,
        plan_right=said.plan_right,
        num_steps=outcome.num_steps,
        num_chunks=len(trial.events) - trial.num_rejected,
        gate_rejects=trial.num_rejected,
        wall_s=trial.wall_s,
        infer_ms=float(np.median([event.infer_ms for event in trial.events])),
        round_trip_ms=float(np.median([event.round_trip_ms for event in trial.events])),
        reasoning=tuple(event.reasoning for event in trial.events),
        refusals=tuple(event.refusal for event in trial.events if event.refusal is not None),
        frames=_write_filmstrip(policy, number, trial, folder),
    )


def _write_filmstrip(policy: str, number: int, trial: Trial, folder: Path) -> tuple[str, ...]:
    if not trial.views:
        return ()
    (folder / "frames").mkdir(exist_ok=True)
    names = []
    for place in np.unique(np.linspace(0, len(trial.views) - 1, _FILMSTRIP_FRAMES).round().astype(int)):
        name = f"frames/{policy}-{number}-{place:03d}.jpg"
        view = np.ascontiguousarray(trial.views[place])
        write_atomic(folder / name, simplejpeg.encode_jpeg(view, quality=80, colorspace="RGB"))
        names.append(name)
    return tuple(names)
