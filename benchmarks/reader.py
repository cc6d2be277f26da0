"""Training samples per second of one process: a mix beside LeRobotDataset on the same episodes, and beside bare JPEG
decoding, which no reader of JPEG frames can beat.

A sample is two 640 x 480 pictures, one state and a chunk of 50 actions; all sides read the same random frames.
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from benchmarks.figures import Figure, report
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.mix import Mix, build_mix
from dataengine.mix.sampling import chunk
from dataengine.workspace import Workspace
from schemas.mixes import MixSpec, RobotSource
from schemas.refs import Ref

WIDTH, HEIGHT, CAMERAS, CHUNK = 640, 480, ("cam_high", "cam_low"), 50
EPISODES = Ref("bench", "1")


class _Letters:
    """The least a mix needs to count words; no word is spoken here."""

    fingerprint = "letters"

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def measure(quick: bool) -> list[Figure]:
    """Interleaved medians over the same random frames; opening and the first reads are left out."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    num_episodes, num_frames, batch, repeats = (2, 60, 16, 3) if quick else (6, 200, 100, 11)
    with tempfile.TemporaryDirectory() as folder:
        mix, episodes, frames = _prepare(Path(folder), num_episodes, num_frames)
        peer = _lerobot(episodes, episodes.rate_hz)
        places = [_place(mix.sample(position).item_key) for position in range(batch)]
        rows = [episodes.row(episode_id).first_index + frame for episode_id, frame in places]
        sides: dict[str, Callable[[], None]] = {
            "ours": lambda: _each(range(batch), mix.sample),
            "lerobot": lambda: _each(rows, peer.__getitem__),
            "jpeg": lambda: _each(rows, lambda row: [frames.frame(camera, row) for camera in CAMERAS]),
            "actions": lambda: _each(places, lambda place: _actions(episodes, *place)),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(repeats + 1):
            for name, side in sides.items():
                start = time.perf_counter()
                side()
                if repeat:  # the first round opens files and fills caches
                    times[name].append(time.perf_counter() - start)
    rate = {name: batch / statistics.median(values) for name, values in times.items()}
    return [
        Figure(
            figure="mix samples, one process",
            ours=rate["ours"],
            peer=rate["lerobot"],
            peer_name="LeRobotDataset 0.6.1, pyav",
            unit="samples/s",
            repeats=repeats,
            note="2 pictures of 640 x 480 and 50 actions; LeRobot decodes AV1 of the same frames to float32",
        ),
        Figure(
            figure="mix samples beside bare JPEG decoding of the same pictures",
            ours=rate["ours"],
            peer=rate["jpeg"],
            peer_name="simplejpeg on the same bytes",
            unit="samples/s",
            repeats=repeats,
            note="the limit of any reader of these frames",
        ),
        Figure(
            figure="state and action chunk alone",
            ours=rate["actions"],
            peer=None,
            peer_name="none",
            unit="samples/s",
            repeats=repeats,
            note="no peer reads a chunk without its pictures",
        ),
    ]


def _each(items: Sequence[Any], read: Callable[[Any], object]) -> None:
    for item in items:
        read(item)


def _place(item_key: str) -> tuple[str, int]:
    episode_id, frame = item_key.split("#")
    return episode_id, int(frame)


def _actions(episodes: EpisodeSet, episode_id: str, frame: int) -> object:
    columns = episodes.columns(episode_id)
    return columns["observation.state"][frame], chunk(columns["action"], frame, CHUNK)


def _prepare(folder: Path, num_episodes: int, num_frames: int) -> tuple[Mix, EpisodeSet, FrameStore]:
    workspace = Workspace.at(folder / "workspace")
    for number in range(num_episodes):
        _write_episode(folder / "raw" / f"episode_{number}.hdf5", num_frames, seed=number)
    (folder / "raw" / "metadata.csv").write_text("file\n" + "".join(f"episode_{n}.hdf5\n" for n in range(num_episodes)))
    convert(source_path=folder / "raw", to=EPISODES, workspace=workspace, rig="aloha_sim")
    source = RobotSource(
        name="bench", episodes=str(EPISODES), reasoning="none", cameras=CAMERAS, chunk_steps=CHUNK, epochs=1
    )
    spec = MixSpec(sources=(source,), image_size=(WIDTH, HEIGHT), validation=0)
    build_mix(spec=spec, to=EPISODES, workspace=workspace, tokenizer=_Letters(), image_tokens=lambda width, height: 1)
    frames = FrameStore.open(workspace.find("frames", EPISODES))
    return Mix.open(workspace, EPISODES), EpisodeSet.open(workspace, EPISODES), frames


def _lerobot(episodes: EpisodeSet, rate_hz: int) -> Any:  # noqa: ANN401 - lerobot ships no types
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    stamps = {"action": [step / rate_hz for step in range(CHUNK)]}
    return LeRobotDataset("local/bench", root=episodes.path, delta_timestamps=stamps, video_backend="pyav")


def _write_episode(path: Path, num_frames: int, *, seed: int) -> None:
    """One ALOHA file: smooth motion, pictures with soft texture so that their JPEGs are as large as real ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    motion = np.sin(np.linspace(0, 6, num_frames)[:, None] + random.uniform(0, 6, 14)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = True, True
        file["action"], file["observations/qpos"], file["observations/qvel"] = motion, motion, np.zeros_like(motion)
        file["language_raw"] = [b"Put the card on the ledge."]
        lengths = []
        for camera in CAMERAS:
            coarse = Image.fromarray(random.integers(0, 255, (HEIGHT // 8, WIDTH // 8 * 2, 3), dtype=np.uint8))
            wide = np.asarray(coarse.resize((2 * WIDTH, HEIGHT), Image.Resampling.BICUBIC))
            jpegs = [_jpeg(wide[:, step % WIDTH : step % WIDTH + WIDTH]) for step in range(num_frames)]
            longest = max(map(len, jpegs))
            rows = np.stack([np.frombuffer(jpeg.ljust(longest, b"\0"), np.uint8) for jpeg in jpegs])
            file.create_dataset(f"observations/images/{camera}", data=rows, chunks=(1, longest))
            lengths.append([len(jpeg) for jpeg in jpegs])
        file["compress_len"] = np.asarray(lengths, np.float32)


def _jpeg(picture: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    report("reader", measure, __doc__)
