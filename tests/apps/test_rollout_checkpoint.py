"""A checkpoint (nano's architecture, weights as they are born) served and tried like any policy."""

from dataclasses import replace

import numpy as np
import pytest

from apps.robot.client import RefusedError, RobotClient
from apps.rollout.run import RolloutSettings, known_normalizers, rollout
from apps.server.run import open_checkpoint, serve_checkpoint
from apps.server.server import running_server
from apps.sim.tabletop import action_limits
from dataengine.artifacts import Draft, begin
from dataengine.workspace import Workspace
from schemas.chat import Image, Message, Text
from schemas.control import Observation
from schemas.errors import RefError, TrainError, UsageError
from schemas.mixes import LlavaSource, MixLock, MixSpec
from schemas.normalization import Normalizer
from schemas.refs import Ref
from trainers.checkpoint import Trained, load_trained, save_trained
from trainers.data import Embodiment
from trainers.models.action_expert import ActionShape
from trainers.models.vla import build_vla
from trainers.policy import load_policy
from trainers.recipes import nano
from trainers.tokenizer import nano_tokenizer

BORN = Ref("born", "1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Holds one checkpoint that was never trained: its chunks are noise, all else is real."""
    place = Workspace.at(tmp_path_factory.mktemp("checkpoint"))
    lower, upper = action_limits()
    rows = np.random.default_rng(0).uniform(lower, upper, (200, len(lower)))
    prompt = (Message(role="user", parts=(Image("cam_high"), Text("pick the card"))),)
    robot = Embodiment(
        name="aloha_sim",
        normalizer=Normalizer.fit("aloha_sim", rows, rows),
        chunk_steps=50,
        image_sizes=((160, 120),),
        prompt=prompt,
        reasons=False,  # an untrained model says noise until its limit, a word at a time
    )
    shape, tokenizer = ActionShape(steps=50, action_width=14, state_width=14), nano_tokenizer()
    vla = build_vla(nano(), shape, tokenizer)
    draft = begin(place, "checkpoints", BORN, recipe={"steps": 0})
    assert isinstance(draft, Draft)
    with draft:
        trained = Trained(vla=vla, config=nano(), shape=shape, embodiments=(robot,), tokenizer=tokenizer)
        draft.publish(fingerprint=save_trained(draft.path, trained))
    return place


def test_noise_from_an_untrained_model_never_reaches_the_robot(workspace: Workspace) -> None:
    report = rollout(
        workspace=workspace,
        to=Ref("noise", "1"),
        settings=RolloutSettings(trials=1, seed=0, max_steps=200),
        checkpoint=BORN,
        yardsticks=(),
        splits=("open-world",),
    )
    (row,) = report.rows
    assert (row.policy, row.split, row.end, row.success) == ("born@1", "open-world", "aborted by gate", False)
    assert (row.gate_rejects, row.num_chunks) == (5, 0)
    assert "per step" in row.refusals[0] or "a jump over" in row.refusals[0]


def test_a_checkpoints_own_normaliser_comes_before_that_of_a_mix(workspace: Workspace) -> None:
    policy = load_policy(workspace.find("checkpoints", BORN))
    known = known_normalizers(workspace, mix=None, policy=policy)
    assert known == {"aloha_sim": policy.robot.normalizer}
    rows = np.zeros((2, 14))
    lock = MixLock(
        spec=MixSpec(sources=(LlavaSource(name="words", path="words.json", epochs=1),)),
        sources=(),
        normalizers={name: Normalizer.fit(name, rows, rows).to_json() for name in ("aloha_sim", "other")},
        tokenizer_fingerprint="none",
        num_samples=1,
    )
    draft = begin(workspace, "mixes", Ref("words", "1"), recipe={})
    assert isinstance(draft, Draft)
    with draft:
        (draft.path / "lock.json").write_text(lock.model_dump_json())
        draft.publish(fingerprint="words")
    both = known_normalizers(workspace, mix=Ref("words", "1"), policy=policy)
    assert both["aloha_sim"] is policy.robot.normalizer
    assert sorted(both) == ["aloha_sim", "other"]


def test_a_robot_whose_numbers_cannot_be_matched_is_not_served(workspace: Workspace) -> None:
    trained = load_trained(workspace.find("checkpoints", BORN))
    (robot,) = trained.embodiments
    blind = replace(
        robot,
        normalizer=replace(robot.normalizer, state_mean=np.zeros(9, np.float32), state_std=np.ones(9, np.float32)),
    )
    draft = begin(workspace, "checkpoints", Ref("blind", "1"), recipe={"steps": 0})
    assert isinstance(draft, Draft)
    with draft:
        draft.publish(fingerprint=save_trained(draft.path, replace(trained, embodiments=(blind,))))
    with pytest.raises(UsageError, match="measures 9 numbers and takes actions of 14"):
        open_checkpoint(workspace, Ref("blind", "1"), rate_hz=50)


def test_a_served_checkpoint_announces_what_it_wants_and_answers(workspace: Workspace) -> None:
    served = open_checkpoint(workspace, BORN, rate_hz=50)
    server = running_server(served.policy, gate=served.gate, metadata=served.metadata)
    with server as running, RobotClient(running.url, timeout_s=120) as client:
        assert (client.metadata.policy, client.metadata.cameras) == ("born@1", ("cam_high",))
        assert (client.metadata.chunk_steps, client.metadata.rate_hz, client.metadata.state_dim) == (50, 50, 14)
        images = {"cam_high": np.zeros((120, 160, 3), dtype=np.uint8)}
        with pytest.raises(RefusedError) as refused:
            client.infer(Observation(images=images, state=np.zeros(14, dtype=np.float32), prompt="pick"))
        assert refused.value.code == "rejected_chunk"


def test_a_checkpoint_that_cannot_be_served_is_one_sentence(workspace: Workspace) -> None:
    with pytest.raises(RefError, match="Did you mean 'born@1'"):
        serve_checkpoint(workspace, Ref("borne", "1"))
    with pytest.raises(UsageError, match="give --rate-hz"):
        open_checkpoint(workspace, BORN)
    with pytest.raises(TrainError, match="aloha_sim"):
        open_checkpoint(workspace, BORN, embodiment="aloha_simm")
    with pytest.raises(UsageError, match="can be reached from other machines"):
        serve_checkpoint(workspace, BORN, rate_hz=50, host="0.0.0.0")
