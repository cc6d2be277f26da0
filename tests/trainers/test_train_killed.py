"""`dataengine train` as a real process, killed without a word, run again: the same weights as an unbroken run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dataengine.convert import convert
from dataengine.mix import build_mix
from dataengine.workspace import Workspace
from schemas.mixes import LlavaSource, MixSpec, RobotSource
from schemas.records import Record
from schemas.refs import Ref
from trainers.recipes import nano
from trainers.tokenizer import nano_tokenizer

ROOT = Path(__file__).resolve().parents[2]
MIX, STEPS, KILLED_AFTER = "tiny@1", 5, 4
# With five steps the nano recipe learns three in stage 1 and two in stage 2, and keeps a checkpoint after each stage.


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two short ALOHA episodes and four pictures, mixed two to one."""
    home = tmp_path_factory.mktemp("killed")
    rng = np.random.default_rng(0)
    (home / "raw").mkdir()
    for number in range(2):
        with h5py.File(home / "raw" / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            walk = np.cumsum(rng.uniform(-0.02, 0.02, (30, 14)), axis=0)
            file["action"] = walk.astype(np.float32)
            file["observations/qpos"] = walk.astype(np.float32)
            for camera in ("cam_high", "cam_low"):
                file[f"observations/images/{camera}"] = rng.integers(0, 255, (30, 40, 80, 3), dtype=np.uint8)
            file["language_raw"] = [b"Pick the card."]
    (home / "raw" / "metadata.csv").write_text("file,outcome\nepisode_0.hdf5,success\nepisode_1.hdf5,success\n")
    rows = []
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (40, 80, 3), dtype=np.uint8)).save(home / f"{number}.png")
        talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"Noise {number}."}]
        rows.append({"id": str(number), "image": f"{number}.png", "conversations": talk})
    (home / "questions.json").write_text(json.dumps(rows))
    made = Workspace.at(home / "workspace")
    convert(source_path=home / "raw", to=Ref("toy", "1"), workspace=made, rig="aloha_sim", workers=1)
    spec = MixSpec(
        sources=(
            RobotSource(
                name="arms", episodes="toy@1", reasoning="none", cameras=("cam_high",), chunk_steps=8, weight=2
            ),
            LlavaSource(name="questions", path=str(home / "questions.json"), weight=1),
        ),
        num_samples=48,
        image_size=(80, 40),
        validation=0,
    )
    build_mix(
        spec=spec,
        to=Ref.parse(MIX),
        workspace=made,
        tokenizer=nano_tokenizer(),
        image_tokens=nano().image_tokens,
    )
    return made


def rows_of(metrics: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("samples_per_s", "wait_s")} for row in rows]


@contextmanager
def train_process(workspace: Workspace, to: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "apps", "train", "nano", "--mix", MIX, "--to", to, "--steps", str(STEPS)]
    running = subprocess.Popen(
        [*command, "--workspace", str(workspace.root)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


def trained(workspace: Workspace, to: str) -> Record:
    with train_process(workspace, to) as running:
        said, _ = running.communicate(timeout=240)
    assert running.returncode == 0, said.decode()
    return workspace.record("checkpoints", Ref.parse(to))


@pytest.mark.slow
def test_a_train_command_killed_in_the_middle_ends_in_the_bits_of_an_unbroken_one(workspace: Workspace) -> None:
    metrics = workspace.root / "checkpoints" / ".killed@1.draft" / ".staging" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    with train_process(workspace, "killed@1") as running:
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < KILLED_AFTER:
            assert running.poll() is None, "ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)  # the driver alone: its Ray worker lives on for a while
        assert running.wait(timeout=30) == -signal.SIGKILL
    assert Ref.parse("killed@1") not in workspace.refs("checkpoints")

    again = trained(workspace, "killed@1")
    unbroken = trained(workspace, "unbroken@1")

    assert again.fingerprint == unbroken.fingerprint
    assert again.notes["draws"] == unbroken.notes["draws"]
    folders = [workspace.find("checkpoints", Ref.parse(name)) for name in ("killed@1", "unbroken@1")]
    ours, theirs = (rows_of(folder / "metrics.jsonl") for folder in folders)
    assert ours == theirs
    assert [row["stage"] for row in theirs] == ["co-train"] * 3 + ["reasoning-following"] * 2
    assert dict(theirs[-1]["draws"])["arms"] > 0  # type: ignore[call-overload]  # JSON: a map of counts
    assert (folders[0] / "model.safetensors").read_bytes() == (folders[1] / "model.safetensors").read_bytes()
