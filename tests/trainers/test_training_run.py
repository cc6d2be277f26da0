"""A run of both stages: what it learns from, what a kill leaves, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import STEPS, tiny, tiny_mix, train_tiny

from schemas.errors import ArtifactError, TrainError
from trainers.checkpoint import load_trained
from trainers.data import InMemoryMix
from trainers.run import TrainResult, run_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """Six steps without a break."""
    home = tmp_path_factory.mktemp("straight")
    return home, train_tiny(home)


def metrics(home: Path, *, where: str = "final") -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (home / where / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("samples_per_s", "wait_s")} for row in rows]


@pytest.mark.parametrize("killed_after", [2, 4], ids=["in stage 1", "in stage 2"])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, straight: tuple[Path, TrainResult], killed_after: int
) -> None:
    script = Path(__file__).with_name("tiny_runs.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(killed_after)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=240,
    )
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "final" / "model.safetensors").exists()

    result = train_tiny(tmp_path)

    home, unbroken = straight
    assert result.fingerprint == unbroken.fingerprint
    assert metrics(tmp_path) == metrics(home)
    ours, theirs = (load_file(folder / "final" / "model.safetensors") for folder in (tmp_path, home))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_draws_consumed_are_those_of_the_schedule(straight: tuple[Path, TrainResult]) -> None:
    _, result = straight
    mix = tiny_mix()
    schedule = Counter(mix.draw(position).source for position in range(result.position))
    consumed = Counter(result.draws) + Counter(result.passed_over)
    assert consumed == schedule
    assert sum(result.draws.values()) == 6 * 4
    assert result.passed_over["questions"] > 0, "stage 2 has no use for image-text"


def test_the_second_stage_leaves_the_vlm_as_it_was(tmp_path: Path) -> None:
    config = tiny()
    first = replace(config, stages=config.stages[:1])
    train_tiny(tmp_path / "first", first)
    train_tiny(tmp_path / "both", config)
    before, after = (load_file(tmp_path / n / "final" / "model.safetensors") for n in ("first", "both"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("action_expert.") for name in changed)


def test_losses_are_finite_and_logged_for_every_step(straight: tuple[Path, TrainResult]) -> None:
    home, _ = straight
    rows = metrics(home)
    assert [row["step"] for row in rows] == list(range(6))
    assert [row["stage"] for row in rows] == ["co-train"] * 3 + ["reasoning-following"] * 3
    for row in rows:
        losses = [float(str(row[name])) for name in ("loss", "robot_text_loss", "action_loss", "grad_norm")]
        assert np.isfinite(losses).all()
        assert all(loss > 0 for loss in losses)
        assert 0 < float(str(row["expert_load_entropy"])) <= 1.0001


def test_another_mix_can_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    train_tiny(tmp_path)
    with pytest.raises(TrainError, match="was trained on mix aaaaaaaaaaaa, this is mix bbbbbbbbbbbb"):
        run_training(
            tiny(),
            tiny_mix(fingerprint="b" * 64),
            folder=tmp_path / "final",
            staging=tmp_path / "staging",
            num_threads=1,
        )


def test_a_loss_that_is_no_number_stops_the_run_with_its_step(tmp_path: Path) -> None:
    mix = tiny_mix()
    actions = mix.samples[5].actions
    assert actions is not None
    broken = replace(mix.samples[5], actions=np.full_like(actions, np.nan))
    samples = (*mix.samples[:5], broken, *mix.samples[6:])
    bad = InMemoryMix(lock=mix.lock, samples=samples, fingerprint=mix.fingerprint)
    with pytest.raises(TrainError, match="loss at step 1 is nan"):
        run_training(tiny(), bad, folder=tmp_path, staging=tmp_path, num_threads=1)


def test_a_mix_counted_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    mix = tiny_mix()
    other = InMemoryMix(
        lock=mix.lock.model_copy(update={"tokenizer_fingerprint": "c" * 64}),
        samples=mix.samples,
        fingerprint=mix.fingerprint,
    )
    with pytest.raises(TrainError, match="Build the mix with this recipe's tokenizer"):
        run_training(tiny(), other, folder=tmp_path, staging=tmp_path)


def test_a_finished_model_reads_back_with_all_it_needs_to_act(straight: tuple[Path, TrainResult]) -> None:
    home, result = straight
    trained = load_trained(home / "final")
    (robot,) = trained.embodiments
    assert (robot.name, robot.cameras, robot.chunk_steps) == ("arm", ("top", "wrist"), STEPS)
    assert robot.image_sizes == ((120, 80), (120, 80))
    assert trained.config == tiny()
    assert sum(p.numel() for p in trained.vla.parameters()) == result.num_parameters
    stored = load_file(home / "final" / "model.safetensors")
    loaded = trained.vla.state_dict()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    assert torch.equal(loaded["vlm.lm_head.weight"], stored["vlm.model.language_model.embed_tokens.weight"])


def test_a_folder_without_a_model_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is no checkpoint"):
        load_trained(tmp_path)
