"""LeRobot v2.0 and v2.1 datasets: one parquet and one mp4 per camera for each episode, described by meta/info.json.

Videos are handed on as files; only their packets are counted here, nothing is decoded.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from dataengine.sources.columns import check_column
from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint, hash_files
from dataengine.sources.lerobot_meta import FeatureInfo, Info, LeRobotMeta, episode_number
from dataengine.sources.metadata import MetadataTable
from dataengine.sources.parquet_columns import matrix_of
from dataengine.sources.video_probe import probe_video
from schemas.episodes import CameraSpec, Episode, VideoFile
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Camera, Feature, Rig, SourceKind
from schemas.spans import NS_PER_S, frame_stamps_ns

IMAGE_PREFIX = "observation.images."
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_STAMP_TOLERANCE_NS = 1_000_000  # float32 seconds of a long episode are good to about this much


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
        rig = rig or derive_rig(meta)
        _check_rig(rig, meta)
        table = MetadataTable.of(rig, root, {name: _aliases(meta, name) for name in meta.names()})
        return cls(root=root, rig=_named(rig, meta.info), meta=meta, table=table)

    def names(self) -> list[str]:
        """`episode_000000` and so on, in order."""
        return self.meta.names()

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of each episode's parquet and videos and of the metadata, and its row of the CSV."""
        shared = [self.root / "meta" / name for name in ("info.json", "episodes.jsonl", "tasks.jsonl")]
        keys = [camera.key for camera in self.rig.cameras.values()]
        return {
            name: files_stamp(
                [
                    *shared,
                    self.meta.parquet_path(name),
                    *(self.meta.video_path(episode_number(name), key) for key in keys),
                ],
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
            pixels=[path for path in files if path.suffix == ".mp4"],
        )

    def read(self, name: str) -> Episode:
        """One episode. Raises EpisodeError for a missing or short video, or a bad column."""
        index = episode_number(name)
        parquet = self.meta.parquet_path(name)
        table = self._read_table(parquet, name, index)
        columns = {
            ours: check_column(name, ours, feature, matrix_of(table, name, feature.key))
            for ours, feature in self.rig.features.items()
        }
        videos = {ours: self._video(name, index, ours) for ours in self.rig.cameras}
        episode_tasks = self._tasks(table, name)
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(name, hash_files([parquet, *(video.path for video in videos.values())])),
                raw_name=name,
                raw_task=episode_tasks[0] if episode_tasks else None,
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=dict(videos),
            stamps_ns=self._stamps(table, name),
            imported={"task": tuple(episode_tasks)} if len(set(episode_tasks)) > 1 else {},
        )

    def _read_table(self, path: Path, name: str, index: int) -> pa.Table:
        try:
            table = pq.read_table(path, partitioning=None)
        except FileNotFoundError:
            raise EpisodeError(f"{name}: {path.relative_to(self.root)} is missing. Copy it again.") from None
        except (pa.ArrowInvalid, OSError):
            raise EpisodeError(
                f"{name}: {path.relative_to(self.root)} is no readable parquet. Copy it again."
            ) from None
        if table.num_rows != self.meta.lengths[index]:
            raise EpisodeError(
                f"{name}: {table.num_rows} rows, but meta/episodes.jsonl says {self.meta.lengths[index]}. "
                f"Copy the parquet again or correct the metadata."
            )
        if "frame_index" in table.column_names:
            frames = table["frame_index"].to_numpy()
            if not np.array_equal(frames, np.arange(table.num_rows)):
                raise EpisodeError(f"{name}: frame_index does not count 0..{table.num_rows - 1}. Sort or drop it.")
        return table

    def _video(self, name: str, index: int, camera: str) -> VideoFile:
        stated = self.rig.cameras[camera]
        path = self.meta.video_path(index, stated.key)
        relative = path.relative_to(self.root).as_posix()
        if not path.is_file():
            raise EpisodeError(f"{name}: video {relative} is missing. Copy it or drop the episode.")
        probe = probe_video(path, f"{name}: video {relative}")
        feature = self.meta.info.features[stated.key]
        if sorted(feature.shape)[-2:] != sorted((probe.height, probe.width)) or 3 not in feature.shape:
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
        )
        return VideoFile(spec=spec, path=path, num_frames=probe.num_frames)

    def _tasks(self, table: pa.Table, name: str) -> list[str]:
        """The instruction of each row where they differ, else the one of all."""
        if "task_index" not in table.column_names:
            return []
        indices = [int(value) for value in table["task_index"].to_pylist()]
        unknown = set(indices) - set(self.meta.tasks)
        if unknown:
            raise EpisodeError(f"{name}: task_index {min(unknown)} is not in meta/tasks.jsonl. Add it there.")
        return [self.meta.tasks[value] for value in (indices if len(set(indices)) > 1 else indices[:1])]

    def _stamps(self, table: pa.Table, name: str) -> dict[str, NDArray[np.int64]]:
        """Recorded times, where they say more than "every 1/fps"."""
        if "timestamp" not in table.column_names:
            return {}
        seconds = table["timestamp"].to_numpy().astype(np.float64)
        if not np.isfinite(seconds).all():
            raise EpisodeError(f"{name}: timestamp has a value that is no number. Repair or drop the episode.")
        stamps = np.round(seconds * NS_PER_S).astype(np.int64)
        even = frame_stamps_ns(len(stamps), self.rig.rate_hz)
        return {} if np.abs(stamps - even).max(initial=0) <= _STAMP_TOLERANCE_NS else {"timestamp": stamps}


