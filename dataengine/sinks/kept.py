"""The episodes of an existing artifact, as parts of a new one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from dataengine.frame_store import FrameStore
from dataengine.sinks.parts import KeptFrames, KeptRows, KeptVideo, Origin, Part
from dataengine.sinks.staging import StagedEpisode
from dataengine.workspace import read_record
from schemas.content_hashes import ContentHashes
from schemas.errors import ArtifactError
from schemas.records import Record, canonical_json
from schemas.refs import Ref
from schemas.rigs import Rig

CONTENTS = "contents.parquet"  # in meta/ of a dataset, at the root of a frame store
_NOWHERE = {"path": Path(), "first": 0, "file_stat": None}  # meta/episodes says where the packets lie
_UNPUBLISHED = {"staged": {"cameras": {"__all__": {"frames": {"planned"}}}}}  # of no meaning without the staging
_BATCH = 256  # a histogram of three channels is about 5 kB per camera


class Content(BaseModel):
    """One row of `contents.parquet`: what a commit knew about an episode, without paths and dates."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    staged: StagedEpisode
    start_frame: int
    source_frames: int
    clock_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptArtifact:
    """An artifact whose episodes may go into another one."""

    path: Path
    record: Record
    rig: Rig
    parts: tuple[Part, ...]

    @property
    def ref(self) -> Ref:
        """Its name."""
        return Ref(self.record.name, self.record.version)


