"""What the convert benchmark feeds to both sides: soft moving pictures as large as real ones, and smooth motion."""

import hashlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from dataengine.sinks.video_encoding import VideoEncoding
from schemas.episodes import CameraSpec, Episode, EpisodeMeta
from schemas.rigs import Camera, Feature, Rig

WIDTH, HEIGHT, RATE_HZ, CAMERAS = 640, 480, 50, ("cam_high", "cam_low")
_TASK = "Put the card on the ledge."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """A camera in memory."""

    spec: CameraSpec
    frames: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.frames)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """Each picture."""
        yield from self.frames


def pictures(num_frames: int, *, seed: int) -> NDArray[np.uint8]:
    """(num_frames, 480, 640, 3): a soft texture that moves one pixel a frame, with a little noise of a sensor."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (HEIGHT // 16, WIDTH // 8, 3), dtype=np.uint8))
    wide = np.asarray(coarse.resize((2 * WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    noise = random.integers(0, 4, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows = [
        wide[:, step % WIDTH : step % WIDTH + WIDTH] // 2 + np.roll(noise, step, axis=0) for step in range(num_frames)
    ]
    return np.stack(rows)


def motion(num_frames: int, *, seed: int) -> NDArray[np.float32]:
    """(num_frames, 14) smooth motion."""
    phase = np.random.default_rng(seed).uniform(0, 6, 14)
    return np.sin(np.linspace(0, 6, num_frames)[:, None] + phase).astype(np.float32)


def in_memory(num_episodes: int, num_frames: int, *, cameras: bool = True) -> list[Episode]:
    """Episodes that no file has to be read for."""
    episodes = []
    for number in range(num_episodes):
        streams = {
            key: Arrays(
                spec=CameraSpec(name=key, height=HEIGHT, width=WIDTH, encoding="raw", channel_order="rgb"),
                frames=pictures(num_frames, seed=10 * number + place),
            )
            for place, key in enumerate(CAMERAS if cameras else ())
        }
        columns = {"observation.state": motion(num_frames, seed=number), "action": motion(num_frames, seed=number + 1)}
        meta = EpisodeMeta(episode_id=f"episode_{number}-{number:012x}", raw_name=f"episode_{number}", task=_TASK)
        episodes.append(Episode(meta=meta, rate_hz=RATE_HZ, columns=dict(columns), cameras=dict(streams)))
    return episodes


def rig_in_memory() -> Rig:
    """What `in_memory` makes."""
    return Rig(
        name="bench",
        source="aloha_hdf5",
        robot_type="arm",
        rate_hz=RATE_HZ,
        features={key: Feature(key=key) for key in ("observation.state", "action")},
        cameras={key: Camera(key=key, channel_order="rgb") for key in CAMERAS},
    )


def encode_bare(folder: Path, episodes: Sequence[Episode], encoding: VideoEncoding) -> None:
    """PyAV and nothing else: each camera of each episode into an mp4, the encoder on all cores."""
    import av

    for number, episode in enumerate(episodes):
        for key, stream in episode.cameras.items():
            with av.open(str(folder / f"{number}-{key}.mp4"), "w") as output:
                track = output.add_stream(encoding.codec, rate=RATE_HZ, options=encoding.options(threads=None))
                track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
                for index, picture in enumerate(stream.arrays()):  # type: ignore[union-attr]  # arrays, all of them
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = index, Fraction(1, RATE_HZ)
                    output.mux(track.encode(frame))
                output.mux(track.encode())


def count_pictures(root: Path) -> int:
    """Packets of all videos of a dataset."""
    import av

    num = 0
    for path in root.rglob("*.mp4"):
        with av.open(str(path)) as container:
            num += sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    return num


def copy_files(paths: Sequence[Path], folder: Path) -> None:
    """`cp` of all files at once; numbered where names repeat."""
    names = {path.name for path in paths}
    if len(names) == len(paths):
        subprocess.run(["cp", *map(str, paths), str(folder)], check=True)
        return
    for parent in sorted({path.parent for path in paths}):
        inside = [str(path) for path in paths if path.parent == parent]
        (folder / parent.name).mkdir()
        subprocess.run(["cp", *inside, str(folder / parent.name)], check=True)


def forget(paths: Sequence[Path]) -> None:
    """Drop files from memory, so that whoever reads them next reads from the disk; they must have been synced."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def copy_durably(paths: Sequence[Path], folder: Path) -> None:
    """`cp`, then what an artifact has as well, on all cores: every copy synced to the disk, and its sha256.

    Python's sha256, because it uses the processor's own instructions: the tool of that name is half as fast here.
    """
    copy_files(paths, folder)
    copies = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(max_workers=4) as disk, ThreadPoolExecutor(max_workers=os.cpu_count()) as cores:
        synced, hashed = disk.map(_sync, copies), cores.map(_sha256, copies)
        list(synced)
        list(hashed)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return file.getvalue()


