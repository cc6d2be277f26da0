"""Closed-loop trials: converted recordings act again through normalisation, server, socket, gate and simulator."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from apps.robot.client import RobotClient
from apps.robot.trial import Trial, TrialPlan, run_trial
from apps.robot.yardsticks import RecordedPolicy
from apps.rollout.report import RolloutReport, TrialRow
from apps.rollout.run import RolloutSettings, rollout, sim_gate, sim_metadata
from apps.rollout.scenes import fresh_scenes, recorded_scenes, recorded_seeds
from apps.server.server import running_server
from apps.sim.robot import SimRobot
from apps.sim.simulate import simulate
from dataengine.artifacts import Draft, begin
from dataengine.convert import convert
from dataengine.workspace import Workspace
from schemas.control import Chunk, Observation
from schemas.errors import RefError, UsageError
from schemas.mixes import LlavaSource, MixLock, MixSpec
from schemas.normalization import Normalizer
from schemas.refs import Ref

SIZE = (96, 72)
EPISODES = Ref("tabletop", "1")
SETTINGS = RolloutSettings(trials=3, seed=0, image_size=SIZE, max_steps=400, filmstrips=1)


@dataclass(frozen=True)
class Recorded:
    workspace: Workspace
    ground_truth: Path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Three simulated demonstrations, converted; their right cards lie left, in the middle and right."""
    folder = tmp_path_factory.mktemp("rollout")
    report = simulate(out=folder / "raw", num_episodes=3, split="in-domain", seed=5, image_size=SIZE)
    workspace = Workspace.at(folder / "workspace")
    convert(source_path=report.out, to=EPISODES, workspace=workspace, rig="aloha_sim", sink="lerobot", workers=1)
    return Recorded(workspace=workspace, ground_truth=report.ground_truth)


def _roll(
    recorded: Recorded,
    name: str,
    *,
    ground_truth: Path | None = None,
    settings: RolloutSettings = SETTINGS,
    on_progress: Callable[[int, int, TrialRow | None], None] = lambda done, total, row: None,
) -> RolloutReport:
    return rollout(
        workspace=recorded.workspace,
        to=Ref(name, "1"),
        settings=settings,
        episodes=EPISODES,
        ground_truth=ground_truth or recorded.ground_truth,
        on_progress=on_progress,
    )


def test_recorded_chunks_succeed_from_the_same_seeds_and_random_ones_do_not(recorded: Recorded) -> None:
    report = _roll(recorded, "yardsticks")
    replay, random = report.summaries()
    assert (replay.policy, replay.successes, replay.trials, replay.gate_rejects) == ("recorded", 3, 3, 0)
    assert (random.policy, random.successes, random.trials) == ("random", 0, 3)
    assert {row.picked_position for row in report.rows[:3]} == {"left", "middle", "right"}
    assert all(row.reasoning_line.startswith(f"Replays {row.episode_id} from step 0") for row in report.rows[:3])
    kept = RolloutReport.read(recorded.workspace.find("evaluations", Ref("yardsticks", "1")))
    assert kept.rows == report.rows
    for name in report.rows[0].frames:
        with Image.open(io.BytesIO((kept.path / name).read_bytes())) as frame:
            assert frame.size == SIZE
    assert len(report.rows[0].frames) >= 4
    assert not report.rows[1].frames
    assert _roll(recorded, "yardsticks").rows == report.rows


def test_a_recording_fails_in_a_scene_it_was_not_made_in(recorded: Recorded, tmp_path: Path) -> None:
    for index in range(3):
        shutil.copy(recorded.ground_truth / f"episode_{index}.json", tmp_path / f"episode_{(index + 1) % 3}.json")
    replay = _roll(recorded, "shifted", ground_truth=tmp_path).summaries()[0]
    assert (replay.policy, replay.successes) == ("recorded", 0)


def _locked(recorded: Recorded, ref: Ref, normalizer: Normalizer) -> Ref:
    """A mix of nothing but its lock, with this normaliser."""
    draft = begin(recorded.workspace, "mixes", ref, recipe={"normalizer": normalizer.to_json()})
    assert isinstance(draft, Draft)
    lock = MixLock(
        spec=MixSpec(sources=(LlavaSource(name="words", path="words.json", epochs=1),)),
        sources=(),
        normalizers={normalizer.embodiment: normalizer.to_json()},
        tokenizer_fingerprint="none",
        num_samples=1,
    )
    with draft:
        (draft.path / "lock.json").write_text(lock.model_dump_json())
        draft.publish(fingerprint=str(ref))
    return ref


def _coarse(name: str, *, scale: float = 1e7) -> Normalizer:
    """Ranges so wide that float32 loses radians on the way there and back."""
    ones = np.ones(14, dtype=np.float32)
    wide = np.float32(scale) * ones
    return Normalizer(embodiment=name, state_mean=0 * ones, state_std=ones, action_low=-wide, action_high=wide)


def test_a_recording_goes_through_the_normaliser_of_the_mix(recorded: Recorded) -> None:
    """Its own fit would always bring a recording back whole, so only the one that training used can fail."""
    one = replace(SETTINGS, trials=1, filmstrips=0)
    for ref, normalizer, successes in (
        (Ref("coarse", "1"), _coarse("aloha_sim"), 0),
        (Ref("other", "1"), _coarse("another_robot"), 1),
    ):
        report = rollout(
            workspace=recorded.workspace,
            to=Ref(f"through-{ref.name}", "1"),
            settings=one,
            episodes=EPISODES,
            ground_truth=recorded.ground_truth,
            mix=_locked(recorded, ref, normalizer),
            yardsticks=("recorded",),
        )
        assert [row.success for row in report.rows].count(True) == successes
        if not successes:
            assert report.rows[0].gate_rejects > 0