def write_contents(path: Path, parts: Sequence[Part]) -> None:
    """Keep what is known about every part, so that a later version needs neither the raw data nor the staging."""
    texts = ("episode_id", "content_json", "clock_hash", "columns_hash", "pixels_hash")
    schema = pa.schema([*(pa.field(name, pa.string()) for name in texts), pa.field("start_frame", pa.int64())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(parts), _BATCH):
            some = parts[start : start + _BATCH]
            hashes = [part.hashes() for part in some]
            rows = {
                "episode_id": [part.staged.episode_id for part in some],
                "content_json": [_content(part).model_dump_json(exclude=_UNPUBLISHED) for part in some],
                "clock_hash": [found.clock for found in hashes],
                "columns_hash": [found.columns for found in hashes],
                "pixels_hash": [canonical_json(found.pixels) for found in hashes],
                "start_frame": [part.origin.start_frame for part in some],
            }
            writer.write_table(pa.table(rows, schema=schema))


def written_states(path: Path) -> list[tuple[int, ContentHashes]]:
    """First row and hashes of every episode of the artifact whose contents lie in `path`; empty where it has none."""
    wanted = ["start_frame", "clock_hash", "columns_hash", "pixels_hash"]
    if not path.is_file() or not set(wanted) <= set(pq.read_schema(path).names):
        return []
    table = pq.read_table(path, columns=wanted)
    rows = zip(*(table.column(name).to_pylist() for name in wanted), strict=True)
    return [
        (start, ContentHashes(clock=clock, columns=columns, pixels=json.loads(pixels)))
        for start, clock, columns, pixels in rows
    ]


def _content(part: Part) -> Content:
    staged = part.staged
    cameras = {
        key: camera.model_copy(
            update={
                "video": camera.video and camera.video.model_copy(update=_NOWHERE),
                "frames": camera.frames and camera.frames.model_copy(update={"source": None, "file_stat": None}),
            }
        )
        for key, camera in staged.cameras.items()
    }
    return Content(
        staged=staged.model_copy(update={"folder": Path(), "stamp": "", "boot": None, "cameras": cameras}),
        start_frame=part.origin.start_frame,
        source_frames=part.origin.source_frames,
        clock_hash=part.origin.clock_hash,
    )


def _read_contents(path: Path, record: Record) -> list[Content]:
    if not path.is_file():
        raise ArtifactError(_too_old(record, f"it holds no {path.name}"))
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(_BATCH, columns=["content_json"])
            return [Content.model_validate_json(row.as_py()) for batch in batches for row in batch.column(0)]
    except ValidationError as error:
        raise ArtifactError(_too_old(record, f"{error.errors()[0]['msg']}")) from None


def _too_old(record: Record, why: str) -> str:
    return (
        f"{record.kind} '{record.name}@{record.version}' was made by another version of this program ({why}), so it "
        f"can not be extended or edited. Convert its raw data again."
    )


def kept_dataset(path: Path) -> KeptArtifact:
    """The episodes of the LeRobot dataset in `path`. Raises ArtifactError where it does not say what is needed."""
    record = read_record(path)
    contents = _read_contents(path / "meta" / CONTENTS, record)
    info = json.loads((path / "meta" / "info.json").read_bytes())
    rows = _meta_rows(path)
    if [row["episode_id"] for row in rows] != [content.staged.episode_id for content in contents]:
        raise ArtifactError(_too_old(record, "its tables hold different episodes"))
    groups: dict[str, int] = {}
    numbers = []
    for row in rows:
        data = info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        numbers.append((data, groups.get(data, 0)))
        groups[data] = groups.get(data, 0) + 1
    task_indices = _task_indices(path / "meta" / "tasks.parquet")
    parts = []
    for content, row, (data, group) in zip(contents, rows, numbers, strict=True):
        keys = [*content.staged.columns, *content.staged.stamps_ns]
        lies = KeptRows(
            path=path / data,
            group=group,
            groups=groups[data],
            names=tuple((key, key) for key in keys),
            place=(row["episode_index"], row["dataset_from_index"], task_indices[row["task"]]),
        )
        parts.append(_part(content, rows=lies, videos=_videos(path, info, row, content.staged)))
    rig = Rig.model_validate_json((path / "meta" / "rig.json").read_bytes())
    return KeptArtifact(path=path, record=record, rig=rig, parts=tuple(parts))


def _videos(path: Path, info: dict[str, Any], row: dict[str, Any], staged: StagedEpisode) -> dict[str, KeptVideo]:
    found = {}
    for camera in staged.cameras:
        key = f"observation.images.{camera}"
        shard = info["video_path"].format(
            video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
        )
        first = round(row[f"videos/{key}/from_timestamp"] * info["fps"])
        found[camera] = KeptVideo(path=path / shard, first=first)
    return found


def _meta_rows(path: Path) -> list[dict[str, Any]]:
    files = sorted((path / "meta" / "episodes").glob("*/*.parquet"))
    wanted = [name for name in pq.read_schema(files[0]).names if not name.startswith("stats/")]
    return [row for file in files for row in pq.read_table(file, columns=wanted).to_pylist()]


def _task_indices(path: Path) -> dict[str, int]:
    table = pq.read_table(path)
    return dict(zip(table.column("task").to_pylist(), table.column("task_index").to_pylist(), strict=True))


def kept_store(path: Path) -> KeptArtifact:
    """The episodes of the frame store in `path`. Raises ArtifactError where it does not say what is needed."""
    record, store = read_record(path), FrameStore.open(path)
    contents = _read_contents(path / CONTENTS, record)
    if tuple(content.staged.episode_id for content in contents) != store.episode_ids:
        raise ArtifactError(_too_old(record, "its tables hold different episodes"))
    parts = []
    for content, end in zip(contents, store.episode_ends, strict=True):
        names = tuple((key, key) for key in (*content.staged.columns, *content.staged.stamps_ns))
        lies = KeptFrames(store=path, first=end - content.staged.num_frames, names=names)
        parts.append(_part(content, frames=lies))
    return KeptArtifact(path=path, record=record, rig=rig_of_store(store, record), parts=tuple(parts))


def rig_of_store(store: FrameStore, record: Record) -> Rig:
    """What its numbers mean. The recipe of a store that extends another one holds the rig of what was added."""
    return Rig.model_validate(store.rig or record.recipe["rig"])


def _part(
    content: Content,
    *,
    rows: KeptRows | None = None,
    videos: dict[str, KeptVideo] | None = None,
    frames: KeptFrames | None = None,
) -> Part:
    origin = Origin(start_frame=content.start_frame, source_frames=content.source_frames, clock_hash=content.clock_hash)
    return Part(staged=content.staged, origin=origin, rows=rows, videos=videos or {}, frames=frames)
