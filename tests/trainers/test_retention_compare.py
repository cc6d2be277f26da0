"""`evaluate retention` end to end: a base, what training made of it with and without experts, what is said of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import tiny
from transformers import Qwen2VLForConditionalGeneration

from dataengine.mix import build_mix
from dataengine.rendered import SKILLS
from dataengine.workspace import Workspace
from schemas.errors import RefError, TrainError
from schemas.mixes import MixSpec, RenderedSource
from schemas.refs import Ref
from trainers.loop import train
from trainers.models.vla import vlm_config
from trainers.recipes import MoeSize, nano, nano_dense
from trainers.tokenizer import nano_tokenizer
from trainers.vlm.retention import compare, read_retention
from trainers.vlm_directory import save_vlm_directory

MIX = Ref("questions", "1")
VARIANTS = {Ref("experts", "1"): MoeSize(), Ref("dense", "1"): MoeSize(num_experts=1, top_k=1, noise=0.0)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Path]:
    home = tmp_path_factory.mktemp("retention")
    base = home / "base"
    vlm = Qwen2VLForConditionalGeneration(vlm_config(tiny().vlm, nano_tokenizer()))
    save_vlm_directory(base, vlm, nano_tokenizer(), tiny().vlm)
    workspace = Workspace.at(home / "workspace")
    spec = MixSpec(sources=(RenderedSource(name="questions", rows_per_skill=1, epochs=2),), validation=0)
    build_mix(spec=spec, to=MIX, workspace=workspace, tokenizer=nano_tokenizer(), image_tokens=tiny().image_tokens)
    config = replace(tiny(), stages=tiny().stages[:1], weights=base, tokenizer="weights")
    for ref, moe in VARIANTS.items():
        train(mix=MIX, to=ref, workspace=workspace, recipe=replace(config, moe=moe), in_process=True)
    return workspace, base


def test_every_checkpoint_is_compared_on_the_same_questions_once(place: tuple[Workspace, Path]) -> None:
    workspace, base = place
    to = Ref("kept", "1")
    record = compare(base=base, checkpoints=[*VARIANTS], to=to, workspace=workspace, exams_per_skill=1)
    assert record.counts == {"num_questions": len(SKILLS), "num_checkpoints": 2}
    compared = read_retention(workspace.find("evaluations", to))
    assert [one.checkpoint for one in compared] == ["experts@1", "dense@1"]
    for one in compared:
        assert [row.skill for row in one.rows] == ["all", *SKILLS]
        assert one.rows[0].num == sum(row.num for row in one.rows[1:]) == len(SKILLS)
        assert one.rows[0].base_right == compared[0].rows[0].base_right
        assert all(row.low <= row.change <= row.high for row in one.rows)
    again = compare(base=base, checkpoints=[*VARIANTS], to=to, workspace=workspace, exams_per_skill=1)
    assert again.fingerprint == record.fingerprint


def test_a_checkpoint_that_is_not_there_is_named_before_anything_is_asked(place: tuple[Workspace, Path]) -> None:
    workspace, base = place
    with pytest.raises(RefError, match="expert@1"):
        compare(base=base, checkpoints=[Ref("expert", "1")], to=Ref("k", "1"), workspace=workspace, exams_per_skill=1)


def test_a_base_that_is_no_model_is_named(place: tuple[Workspace, Path], tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no config"):
        compare(base=tmp_path, checkpoints=[*VARIANTS], to=Ref("k", "1"), workspace=place[0], exams_per_skill=1)


def test_one_expert_is_the_dense_model() -> None:
    assert nano_dense().moe.num_experts == 1
    assert replace(nano_dense(), name="nano", moe=nano().moe) == nano()
