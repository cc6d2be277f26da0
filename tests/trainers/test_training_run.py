"""A run of both stages: what it learns from, what a kill leaves, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import STEPS, tiny, tiny_mix, train_tiny

from schemas.errors import ArtifactError, TrainError
from trainers.checkpoint import load_trained, only_trainer
from trainers.data import InMemoryMix
from trainers.run import StepRow, TrainResult, run_training

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """Six steps without a break."""
    home = tmp_path_factory.mktemp("straight")
    return home, train_tiny(home)


def metrics(home: Path, *, where: str = "final") -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (home / where / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("samples_per_s", "wait_s")} for row in rows]


def kill_tiny(home: Path, *, after: int) -> None:
    """Train in a process that is killed after this step."""
    script = Path(__file__).with_name("tiny_runs.py")
    done = subprocess.run(
        [sys.executable, str(script), str(home), str(after)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=240,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("killed_after", [2, 4], ids=["in stage 1", "in stage 2"])
@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, straight: tuple[Path, TrainResult], killed_after: int
) -> None:
    kill_tiny(tmp_path, after=killed_after)
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


@pytest.mark.parametrize("torn", ['{"step": 4, "draws": {"arms": 3}', '{"step": 4, "dr', "[4]", "\x00\x00\x00"])
def test_a_torn_last_row_of_metrics_does_not_stop_a_run_from_going_on(
    tmp_path: Path, straight: tuple[Path, TrainResult], torn: str
) -> None:
    home, unbroken = straight
    shutil.copytree(home / "staging", tmp_path / "staging")
    with (tmp_path / "staging" / "metrics.jsonl").open("a") as rows:
        rows.write(torn)
    assert train_tiny(tmp_path).fingerprint == unbroken.fingerprint
    assert metrics(tmp_path) == metrics(home)


def test_rows_are_on_disk_before_the_checkpoint_that_forgets_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def sync(number: int) -> None:
        synced.append(Path(f"/proc/self/fd/{number}").readlink().name)
        real_sync(number)

    def rename(source: Path, target: Path) -> None:
        if Path(target).name.startswith("step_"):
            assert "metrics.jsonl" in synced
            synced.clear()
        real_rename(source, target)

    monkeypatch.setattr("trainers.checkpoint.os.fsync", sync)
    monkeypatch.setattr("trainers.checkpoint.os.rename", rename)
    train_tiny(tmp_path)


@pytest.mark.parametrize("name", ["progress.json", "optimizer.pt", "model.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_checkpoint_is_one_sentence_when_a_run_goes_on(tmp_path: Path, name: str, damage: str) -> None:
    interrupt_tiny(tmp_path, after=1)
    (step,) = (tmp_path / "staging").glob("step_*")
    _damage(step / name, damage)
    with pytest.raises(ArtifactError, match=name):
        train_tiny(tmp_path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [("config.json", "cut"), ("model.safetensors", "cut"), ("config.json", "{}"), ("config.json", "[]")],
)
def test_a_damaged_model_is_one_sentence(
    tmp_path: Path, straight: tuple[Path, TrainResult], name: str, damage: str
) -> None:
    shutil.copytree(straight[0] / "final", tmp_path / "final")
    _damage(tmp_path / "final" / name, damage)
    with pytest.raises(ArtifactError):
        load_trained(tmp_path / "final")


@pytest.mark.parametrize("field", ["embodiments", "shape", "recipe", "tokenizer_fingerprint"])
def test_a_config_without_a_field_is_one_sentence(
    tmp_path: Path, straight: tuple[Path, TrainResult], field: str
) -> None:
    shutil.copytree(straight[0] / "final", tmp_path / "final")
    config = json.loads((tmp_path / "final" / "config.json").read_text())
    del config[field]
    (tmp_path / "final" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=f"'final' is damaged: config.json cannot be read .*{field}"):
        load_trained(tmp_path / "final")


def interrupt_tiny(home: Path, *, after: int) -> None:
    """Stop in this process after a step: the same files as a kill, without another start of torch."""

    def stop(row: StepRow) -> None:
        if row.step == after:
            raise KeyboardInterrupt

    for name in ("final", "staging"):
        (home / name).mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_training(tiny(), tiny_mix(), folder=home / "final", staging=home / "staging", num_threads=1, on_step=stop)


def _damage(path: Path, damage: str) -> None:
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "gone":
            path.unlink()
        case text:
            path.write_text(text)


def test_one_trainer_at_a_time_the_next_waits_and_then_refuses(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, time\n"
            "lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)\n"
            "fcntl.flock(lock, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\n"
            "sys.stdin.readline()\n"
            "time.sleep(0.6)",
            str(tmp_path / "train.lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainError, match="another process still trains"), only_trainer(tmp_path, patience_s=0.3):
            pytest.fail("two trainers at once")
        holder.stdin.write("let go soon\n")
        holder.stdin.flush()
        with only_trainer(tmp_path, patience_s=30):
            assert holder.wait(timeout=30) == 0, "entered only after the holder was gone"
    finally:
        holder.kill()
        holder.wait()
    with only_trainer(tmp_path, patience_s=0):
        pass


def test_nothing_is_touched_while_another_still_trains(
    tmp_path: Path, straight: tuple[Path, TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that outlived its driver holds the lock: the next run neither trims its rows nor reads its weights."""
    shutil.copytree(straight[0] / "staging", tmp_path / "staging")
    (tmp_path / "final").mkdir()
    before = {path: path.read_bytes() for path in (tmp_path / "staging").rglob("*") if path.is_file()}
    impatient = partial(only_trainer, patience_s=0.3)
    monkeypatch.setattr("trainers.run.only_trainer", impatient)
    with only_trainer(tmp_path / "staging"), pytest.raises(TrainError, match="another process still trains"):
        train_tiny(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "staging").rglob("*") if path.is_file()} == before
    assert not list((tmp_path / "final").iterdir())
