"""LeRobot v3.0 datasets: many episodes in each data and video file, told apart by meta/episodes.

Only the row groups and packets of one episode are read. Its pictures are handed on as a stretch of their shard, never
decoded here; pictures inside the parquet are handed on as stored.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dataengine.sinks.packets import PacketScan, scan_video
from dataengine.sources.content import STEM, episode_id, files_stamp, folder_fingerprint
from dataengine.sources.lerobot_columns import (
    imported_texts,
    read_numbers,
    recorded_stamps,
    text_columns,
    texts_by_number,
)
from dataengine.sources.lerobot_pictures import PictureRows, content_digest, picture_stream
from dataengine.sources.lerobot_rig import check_depth, check_videos, derive_rig, fitted
from dataengine.sources.lerobot_rows import EpisodeRows, find_episode
from dataengine.sources.lerobot_v30_meta import EpisodePlace, LeRobotV30Meta
from dataengine.sources.metadata import MetadataTable
from dataengine.sources.video_probe import probe_head
from schemas.episodes import CameraSpec, CameraStream, Episode, VideoFile
from schemas.errors import EpisodeError
from schemas.records import sha256_of
from schemas.rigs import Rig, SourceKind

_OFF_GRID = 0.25  # frames that a start may be off its picture: stored times are sums of rounded ones


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotV30:
    """A LeRobot v3.0 dataset folder."""

    root: Path
    rig: Rig
    meta: LeRobotV30Meta
    table: MetadataTable
    kind: SourceKind = "lerobot_v30"

    @classmethod
    def open(cls, root: Path, rig: Rig | None) -> "LeRobotV30":
        """Read the metadata; without a rig, derive one from it (end effectors stay unknown)."""
        meta = LeRobotV30Meta.read(root)
        stored = meta.stored()
        rig = rig or derive_rig("lerobot_v30", meta.info, stored, meta.modality)
        table = MetadataTable.of(rig, root, {name: (name, str(episode_number(name))) for name in meta.names()})
        rig = fitted(rig, meta.info, stored, meta.modality)
        check_depth(rig, meta.info)
        check_videos(rig, {key: meta.shards(key) for key in meta.info.keys("video")}, root)
        return cls(root=root, rig=rig, meta=meta, table=table)

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order."""
        return self.meta.names()

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of the files each episode shares with others and of the metadata, and its row of the CSV."""
        files = ("info.json", "tasks.parquet", "subtasks.parquet", "modality.json")
        shared = [self.root / "meta" / name for name in files]
        shared += sorted((self.root / "meta/episodes").glob("*/*.parquet"))
        common = files_stamp(shared, {})
        found = {}
        for name in self.names():
            place = self.meta.episodes.get(episode_number(name))
            own = [place.data, *(video.path for video in place.videos.values())] if place else []
            found[name] = files_stamp(own, {**self.table.row(name), " metadata": common})
        return found

    def fingerprint(self) -> str:
        """Identity of metadata, data and video files."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return folder_fingerprint(
            self.root,
            whole=[path for path in files if path.suffix in (".parquet", ".json", ".csv")],
            pixels=[path for path in files if path.suffix in (".mp4", ".png", ".jpg")],
        )

    def read(self, name: str) -> Episode:
        """One episode. Raises EpisodeError for rows or pictures that are not where meta/episodes says."""
        index = episode_number(name)
        place = self.meta.episodes.get(index)
        if place is None:
            path = self.meta.unlisted[index].relative_to(self.root)
            raise EpisodeError(
                f"{name}: {path} has rows of it, but meta/episodes does not list it. Add it there or remove the rows."
            )
        rows = self._rows(name, index, place)
        schema = rows.schema()
        texts = text_columns(self.meta.info, schema)
        annotations = self.meta.modality.annotation_columns()
        table, columns = read_numbers(name, rows, self.rig, [*annotations, *texts, "subtask_index"])
        tasks = self._tasks(table, name, place)
        scans = self._scans(name, place)
        packets = {key: scan.content for key, scan in scans.items() if isinstance(scan, PacketScan)}
        stamps = recorded_stamps(table, name, self.rig.rate_hz)
        numbers = content_digest(rows, self.root, self.meta.info, (*annotations, "subtask_index"), stamps)
        digest = sha256_of({"rows": numbers, "packets": packets})
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(STEM, digest),
                raw_name=name,
                raw_task=tasks[0] if tasks else None,
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras={ours: self._camera(name, ours, rows, place, scans) for ours in self.rig.cameras},
            stamps_ns=stamps,
            imported=self._imported(table, name, texts, annotations, tasks),
        )

    def _rows(self, name: str, index: int, place: EpisodePlace) -> EpisodeRows:
        relative = place.data.relative_to(self.root).as_posix()
        label = f"{name}: {relative}"
        piece = find_episode(place.data, index, label)
        if piece is None:
            raise EpisodeError(f"{label} holds no row of it. Copy the file again or drop the episode.")
        if piece.num != place.length:
            raise EpisodeError(
                f"{name}: {piece.num} rows in {relative}, but meta/episodes says {place.length}. "
                f"Copy the file again or correct the metadata."
            )
        return EpisodeRows(label=label, pieces=(piece,))

    def _tasks(self, table: pa.Table, name: str, place: EpisodePlace) -> tuple[str, ...]:
        """The instruction of each row where they differ, else the one of all; of meta/episodes where rows say none."""
        if "task_index" in table.column_names and self.meta.tasks:
            return texts_by_number(table, name, "task_index", self.meta.tasks, "meta/tasks.parquet")
        if len(place.tasks) > 1:
            raise EpisodeError(
                f"{name}: {len(place.tasks)} instructions in meta/episodes and no task_index or tasks.parquet that "
                f"says which holds when. Add them, or keep one instruction."
            )
        return place.tasks

    def _imported(
        self, table: pa.Table, name: str, texts: list[str], annotations: dict[str, str], tasks: tuple[str, ...]
    ) -> dict[str, tuple[str, ...]]:
        imported = imported_texts(table, texts)
        for column in annotations:
            if column in table.column_names:
                imported[column] = texts_by_number(table, name, column, self.meta.tasks, "meta/tasks.parquet")
        if "subtask_index" in table.column_names and self.meta.subtasks:
            imported["subtask"] = texts_by_number(
                table, name, "subtask_index", self.meta.subtasks, "meta/subtasks.parquet"
            )
        if len(tasks) > 1:
            imported["task"] = tasks
        return imported

    def _scans(self, name: str, place: EpisodePlace) -> dict[str, PacketScan | EpisodeError]:
        """The packets of every camera that is declared, in the rig or not: the id must not depend on the rig."""
        found: dict[str, PacketScan | EpisodeError] = {}
        for key in self.meta.info.keys("video"):
            said = place.videos.get(key)
            if said is None or not said.path.is_file():
                continue
            try:
                found[key] = scan_video(
                    said.path,
                    rate_hz=self.rig.rate_hz,
                    first=self._first(name, key, place),
                    num_frames=place.length,
                )
            except EpisodeError as error:
                text = str(error)
                found[key] = EpisodeError(text if text.startswith(name) else f"{name}: {text}")
        return found

    def _camera(
        self,
        name: str,
        ours: str,
        rows: EpisodeRows,
        place: EpisodePlace,
        scans: dict[str, PacketScan | EpisodeError],
    ) -> CameraStream:
        stated = self.rig.cameras[ours]
        if self.meta.info.features[stated.key].dtype == "video":
            return self._video(name, ours, place, scans)
        if stated.key not in rows.schema().names:
            raise EpisodeError(f"{rows.label} has no column {stated.key}. Drop the episode or the camera.")
        return picture_stream(PictureRows(rows=rows, key=stated.key, root=self.root), ours, stated)

    def _video(
        self, name: str, ours: str, place: EpisodePlace, scans: dict[str, PacketScan | EpisodeError]
    ) -> VideoFile:
        stated = self.rig.cameras[ours]
        said = place.videos.get(stated.key)
        if said is None:
            raise EpisodeError(f"{name}: meta/episodes does not say where its video of {stated.key} is. Repair it.")
        relative = said.path.relative_to(self.root).as_posix()
        if not said.path.is_file():
            raise EpisodeError(f"{name}: video {relative} is missing. Copy it or drop the episode.")
        scan = scans[stated.key]
        if isinstance(scan, EpisodeError):
            raise scan
        feature = self.meta.info.features[stated.key]
        if feature.size is None or sorted(feature.size) != sorted((scan.height, scan.width)):
            raise EpisodeError(
                f"{name}: video {relative} is {scan.width}x{scan.height}, but info.json says shape "
                f"{list(feature.shape)}. Correct info.json or drop the episode."
            )
        spec = CameraSpec(
            name=ours,
            height=scan.height,
            width=scan.width,
            encoding=scan.codec,
            channel_order="rgb",
            orientation=stated.orientation,
            depth_unit_m=stated.depth_unit_m,
        )
        first = self._first(name, stated.key, place)
        return VideoFile(spec=spec, path=said.path, num_frames=place.length, first=first, whole=False)

    def _first(self, name: str, key: str, place: EpisodePlace) -> int:
        """Pictures of the shard before the episode."""
        said, rate_hz = place.videos[key], self.rig.rate_hz
        label = f"{name}: video {said.path.relative_to(self.root).as_posix()}"
        start = (said.from_s - probe_head(said.path, label).start_s) * rate_hz
        if abs(start - round(start)) > _OFF_GRID or round(start) < 0:
            raise EpisodeError(
                f"{label}: meta/episodes says it starts at {said.from_s:.4f} s, where no picture lies at {rate_hz} Hz. "
                f"Repair meta/episodes or drop the episode."
            )
        num = (said.to_s - said.from_s) * rate_hz
        if abs(num - place.length) > 0.5:
            raise EpisodeError(
                f"{label}: meta/episodes gives it {num:.1f} pictures for {place.length} rows. "
                f"Repair meta/episodes or drop the episode."
            )
        return round(start)


def episode_number(name: str) -> int:
    """The index in a name that `names` gave."""
    return int(name.rsplit("_", 1)[1])
