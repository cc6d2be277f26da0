"""LeRobot v2.0 and v2.1 datasets: one parquet and one mp4 per camera for each episode, described by meta/info.json.

Videos are handed on as files; only their packets are counted here, nothing is decoded. Pictures inside the parquet are
handed on as stored. GR00T's meta/modality.json names dimensions, cameras and annotation columns.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dataengine.sources.content import STEM, episode_id, files_stamp, folder_fingerprint, hash_files
from dataengine.sources.lerobot_columns import (
    imported_texts,
    read_numbers,
    recorded_stamps,
    text_columns,
    texts_by_number,
)
from dataengine.sources.lerobot_meta import LeRobotMeta, episode_number
from dataengine.sources.lerobot_pictures import PictureRows, content_digest, picture_stream
from dataengine.sources.lerobot_rig import check_depth, check_videos, derive_rig, fitted
from dataengine.sources.lerobot_rows import EpisodeRows, Piece, num_rows, readable
from dataengine.sources.metadata import MetadataTable
from dataengine.sources.video_probe import probe_video
from schemas.episodes import CameraSpec, CameraStream, Episode, VideoFile
from schemas.errors import EpisodeError
from schemas.records import sha256_of
from schemas.rigs import Rig, SourceKind

TASKS = "meta/tasks.jsonl"
_DESCRIPTION = "task_description"  # the annotation that GR00T takes as the instruction


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotV21:
    """A LeRobot v2.x dataset folder."""

    root: Path
    rig: Rig
    meta: LeRobotMeta
    table: MetadataTable
    kind: SourceKind = "lerobot_v21"

    @classmethod
    def open(cls, root: Path, rig: Rig | None) -> "LeRobotV21":
        """Read the metadata; without a rig, derive one from it (end effectors stay unknown)."""
        meta = LeRobotMeta.read(root)
        stored = meta.stored()
        rig = rig or derive_rig("lerobot_v21", meta.info, stored, meta.modality)
        table = MetadataTable.of(rig, root, {name: _aliases(meta, name) for name in meta.names()})
        rig = fitted(rig, meta.info, stored, meta.modality)
        check_depth(rig, meta.info)
        indices = [episode_number(name) for name in meta.names()]
        keys = meta.info.keys("video")
        check_videos(rig, {key: (meta.video_path(index, key) for index in indices) for key in keys}, root)
        return cls(root=root, rig=rig, meta=meta, table=table)

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order."""
        return self.meta.names()

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of each episode's parquet and videos and of the metadata, and its row of the CSV."""
        files = ("info.json", "episodes.jsonl", "tasks.jsonl", "modality.json")
        shared = [self.root / "meta" / name for name in files]
        return {
            name: files_stamp(
                [*shared, self.meta.parquet_path(name), *self._videos(name)],
                self.table.row(name),
            )
            for name in self.names()
        }

    def fingerprint(self) -> str:
        """Identity of metadata, parquet and video files."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return folder_fingerprint(
            self.root,
            whole=[path for path in files if path.suffix in (".parquet", ".json", ".jsonl", ".csv")],
            pixels=[path for path in files if path.suffix in (".mp4", ".png", ".jpg")],
        )

    def read(self, name: str) -> Episode:
        """One episode. Raises EpisodeError for a missing or short video, or a bad column."""
        rows = self._rows(name)
        annotations = self.meta.modality.annotation_columns()
        texts = text_columns(self.meta.info, rows.schema())
        table, columns = read_numbers(name, rows, self.rig, [*annotations, *texts])
        cameras = {ours: self._camera(name, ours, rows) for ours in self.rig.cameras}
        tasks = self._tasks(table, name)
        imported = imported_texts(table, texts)
        for column in annotations:
            if column in table.column_names:
                imported[column] = texts_by_number(table, name, column, self.meta.tasks, TASKS)
        if len(tasks) > 1:
            imported["task"] = tasks
        stamps = recorded_stamps(table, name, self.rig.rate_hz)
        videos = [hash_files([path]) for path in self._videos(name) if path.is_file()]
        numbers = content_digest(rows, self.root, self.meta.info, tuple(annotations), stamps)
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(STEM, sha256_of([numbers, *videos])),
                raw_name=name,
                raw_task=tasks[0] if tasks else None,
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=cameras,
            stamps_ns=stamps,
            imported=imported,
        )

    def _videos(self, name: str) -> list[Path]:
        """The mp4 of every camera that is declared, in the rig or not, so that the id does not depend on the rig."""
        return [self.meta.video_path(episode_number(name), key) for key in self.meta.info.keys("video")]

    def _rows(self, name: str) -> EpisodeRows:
        path, index = self.meta.parquet_path(name), episode_number(name)
        label = f"{name}: {path.relative_to(self.root)}"
        if index in self.meta.unlisted:
            raise EpisodeError(
                f"{label} is there, but meta/episodes.jsonl does not list it. Add it there or remove it."
            )
        with readable(label):
            num = num_rows(path)
        if num != self.meta.lengths[index]:
            raise EpisodeError(
                f"{name}: {num} rows, but meta/episodes.jsonl says {self.meta.lengths[index]}. "
                f"Copy the parquet again or correct the metadata."
            )
        return EpisodeRows(label=label, pieces=(Piece(path=path, first=0, num=num),))

    def _camera(self, name: str, camera: str, rows: EpisodeRows) -> CameraStream:
        stated = self.rig.cameras[camera]
        if self.meta.info.features[stated.key].dtype == "video":
            return self._video(name, camera)
        if stated.key not in rows.schema().names:
            raise EpisodeError(f"{rows.label} has no column {stated.key}. Drop the episode or the camera.")
        return picture_stream(PictureRows(rows=rows, key=stated.key, root=self.root), camera, stated)

    def _video(self, name: str, camera: str) -> VideoFile:
        stated, index = self.rig.cameras[camera], episode_number(name)
        path = self.meta.video_path(index, stated.key)
        relative = path.relative_to(self.root).as_posix()
        if not path.is_file():
            raise EpisodeError(f"{name}: video {relative} is missing. Copy it or drop the episode.")
        probe = probe_video(path, f"{name}: video {relative}")
        feature = self.meta.info.features[stated.key]
        if feature.size is None or sorted(feature.size) != sorted((probe.height, probe.width)):
            raise EpisodeError(
                f"{name}: video {relative} is {probe.width}x{probe.height}, but info.json says shape "
                f"{list(feature.shape)}. Correct info.json or drop the episode."
            )
        spec = CameraSpec(
            name=camera,
            height=probe.height,
            width=probe.width,
            encoding=probe.codec,
            channel_order="rgb",
            orientation=stated.orientation,
            depth_unit_m=stated.depth_unit_m,
        )
        return VideoFile(spec=spec, path=path, num_frames=probe.num_frames)

    def _tasks(self, table: pa.Table, name: str) -> tuple[str, ...]:
        """The instruction of each row where they differ, else the one of all; of episodes.jsonl where rows say none."""
        if "task_index" in table.column_names:
            return texts_by_number(table, name, "task_index", self.meta.tasks, TASKS)
        described = [column for column in self.meta.modality.annotation_columns() if column.endswith(_DESCRIPTION)]
        if described and described[0] in table.column_names:
            return texts_by_number(table, name, described[0], self.meta.tasks, TASKS)
        stated = self.meta.episode_tasks.get(episode_number(name), ())
        if len(stated) > 1:
            raise EpisodeError(
                f"{name}: {len(stated)} instructions in meta/episodes.jsonl and no column task_index that says which "
                f"holds when. Add the column, or keep one instruction."
            )
        return stated or (tuple(self.meta.tasks.values()) if len(self.meta.tasks) == 1 else ())


def _aliases(meta: LeRobotMeta, name: str) -> tuple[str, ...]:
    """What a CSV may call an episode."""
    parquet = meta.parquet_path(name)
    return name, parquet.relative_to(meta.root).as_posix(), parquet.name, str(episode_number(name))
