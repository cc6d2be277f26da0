"""Metadata of an episodes artifact, computed anew: from the rig, the rows, the video headers and the commit's notes."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.episode_set import EpisodeSet
from dataengine.proofs.findings import Finding, finding
from dataengine.sinks.camera_features import how_counted, video_stats
from dataengine.sinks.kept import CONTENTS, Content
from dataengine.sinks.lerobot_v3 import IMAGES, STATISTICS, SYNC
from dataengine.sinks.mp4_tables import FileStat, VideoTable, read_table, stat_of
from dataengine.sinks.parts import pixels_hash
from dataengine.sinks.staging import StagedVideo
from dataengine.sinks.staging_writer import hash_array
from dataengine.stats import column_stats
from schemas.records import canonical_json, sha256_of
from schemas.rigs import Rig
from schemas.spans import frame_ns

_RELATIVE = 1e-6  # sums in another order, numbers written as text
_STAMPS = "stamp_ns."


def rig_findings(root: Path, rig: Rig) -> Iterator[Finding]:
    """info.json says what the rig says, and camera features what the video files are."""
    info = json.loads((root / "meta" / "info.json").read_bytes())
    faults = []
    for key, expected in (("fps", rig.rate_hz), ("robot_type", rig.robot_type), ("codebase_version", "v3.0")):
        if info.get(key) != expected:
            faults.append(f"{key} is {info.get(key)!r}, expected {expected!r}")
    for key, feature in rig.features.items():
        said = info["features"].get(key)
        if said is None:
            continue  # a feature that no episode holds
        if list(feature.names) and len(feature.names) == said["shape"][0] and said["names"] != list(feature.names):
            faults.append(f"{key} names {said['names'][:3]}..., the rig {list(feature.names)[:3]}...")
    for key, said in info["features"].items():
        if said["dtype"] == "video" and key.removeprefix(IMAGES) not in rig.cameras:
            faults.append(f"{key} is no camera of the rig")
    yield finding("meta/info.json is that of the rig", faults)
    for key, said in info["features"].items():
        if said["dtype"] == "video":
            yield finding("camera features are those of the video", _video_faults(root, key, said, rig.rate_hz), key)


def _video_faults(root: Path, key: str, said: dict[str, Any], rate_hz: int) -> list[str]:
    import av

    faults = []
    for path in sorted((root / "videos" / key).rglob("*.mp4")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found = {
                "video.height": stream.height,
                "video.width": stream.width,
                "video.codec": stream.codec.canonical_name,
                "video.pix_fmt": stream.pix_fmt,
            }
        found["video.fps"] = rate_hz
        shape = [found["video.height"], found["video.width"], 1 if said["info"].get("is_depth_map") else 3]
        if said["shape"] != shape:
            faults.append(f"shape is {said['shape']}, {path.name} is {shape}")
        faults += [
            f"{name} is {said['info'].get(name)!r}, {path.name} has {value!r}"
            for name, value in found.items()
            if name in said["info"] and said["info"][name] != value
        ]
    return faults


def picture_findings(root: Path) -> Iterator[Finding]:
    """stats.json and statistics.json are those of the histograms that the commit noted; sync.parquet what it noted."""
    contents = _contents(root)
    if contents is None:
        return
    stats = json.loads((root / "meta" / "stats.json").read_bytes())
    counted = json.loads((root / "meta" / STATISTICS).read_bytes())
    videos: dict[str, list[StagedVideo]] = {}
    skew: list[tuple[str, str, str]] = []
    for at in range(len(contents)):
        staged = _content(contents, at).staged
        skew += [(staged.episode_id, key, canonical_json(_plain(row))) for key, row in staged.skew.items()]
        for camera, row in staged.cameras.items():
            if row.video is not None:
                videos.setdefault(camera, []).append(row.video)
    for camera, rows in videos.items():
        key = IMAGES + camera
        expected = {name: value.tolist() for name, value in video_stats(rows).items()}
        faults = _stat_faults(stats.get(key) or {}, expected)
        if counted.get(key) != how_counted(rows):
            faults.append(f"{STATISTICS} says {counted.get(key)!r}, expected {how_counted(rows)!r}")
        yield finding("picture statistics are those of the histograms", faults, key)
    path = root / "meta" / SYNC
    found = [
        (row.pop("episode_id"), row.pop("stream"), canonical_json(row))
        for row in (pq.read_table(path).to_pylist() if path.is_file() else [])
    ]
    odd = sorted(found) != sorted(skew)
    yield finding(f"{SYNC} is what was noted", [f"{len(found)} rows that differ from {len(skew)}"] if odd else [])


def _plain(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a StreamSkew
    from dataclasses import asdict

    return asdict(row)


def episode_metadata(episodes: EpisodeSet, episode_id: str) -> Iterator[Finding]:
    """Hashes, times and statistics of one episode in meta/episodes follow from its rows and the commit's notes."""
    row = episodes.row(episode_id)
    said = _meta_row(episodes.path, row.index)
    columns: dict[str, NDArray[Any]] = dict(episodes.columns(episode_id))
    stamps = {f"{_STAMPS}{key}": value for key, value in episodes.recorded_stamps_ns(episode_id).items()}
    content = content_of(episodes, episode_id)
    if content is not None:
        yield finding("hashes are those of the rows", _hash_faults(said, content, columns, stamps, episodes.rate_hz))
    faults = []
    for key, values in columns.items():
        expected = {name: value.tolist() for name, value in column_stats(values).items()}
        got = {name: said.get(f"stats/{key}/{name}") for name in expected}
        faults += [f"{key}: {words}" for words in _stat_faults(got, expected)]
    for camera, staged in content.staged.cameras.items() if content is not None else ():
        if staged.video is not None:
            expected = {name: value.tolist() for name, value in video_stats([staged.video]).items()}
            got = {name: said.get(f"stats/{IMAGES}{camera}/{name}") for name in expected}
            faults += [f"{camera}: {words}" for words in _stat_faults(got, expected)]
    yield finding("statistics of the episode are those of its rows", faults)