def aloha(folder: Path, *, num_episodes: int, num_frames: int) -> Path:
    """Compressed ALOHA files; each frame's JPEG is another one, drawn from a pool and marked at its end."""
    pool = {key: [_jpeg(picture) for picture in pictures(40, seed=place)] for place, key in enumerate(CAMERAS)}
    for number in range(num_episodes):
        _write_aloha(folder / f"episode_{number}.hdf5", pool, num_frames, number)
    names = "".join(f"episode_{number}.hdf5\n" for number in range(num_episodes))
    (folder / "metadata.csv").write_text("file\n" + names)
    return folder


def _write_aloha(path: Path, pool: dict[str, list[bytes]], num_frames: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    moved = motion(num_frames, seed=seed)
    with h5py.File(path, "w") as file:
        file.attrs["sim"], file.attrs["compress"] = True, True
        file["action"], file["observations/qpos"], file["observations/qvel"] = moved, moved, np.zeros_like(moved)
        file["language_raw"] = [_TASK.encode()]
        lengths = []
        for key, jpegs in pool.items():
            rows = [jpegs[(seed * 7 + step) % len(jpegs)] for step in range(num_frames)]
            longest = max(map(len, rows))
            padded = np.stack([np.frombuffer(row.ljust(longest, b"\0"), np.uint8) for row in rows])
            file.create_dataset(f"observations/images/{key}", data=padded, chunks=(1, longest))
            lengths.append([len(row) for row in rows])
        file["compress_len"] = np.asarray(lengths, np.float32)


def numbers(folder: Path, *, num_episodes: int, num_frames: int) -> tuple[Path, Path]:
    """Episodes without a camera, and the rig that says so."""
    folder.mkdir(parents=True)
    for number in range(num_episodes):
        moved = motion(num_frames, seed=number)
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            file["action"], file["observations/qpos"] = moved, moved + np.float32(number)
    rig = folder.parent / "numbers.yaml"
    rig.write_text(
        "schema_version: 2\nname: numbers\nsource: aloha_hdf5\nrobot_type: arm\nrate_hz: 50\n"
        f"task: {_TASK}\n"
        "features:\n  observation.state: {key: observations/qpos}\n  action: {key: action}\n"
    )
    return folder, rig


def lerobot_v21(folder: Path, *, num_episodes: int) -> Path:
    """A LeRobot v2.1 dataset of one camera: large H.264 files; every episode holds the same video."""
    import av

    num_frames, key = 120, "observation.images.cam_high"
    video = folder / f"videos/chunk-000/{key}/episode_000000.mp4"
    video.parent.mkdir(parents=True)
    with av.open(str(video), "w") as output:
        track = output.add_stream("libx264", rate=RATE_HZ, options={"g": "10", "crf": "10", "preset": "ultrafast"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for step, picture in enumerate(pictures(num_frames, seed=0)):
            output.mux(track.encode(av.VideoFrame.from_ndarray(picture + np.roll(noise, 7 * step, 1), format="rgb24")))
        output.mux(track.encode())
    shape, names = [HEIGHT, WIDTH, 3], ["height", "width", "channels"]
    column = {"dtype": "float32", "shape": [14], "names": None}
    info = {
        "codebase_version": "v2.1",
        "robot_type": "arm",
        "fps": RATE_HZ,
        "total_episodes": num_episodes,
        "total_frames": num_episodes * num_frames,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": column,
            "action": column,
            key: {"dtype": "video", "shape": shape, "names": names, "info": {"video.fps": RATE_HZ}},
        },
    }
    (folder / "meta").mkdir()
    (folder / "data/chunk-000").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    (folder / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": _TASK}) + "\n")
    rows = [{"episode_index": number, "tasks": [_TASK], "length": num_frames} for number in range(num_episodes)]
    (folder / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for number in range(num_episodes):
        if number:
            shutil.copyfile(video, video.with_name(f"episode_{number:06d}.mp4"))
        moved = motion(num_frames, seed=number)
        table = {
            "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(moved.reshape(-1)), 14),
            "action": pa.FixedSizeListArray.from_arrays(pa.array(moved.reshape(-1)), 14),
            "timestamp": pa.array((np.arange(num_frames) / RATE_HZ).astype(np.float32)),
            "frame_index": pa.array(np.arange(num_frames)),
            "episode_index": pa.array(np.full(num_frames, number)),
            "index": pa.array(np.arange(num_frames) + number * num_frames),
            "task_index": pa.array(np.zeros(num_frames, np.int64)),
        }
        pq.write_table(pa.table(table), folder / f"data/chunk-000/episode_{number:06d}.parquet")
    return folder


def samples() -> Path:
    """Real teleoperation data that is not part of the project."""
    return Path(os.environ.get("DATAENGINE_SAMPLES", Path(__file__).resolve().parents[2] / "shared" / "samples"))


def num_pusht_frames(raw: Path) -> int:
    """Steps of the PushT buffer."""
    import zarr

    group: Any = zarr.open_group(next(raw.rglob("*.zarr")), mode="r")
    return int(group["data/action"].shape[0])
