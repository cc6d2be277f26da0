"""`train` from a published mix to a published checkpoint, through Ray: progress, record, refusals."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_runs import tiny

from dataengine.mix import Mix, build_mix
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, TrainError
from schemas.mixes import LlavaSource, MixSpec
from schemas.refs import Ref
from trainers.checkpoint import load_trained
from trainers.loop import Job, too_busy, train, work, worker_claim
from trainers.policy import load_policy
from trainers.recipes import TrainConfig
from trainers.tokenizer import nano_tokenizer

MIX, TO = Ref("words", "1"), Ref("reader", "1")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with one mix of twelve questions about pictures."""
    home = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    rows = []
    for index in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(home / f"{index}.png")
        talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"Noise {index}."}]
        rows.append({"id": str(index), "image": f"{index}.png", "conversations": talk})
    (home / "questions.json").write_text(json.dumps(rows))
    made = Workspace.at(home / "workspace")
    source = LlavaSource(name="questions", path=str(home / "questions.json"), epochs=1)
    spec = MixSpec(sources=(source,), image_size=(80, 40), validation=0)
    build_mix(spec=spec, to=MIX, workspace=made, tokenizer=nano_tokenizer(), image_tokens=tiny().image_tokens)
    return made


def reader() -> TrainConfig:
    """The first stage alone: words about pictures, no robot."""
    return replace(tiny(), stages=tiny().stages[:1])


@pytest.mark.slow
def test_a_mix_becomes_a_published_checkpoint_once(workspace: Workspace) -> None:
    told: list[tuple[int, int]] = []
    record = train(
        mix=MIX, to=TO, workspace=workspace, recipe=reader(), on_progress=lambda done, total: told.append((done, total))
    )
    folder = workspace.find("checkpoints", TO)
    assert told[-1] == (3, 3)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "normalizers.json",
        "record.json",
        "tokenizer.json",
    ]
    assert record.counts["num_steps"] == 3
    mix = Mix.open(workspace, MIX)
    assert record.inputs[0].fingerprint == mix.fingerprint
    schedule = Counter(mix.draw(position).source for position in range(12))
    assert record.notes["draws"] == dict(schedule)
    assert str(workspace.root) not in json.dumps(record.model_dump(mode="json"))
    assert load_trained(folder).tokenizer.fingerprint == nano_tokenizer().fingerprint

    assert train(mix=MIX, to=TO, workspace=workspace, recipe=reader()).fingerprint == record.fingerprint
    with pytest.raises(ArtifactError, match="exists and was made differently"):
        train(mix=MIX, to=TO, workspace=workspace, recipe=replace(reader(), seed=1))
    with pytest.raises(TrainError, match="was trained on no robot"):
        load_policy(folder)


def test_a_mix_without_robots_is_refused_before_anything_starts(workspace: Workspace) -> None:
    with pytest.raises(TrainError, match="learns actions only, and the mix holds no robot source"):
        train(mix=MIX, to=Ref("actor", "1"), workspace=workspace, recipe=tiny())
    assert workspace.refs("checkpoints") in ([], [TO])


def test_a_worker_leaves_its_refusal_in_words(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "step_00000002").mkdir()
    progress = {"mix_fingerprint": "f" * 64, "step": 2, "position": 8}
    (tmp_path / "step_00000002" / "progress.json").write_text(json.dumps(progress))
    job = Job(config=reader(), mix=MIX, workspace=workspace, folder=tmp_path, staging=tmp_path, num_threads=1)
    with pytest.raises(TrainError):
        work({"job": job})
    assert "was trained on mix ffffffffffff" in (tmp_path / "refusal.txt").read_text()


def test_a_missing_weights_folder_is_named(workspace: Workspace, tmp_path: Path) -> None:
    config = replace(reader(), needs_weights=True, weights=tmp_path / "qwen")
    with pytest.raises(TrainError, match="'qwen' is no directory"):
        train(mix=MIX, to=Ref("big", "1"), workspace=workspace, recipe=config)


def test_the_worker_claims_the_cores_of_one_living_node() -> None:
    def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, object]:
        return {"Alive": alive, "Resources": {"CPU": cpus, **({"GPU": gpus} if gpus else {})}}

    assert worker_claim([node(2)]) == {"CPU": 2}
    assert worker_claim([node(4), node(8), node(64, alive=False)]) == {"CPU": 8}
    assert worker_claim([node(64), node(16, 1), node(8, 2)]) == {"CPU": 16, "GPU": 1}
    assert worker_claim([{"Alive": True, "Resources": {}}]) == {"CPU": 1}


def test_a_machine_too_busy_for_ray_is_one_sentence() -> None:
    from ray.train import ControllerError

    told = str(too_busy(ControllerError(TimeoutError("There was timeout in removing the placement group."))))
    assert told.startswith("Ray can not run the training here (There was timeout in removing the placement group). ")
    assert told.endswith("then run the same command again: it goes on from its last checkpoint.")