def test_a_killed_rollout_goes_on_after_the_last_finished_trial(recorded: Recorded) -> None:
    def kill(done: int, total: int, row: TrialRow | None) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _roll(recorded, "killed", on_progress=kill)
    assert Ref("killed", "1") not in recorded.workspace.refs("evaluations")
    staging = recorded.workspace.root / "evaluations" / ".killed@1.draft" / ".staging"
    first = json.loads((staging / "recorded-0.json").read_bytes())
    report = _roll(recorded, "killed")
    assert report.rows[0].wall_s == first["wall_s"]
    assert report.fingerprint() == _roll(recorded, "yardsticks").fingerprint()


class _Still:
    """Stays where it is, and says why."""

    name = "still"

    def infer(self, observation: Observation) -> Chunk:
        return Chunk(actions=np.repeat(observation.state[None], 50, axis=0), reasoning="The board reads 1+1.")

    def reset(self) -> None:
        pass


class _Wild(_Still):
    """Wants the arms elsewhere at once."""

    name = "wild"

    def infer(self, observation: Observation) -> Chunk:
        return Chunk(actions=np.zeros((50, 14), dtype=np.float32), reasoning="")


def _drive(policy: _Still, **changes: int) -> tuple[SimRobot, Trial]:
    robot = SimRobot(image_size=SIZE)
    server = running_server(policy, gate=sim_gate(50), metadata=sim_metadata(policy.name, chunk_steps=50))
    with server as running, RobotClient(running.url) as client:
        plan = TrialPlan(split="open-world", seed=1, index=0, **changes)
        return robot, run_trial(robot, client, plan, keep_views=True)


def test_a_trial_ends_at_its_step_limit_and_keeps_what_was_said(recorded: Recorded) -> None:
    robot, trial = _drive(_Still(), max_steps=60, execute_steps=25)
    robot.close()
    assert (trial.end, trial.outcome.num_steps) == ("time limit", 60)
    assert [event.step for event in trial.events] == [0, 25, 50]
    assert trial.reasoning == "The board reads 1+1."
    assert len(trial.views) == 4


def test_a_wild_policy_never_moves_the_robot_and_its_trial_is_aborted() -> None:
    robot, trial = _drive(_Wild(), max_steps=400)
    resting = robot.observe().qpos
    robot.reset(split="open-world", seed=1, index=0)
    np.testing.assert_allclose(resting, robot.observe().qpos, atol=0.02)
    robot.close()
    assert trial.end == "aborted by gate"
    assert trial.num_rejected == 5
    # Of all joints the left wrist rests farthest from zero: a quarter turn, 4.5 times the jump it may make.
    said = "left_wrist_rotate starts at 0.0000 while the robot is at 1.5708, a jump over 0.3500. "
    assert trial.events[0].refusal == said + "The robot must not move on this chunk; ask again."


def test_a_chunk_shorter_than_what_is_executed_is_refused() -> None:
    with pytest.raises(UsageError, match="chunks have 50 steps, 80 cannot be executed"):
        _drive(_Still(), execute_steps=80)
    with pytest.raises(UsageError, match="cannot execute 60 steps of a chunk of 50"):
        RecordedPolicy(lambda name: np.zeros((1, 1)), None, chunk_steps=50, stride=60)


def test_what_cannot_be_rolled_out_is_one_sentence(recorded: Recorded, tmp_path: Path) -> None:
    many = RolloutSettings(trials=4, seed=0)
    with pytest.raises(UsageError, match="4 trials of recorded episodes were asked for, tabletop@1 has 3"):
        _roll(recorded, "many", settings=many)
    with pytest.raises(UsageError, match=r"does not say how episode 'episode_0\.hdf5' was set up"):
        _roll(recorded, "lost", ground_truth=tmp_path)
    with pytest.raises(UsageError, match="there is no policy to try"):
        rollout(workspace=recorded.workspace, to=Ref("none", "1"), settings=SETTINGS, yardsticks=())
    with pytest.raises(UsageError, match="needs --episodes and --ground-truth"):
        rollout(workspace=recorded.workspace, to=Ref("none", "1"), settings=SETTINGS, yardsticks=("recorded",))
    with pytest.raises(RefError, match="no checkpoints 'lost@1'"):
        rollout(
            workspace=recorded.workspace,
            to=Ref("n", "1"),
            settings=SETTINGS,
            yardsticks=(),
            checkpoint=Ref("lost", "1"),
        )


def test_fresh_scenes_take_a_seed_that_no_demonstration_had(recorded: Recorded) -> None:
    taken = recorded_seeds(recorded.ground_truth)
    assert taken == {5}
    assert {scene.seed for scene in fresh_scenes("in-domain", trials=3, seed=5, taken=taken)} == {6}
    scenes = recorded_scenes(recorded.ground_truth, [("an-id", "episode_2.hdf5")])
    assert (scenes[0].seed, scenes[0].index, scenes[0].episode_id) == (5, 2, "an-id")