def _hash_faults(
    said: dict[str, Any],
    content: Content,
    columns: dict[str, NDArray[Any]],
    stamps: dict[str, NDArray[np.int64]],
    rate_hz: int,
) -> list[str]:
    staged, faults = content.staged, []
    found = {key: hash_array(values) for key, values in columns.items()}
    found_stamps = {key: hash_array(values.reshape(-1)) for key, values in stamps.items()}
    for noted, now in ((staged.columns, found), (staged.stamps_ns, found_stamps)):
        faults += [f"{key} has another hash than was noted" for key in now if now[key] != noted.get(key)]
        faults += [f"{key} was noted and is absent" for key in noted if key not in now]
    clock = content.clock_hash
    if staged.num_frames == content.source_frames:  # of a trimmed one the stamps that were cut off are gone
        clock = sha256_of({"rate_hz": rate_hz, "rows": staged.num_frames, "stamps_ns": found_stamps})
    pixels = {name: pixels_hash(camera) for name, camera in staged.cameras.items()}
    expected = {
        "clock_hash": clock,
        "columns_hash": sha256_of(found),
        "pixels_hash": canonical_json(pixels),
        "start_ns": frame_ns(content.start_frame, rate_hz),
        "source_frames": content.source_frames,
    }
    faults += [
        f"{key} is {str(said[key])[:40]}, expected {str(value)[:40]}"
        for key, value in expected.items()
        if key in said and said[key] != value
    ]
    return faults


def _stat_faults(said: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    faults = []
    for name, value in expected.items():
        one, other = np.asarray(value, np.float64).reshape(-1), np.asarray(said.get(name), np.float64).reshape(-1)
        if one.shape != other.shape:
            faults.append(f"{name} is absent or has another shape")
        elif not np.allclose(one, other, rtol=_RELATIVE, atol=1e-9, equal_nan=True):
            at = int(np.argmax(np.abs(one - other)))
            faults.append(f"{name} of {at} is {other[at]:g}, expected {one[at]:g}")
    return faults


def content_of(episodes: EpisodeSet, episode_id: str) -> Content | None:
    """What the commit noted of one episode; None in artifacts of an older version. Raises ValueError for nonsense."""
    contents = _contents(episodes.path)
    if contents is None:
        return None
    content = _content(contents, episodes.row(episode_id).index)
    if content.staged.episode_id != episode_id:
        raise ValueError(f"{CONTENTS} holds {content.staged.episode_id} where {episode_id} belongs")
    return content


def _content(contents: pa.Table, at: int) -> Content:
    return Content.model_validate_json(contents.column("content_json")[at].as_py())


def _contents(root: Path) -> pa.Table | None:
    path = root / "meta" / CONTENTS
    return _table(path, stat_of(path)) if path.is_file() else None


def _meta_row(root: Path, number: int) -> dict[str, Any]:
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        table = _table(path, stat_of(path))
        if number < len(table):
            row: dict[str, Any] = table.slice(number, 1).to_pylist()[0]
            return row
        number -= len(table)
    raise ValueError(f"meta/episodes has no row {number}")


@lru_cache(maxsize=4)
def _table(path: Path, file_stat: FileStat) -> pa.Table:
    """Episodes of one worker follow each other: a table is read once, and kept as arrow."""
    return pq.read_table(path)


@lru_cache(maxsize=16)
def video_table(path: Path, file_stat: FileStat) -> VideoTable:
    """Where the packets of a shard lie; parsed once for all of its episodes."""
    return read_table(path)
