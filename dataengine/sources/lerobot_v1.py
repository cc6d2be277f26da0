"""LeRobot v1.x datasets: the rows of all episodes in arrow or parquet files, one mp4 per camera and episode.

A camera's column names a file and a time in it for each row: the file is handed on where those are its pictures in
order, whole or one stretch of it. Pictures inside the rows are handed on as stored.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataengine.sources.content import STEM, episode_id, files_stamp, folder_fingerprint, hash_files
from dataengine.sources.lerobot_columns import imported_texts, read_numbers, recorded_stamps, text_columns
from dataengine.sources.lerobot_info import Modality
from dataengine.sources.lerobot_pictures import PictureRows, content_digest, picture_stream
from dataengine.sources.lerobot_rig import derive_rig, fitted
from dataengine.sources.lerobot_rows import EpisodeRows
from dataengine.sources.lerobot_v1_meta import INFO, LeRobotV1Meta
from dataengine.sources.metadata import MetadataTable
from dataengine.sources.video_probe import probe_video
from schemas.episodes import CameraSpec, CameraStream, Episode, VideoFile
from schemas.errors import EpisodeError, RigError
from schemas.records import sha256_of
from schemas.rigs import Rig, SourceKind

INSTRUCTION = "language_instruction"  # text column of datasets that were made from Open X-Embodiment
_OFF_GRID = 0.25  # frames that a row's time may be off its picture


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotV1:
    """A LeRobot v1.x dataset folder."""

    root: Path
    rig: Rig
    meta: LeRobotV1Meta
    table: MetadataTable
    kind: SourceKind = "lerobot_v1"

    @classmethod
    def open(cls, root: Path, rig: Rig | None) -> "LeRobotV1":
        """Read row numbers and metadata; without a rig, derive one where the rows hold an instruction.

        Raises RigError where no rig says what this format does not store.
        """
        meta = LeRobotV1Meta.read(root)
        if rig is None and INSTRUCTION not in meta.schema.names:
            raise RigError(
                "LeRobot v1 stores no instruction. Pass a rig with task: in it, started from the draft of "
                "`dataengine inspect`."
            )
        if not meta.info.fps:
            if rig is None:
                raise RigError(f"{INFO} is missing and the timestamps are uneven. Pass a rig that states rate_hz.")
            meta = meta.at_rate(rig.rate_hz)
        rig = rig or derive_rig("lerobot_v1", meta.info, meta.stored(), Modality())
        table = MetadataTable.of(rig, root, {name: (name, str(episode_number(name))) for name in meta.names()})
        return cls(root=root, rig=fitted(rig, meta.info, meta.stored(), Modality()), meta=meta, table=table)

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order."""
        return self.meta.names()

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of the data files, videos and metadata of each episode, and its row of the CSV."""
        shared = [self.root / INFO, self.root / "meta_data/episode_data_index.safetensors"]
        found = {}
        for name in self.names():
            index = episode_number(name)
            data = [piece.path for piece in self.meta.pieces.get(index, ())]
            found[name] = files_stamp([*shared, *data, *self.meta.paths_of(index)], self.table.row(name))
        return found

    def fingerprint(self) -> str:
        """Identity of metadata, data and video files."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        whole = (".arrow", ".parquet", ".json", ".safetensors", ".csv")
        return folder_fingerprint(
            self.root,
            whole=[path for path in files if path.suffix in whole],
            pixels=[path for path in files if path.suffix in (".mp4", ".png", ".jpg")],
        )

    def read(self, name: str) -> Episode:
        """One episode. Raises EpisodeError for rows that are absent, or a video that is not theirs."""
        rows = self._rows(name)
        index = episode_number(name)
        texts = text_columns(self.meta.info, rows.schema())
        table, columns = read_numbers(name, rows, self.rig, texts)
        imported = imported_texts(table, texts)
        task = imported.get(self.rig.task_key or INSTRUCTION, ("",))
        if len(task) == 1:
            imported.pop(self.rig.task_key or INSTRUCTION, None)
        videos = [path for path in self.meta.paths_of(index) if path.is_file()]
        stamps = recorded_stamps(table, name, self.rig.rate_hz)
        numbers = content_digest(rows, self.root, self.meta.info, self.meta.info.keys("video"), stamps)
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(STEM, sha256_of([numbers, *(hash_files([path]) for path in videos)])),
                raw_name=name,
                raw_task=task[0] or None,
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras={ours: self._camera(name, ours, rows) for ours in self.rig.cameras},
            stamps_ns=stamps,
            imported=imported,
        )

    def _rows(self, name: str) -> EpisodeRows:
        index = episode_number(name)
        pieces, stated = self.meta.pieces.get(index, ()), self.meta.stated.get(index)
        if not pieces:
            raise EpisodeError(
                f"{name}: the index says {stated} rows, but the data holds none of it "
                f"({self.meta.num_rows} rows of {len(self.meta.pieces)} episodes). Copy the data again or drop it."
            )
        if len({piece.path for piece in pieces}) < len(pieces):
            raise EpisodeError(f"{name}: rows of other episodes lie between its own. Sort the data.")
        rows = EpisodeRows(label=f"{name}: {pieces[0].path.relative_to(self.root).as_posix()}", pieces=pieces)
        if stated is not None and stated != len(rows):
            raise EpisodeError(
                f"{name}: {len(rows)} rows, but meta_data/episode_data_index.safetensors says {stated}. "
                f"Copy the data again or remove the index."
            )
        return rows

    def _camera(self, name: str, ours: str, rows: EpisodeRows) -> CameraStream:
        stated = self.rig.cameras[ours]
        if self.meta.info.features[stated.key].dtype == "image":
            return picture_stream(PictureRows(rows=rows, key=stated.key, root=self.root), ours, stated)
        files = self.meta.videos.get((episode_number(name), stated.key), ())
        if len(files) != 1:
            raise EpisodeError(f"{name}: its rows name {len(files)} files in {stated.key}, not one. Drop the episode.")
        path = self.meta.video_path(files[0])
        if path is None:
            raise EpisodeError(
                f"{name}: its rows name {files[0]}, which is not in the dataset's folder. Drop the episode."
            )
        if not path.is_file():
            raise EpisodeError(f"{name}: video {files[0]} is missing. Copy it or drop the episode.")
        probe = probe_video(path, f"{name}: video {files[0]}")
        first = self._first(name, rows, stated.key)
        spec = CameraSpec(
            name=ours,
            height=probe.height,
            width=probe.width,
            encoding=probe.codec,
            channel_order="rgb",
            orientation=stated.orientation,
            depth_unit_m=stated.depth_unit_m,
        )
        if first == 0 and probe.num_frames <= len(rows):  # fewer: the episode itself says so
            return VideoFile(spec=spec, path=path, num_frames=probe.num_frames)
        if first + len(rows) > probe.num_frames:
            raise EpisodeError(
                f"{name}: its rows take pictures {first} to {first + len(rows)} of {files[0]}, which has "
                f"{probe.num_frames}. Copy it again or drop the episode."
            )
        return VideoFile(spec=spec, path=path, num_frames=len(rows), first=first, whole=False)

    def _first(self, name: str, rows: EpisodeRows, key: str) -> int:
        """The picture that the first row takes; the others must follow one by one."""
        cells = rows.read([key])[key].to_pylist()
        seconds = np.asarray([cell["timestamp"] if cell else np.nan for cell in cells], np.float64)
        places = seconds * self.rig.rate_hz
        wrong = np.abs(places - (np.round(places[0]) + np.arange(len(places))))
        if not np.all(wrong < _OFF_GRID):
            row = int(np.argmax(~(wrong < _OFF_GRID)))
            raise EpisodeError(
                f"{name}: {key} takes the picture at {seconds[row]:.4f} s for row {row}, which does not follow the "
                f"one before at {self.rig.rate_hz} Hz. Drop the episode."
            )
        return round(float(places[0]))


def episode_number(name: str) -> int:
    """The index in a name that `names` gave."""
    return int(name.rsplit("_", 1)[1])
