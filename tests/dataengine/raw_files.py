"""Writers of raw teleoperation files, for tests: plain h5py, zarr, pyarrow and PyAV calls that follow the published
layouts and share nothing with our readers. Every frame's picture is different, so that a swapped or lost one shows.
"""

import io
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ALOHA_CAMERAS = ("cam_high", "cam_low")
TASK = "Put the card on the ledge."


def pictures(num_frames: int, *, height: int = 48, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """(num_frames, height, width, 3) RGB: red and blue differ, a bar moves one step each frame, brightness counts."""
    rows, columns = np.mgrid[0:height, 0:width]
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        frames[index, ..., 0] = (columns * 3 + seed * 17) % 200
        frames[index, ..., 1] = (rows * 4 + index * 5) % 220
        frames[index, ..., 2] = 30
        bar = (index * 4) % max(width - 6, 1)
        frames[index, :, bar : bar + 6] = (255, 255, 40)
    return frames


def trajectory(num_frames: int, dims: int, *, seed: int = 0) -> NDArray[np.float32]:
    """(num_frames, dims) smooth float32 motion, every value different."""
    phase = np.random.default_rng(seed).uniform(0, 6, dims)
    time = np.arange(num_frames)[:, None] / 10
    return (0.5 * np.sin(time + phase) + 0.01 * seed).astype(np.float32)


def bimanual_14(num_frames: int, *, seed: int = 0) -> NDArray[np.float32]:
    """(num_frames, 14) ALOHA vector: the right gripper (13) closes at one third and opens at two thirds."""
    values = trajectory(num_frames, 14, seed=seed)
    values[:, 6] = 1.0
    values[:, 13] = 1.0
    values[num_frames // 3 : 2 * num_frames // 3, 13] = 0.1
    return values


def jpeg(picture: NDArray[np.uint8], quality: int = 90) -> bytes:
    """One baseline JPEG of an RGB picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def write_aloha_episode(
    path: Path,
    *,
    num_frames: int = 30,
    compressed: bool = True,
    cameras: Sequence[str] = ALOHA_CAMERAS,
    depth_cameras: Sequence[str] = (),
    height: int = 48,
    width: int = 64,
    seed: int = 0,
    language: str | None = TASK,
    language_scalar: bool = False,
    with_compress_len: bool = True,
    chunked: bool = True,
    vlen: bool = False,
    sim: bool | None = True,
    qpos: NDArray[np.floating] | None = None,
    action: NDArray[np.floating] | None = None,
    substep_reasonings: Sequence[str] | None = None,
    reasoning: str | None = None,
    drop: Sequence[str] = (),
    short_camera: str | None = None,
) -> Path:
    """One ALOHA/DexVLA episode file, as a lab's recorder leaves it.

    Compressed: `observations/images/<cam>` is (T, longest) uint8, zero padded, lengths in `compress_len` (float32,
    one row per camera in alphabetical order, depth cameras skipped). `drop` names keys to leave out.
    `short_camera` loses its last frame.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = bimanual_14(num_frames, seed=seed) if qpos is None else qpos
    commands = bimanual_14(num_frames, seed=seed + 1) if action is None else action
    with h5py.File(path, "w") as file:
        if sim is not None:
            file.attrs["sim"] = sim
        if compressed:
            file.attrs["compress"] = True
        file["action"] = commands
        file["observations/qpos"] = state
        file["observations/qvel"] = np.zeros_like(state)
        lengths = []
        for number, camera in enumerate(sorted([*cameras, *depth_cameras])):
            key = f"observations/images/{camera}"
            if camera in depth_cameras:
                file[key] = np.full((num_frames, height, width), 700 + number, np.uint16)
                continue
            count = num_frames - 1 if camera == short_camera else num_frames
            frames = pictures(count, height=height, width=width, seed=seed * 10 + number)
            if not compressed:
                file.create_dataset(key, data=frames, chunks=(1, height, width, 3) if chunked else None)
                continue
            rows = [jpeg(frame) for frame in frames]
            lengths.append([len(row) for row in rows] + [0] * (num_frames - count))
            _write_rows(file, key, rows, chunked=chunked, vlen=vlen)
        if compressed and with_compress_len and not vlen:
            file["compress_len"] = np.asarray(lengths, np.float32)
        if language is not None:
            raw: Any = language.encode()
            file["language_raw"] = raw if language_scalar else [raw]
        if substep_reasonings is not None:
            file["substep_reasonings"] = [text.encode() for text in substep_reasonings]
        if reasoning is not None:
            file["reasoning"] = [reasoning.encode()]
        for key in drop:
            del file[key]
    return path


def _write_rows(file: h5py.File, key: str, rows: list[bytes], *, chunked: bool, vlen: bool) -> None:
    if vlen:
        column = file.create_dataset(key, (len(rows),), dtype=h5py.vlen_dtype(np.uint8))
        for index, row in enumerate(rows):
            column[index] = np.frombuffer(row, np.uint8)
        return
    longest = max(len(row) for row in rows)
    padded = np.zeros((len(rows), longest), np.uint8)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = np.frombuffer(row, np.uint8)
    file.create_dataset(key, data=padded, chunks=(1, longest) if chunked else None)


def write_mp4(
    path: Path, frames: NDArray[np.uint8], *, rate_hz: int = 30, codec: str = "libx264", g: int | None = None
) -> Path:
    """A small real video of RGB frames (height and width even)."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, options={"g": str(g)} if g else {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, rate_hz)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_lerobot_v21(
    root: Path,
    *,
    lengths: Sequence[int] = (20, 25),
    cameras: Sequence[str] = ("cam_high",),
    dims: int = 4,
    rate_hz: int = 30,
    height: int = 48,
    width: int = 64,
    names: Any = None,
    missing_videos: Sequence[int] = (),
    frames_lost: dict[int, int] | None = None,
    tasks: Sequence[str] = (TASK,),
    robot_type: str | None = "test_arm",
    nan_at: tuple[int, int, int] | None = None,
    fixed_size: bool = True,
    codec: str = "libx264",
    g: int | None = None,
) -> Path:
    """A LeRobot v2.1 dataset: parquet and mp4 per episode, JSON lines in meta/.

    `names` is what info.json says for state and action (default: a nested list, as found in the wild);
    `frames_lost` {episode: n} makes videos n frames short; `nan_at` is (episode, frame, dimension) of the action.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels = [[f"joint_{index}" for index in range(dims)]] if names is None else names
    vector = pa.list_(pa.float32(), dims) if fixed_size else pa.list_(pa.float32())
    start = 0
    for episode, length in enumerate(lengths):
        action = trajectory(length, dims, seed=episode + 50)
        if nan_at is not None and nan_at[0] == episode:
            action[nan_at[1], nan_at[2]] = np.nan
        table = pa.table(
            {
                "observation.state": pa.array(list(trajectory(length, dims, seed=episode)), vector),
                "action": pa.array(list(action), vector),
                "timestamp": pa.array((np.arange(length) / rate_hz).astype(np.float32)),
                "frame_index": np.arange(length),
                "episode_index": np.full(length, episode),
                "index": np.arange(start, start + length),
                "task_index": np.full(length, episode % len(tasks)),
            }
        )
        start += length
        parquet = root / f"data/chunk-000/episode_{episode:06d}.parquet"
        parquet.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, parquet)
        for number, camera in enumerate(cameras):
            if episode in missing_videos:
                continue
            count = length - (frames_lost or {}).get(episode, 0)
            frames = pictures(count, height=height, width=width, seed=episode * 10 + number)
            key = f"observation.images.{camera}"
            path = root / f"videos/chunk-000/{key}/episode_{episode:06d}.mp4"
            write_mp4(path, frames, rate_hz=rate_hz, codec=codec, g=g)
    _write_lerobot_meta(root, lengths, cameras, dims, rate_hz, (height, width), labels, tasks, robot_type)
    return root


def _write_lerobot_meta(
    root: Path,
    lengths: Sequence[int],
    cameras: Sequence[str],
    dims: int,
    rate_hz: int,
    size: tuple[int, int],
    labels: Any,
    tasks: Sequence[str],
    robot_type: str | None,
) -> None:
    scalar = {"shape": [1], "names": None}
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": [dims], "names": labels} for name in ("observation.state", "action")
    }
    for camera in cameras:
        features[f"observation.images.{camera}"] = {
            "dtype": "video",
            "shape": [*size, 3],
            "names": ["height", "width", "channel"],
        }
    features["timestamp"] = {"dtype": "float32", **scalar}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", **scalar}
    info = {
        "codebase_version": "v2.1",
        "robot_type": robot_type,
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(tasks),
        "total_videos": len(lengths) * len(cameras),
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": rate_hz,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": features,
    }
    meta = root / "meta"
    meta.mkdir(parents=True, exist_ok=True)
    (meta / "info.json").write_text(json.dumps(info, indent=1))
    episodes = [
        {"episode_index": index, "tasks": [tasks[index % len(tasks)]], "length": length}
        for index, length in enumerate(lengths)
    ]
    _write_lines(meta / "episodes.jsonl", episodes)
    _write_lines(meta / "tasks.jsonl", [{"task_index": index, "task": task} for index, task in enumerate(tasks)])


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_diffusion_zarr(
    root: Path,
    *,
    lengths: Sequence[int] = (12, 20),
    height: int = 32,
    width: int = 32,
    float_images: bool = True,
    image_offset: float = 0.0,
    chunk: int = 7,
    state: NDArray[np.floating] | None = None,
    drop: Sequence[str] = (),
) -> Path:
    """A diffusion-policy replay buffer: zarr v2, all episodes end to end, cumulative exclusive `meta/episode_ends`.

    Arrays: action (N, 2), state (N, 5), img (N, H, W, 3). `image_offset` is added to the pixels (0.25 makes them no
    integers). `drop` names arrays to leave out.
    """
    import zarr

    total = sum(lengths)
    images = np.concatenate(
        [pictures(length, height=height, width=width, seed=index) for index, length in enumerate(lengths)]
    )
    group = zarr.open_group(str(root), mode="w", zarr_format=2)
    arrays: dict[str, NDArray[Any]] = {
        "action": 256 + 100 * trajectory(total, 2, seed=3),
        "state": 256 + 100 * trajectory(total, 5, seed=4) if state is None else state,
        "img": images.astype(np.float32) + np.float32(image_offset) if float_images else images,
    }
    data = group.create_group("data")
    for name, values in arrays.items():
        if name not in drop:
            array = data.create_array(name, shape=values.shape, chunks=(chunk, *values.shape[1:]), dtype=values.dtype)
            array[:] = values
    meta = group.create_group("meta")
    if "episode_ends" not in drop:
        ends = np.cumsum(lengths).astype(np.int64)
        array = meta.create_array("episode_ends", shape=ends.shape, chunks=ends.shape, dtype=ends.dtype)
        array[:] = ends
    return root


def write_metadata_csv(root: Path, rows: Sequence[dict[str, str]]) -> Path:
    """`metadata.csv` beside the episodes, as the rig `aloha_sim` expects: one row per file."""
    header = list(rows[0]) if rows else ["file"]
    lines = [",".join(header), *(",".join(row[key] for key in header) for row in rows)]
    path = root / "metadata.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_aloha_folder(root: Path, *, num_episodes: int = 3, num_frames: int = 30, **options: Any) -> Path:
    """A whole raw folder for `--rig aloha_sim`: episode_0.hdf5 ... and metadata.csv."""
    for index in range(num_episodes):
        write_aloha_episode(root / f"episode_{index}.hdf5", num_frames=num_frames, seed=index, **options)
    rows = [
        {"file": f"episode_{index}.hdf5", "operator": "ada" if index % 2 else "bob", "outcome": "success"}
        for index in range(num_episodes)
    ]
    write_metadata_csv(root, rows)
    return root