def _aliases(meta: LeRobotMeta, name: str) -> tuple[str, ...]:
    """What a CSV may call an episode."""
    parquet = meta.parquet_path(name)
    return name, parquet.relative_to(meta.root).as_posix(), parquet.name, str(episode_number(name))


def derive_rig(meta: LeRobotMeta) -> Rig:
    """What info.json itself says, as a rig; which numbers are grippers it does not say."""
    info = meta.info
    try:
        return Rig(
            name=info.robot_type or "unknown",  # never the folder's name: the same data would have another identity
            source="lerobot_v21",
            robot_type=info.robot_type or "unknown",
            rate_hz=_whole_rate(meta),
            features={name: Feature(key=name, names=feature.labels()) for name, feature in low_dim_features(info)},
            cameras={camera_name(key): Camera(key=key, channel_order="rgb") for key in meta.keys("video")},
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise RigError(f"meta/info.json gives no usable rig ({reason}). Write one and pass --rig.") from None


def low_dim_features(info: Info) -> list[tuple[str, FeatureInfo]]:
    """Features that are numbers about the robot, not pictures, text or row numbers."""
    return [
        (name, feature)
        for name, feature in info.features.items()
        if feature.dtype not in ("video", "image", "string") and name not in _BOOKKEEPING
    ]


def camera_name(key: str) -> str:
    """Our short name of a camera key: "observation.images.cam_high" -> "cam_high"."""
    return key.removeprefix(IMAGE_PREFIX).removeprefix("observation.")


def _whole_rate(meta: LeRobotMeta) -> int:
    if meta.whole_rate_hz is None:
        raise RigError(
            f"meta/info.json says fps {meta.info.fps:g}; only whole rates can be kept. Resample the dataset first."
        )
    return meta.whole_rate_hz


def _check_rig(rig: Rig, meta: LeRobotMeta) -> None:
    info = meta.info
    if rig.rate_hz != _whole_rate(meta):
        raise RigError(
            f"rig '{rig.name}' says {rig.rate_hz} Hz, but meta/info.json says {info.fps:g}. "
            f"Correct rate_hz: in the rig."
        )
    images = meta.keys("image")
    if images:
        raise RigError(f"'{images[0]}' is stored as images inside parquet, which is not read; only mp4 videos are.")
    where = f"in rigs/{rig.name}.yaml"
    for ours, camera in rig.cameras.items():
        if camera.key not in info.features or info.features[camera.key].dtype != "video":
            has = ", ".join(meta.keys("video")) or "none"
            raise RigError(f"camera '{ours}' not in meta/info.json (has: {has}). Name it under cameras: {where}")
        if camera.channel_order == "bgr":
            raise RigError(f"camera '{ours}' is a video, whose codec says RGB, not bgr. Write rgb {where}")
    for ours, feature in rig.features.items():
        found = info.features.get(feature.key)
        if found is None:
            has = ", ".join(name for name, each in info.features.items() if each.dtype != "video")
            raise RigError(
                f"'{ours}' reads {feature.key}, not in meta/info.json (has: {has}). "
                f"Correct its key under features: {where}"
            )
        if feature.names and feature.columns is None and len(feature.names) != int(np.prod(found.shape)):
            raise RigError(
                f"'{ours}' has {int(np.prod(found.shape))} dimensions in meta/info.json, but the rig names "
                f"{len(feature.names)}. Correct names: under features: {where}"
            )
        labels = found.labels()
        if feature.names and labels and feature.columns is None and feature.names != labels:
            first = next(
                index for index, pair in enumerate(zip(feature.names, labels, strict=True)) if pair[0] != pair[1]
            )
            raise RigError(
                f"'{ours}' dimension {first} is '{labels[first]}' in meta/info.json, but the rig names "
                f"'{feature.names[first]}'. Correct names: under features: {where}"
            )


def _named(rig: Rig, info: Info) -> Rig:
    """The rig with dimension names from info.json where it gives none itself."""
    features = {
        ours: feature
        if feature.names or feature.columns is not None
        else feature.model_copy(update={"names": info.features[feature.key].labels()})
        for ours, feature in rig.features.items()
    }
    return rig.model_copy(update={"features": features})
