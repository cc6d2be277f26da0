"""Survey of LeRobot v2.0 and v2.1 datasets."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.lerobot_meta import LeRobotMeta, episode_number
from dataengine.sources.lerobot_v21 import camera_name, low_dim_features
from dataengine.sources.parquet_columns import matrix_of
from dataengine.sources.video_probe import probe_video
from dataengine.surveys.words import broken_notes, draft_column, some
from dataengine.surveys.words import timing as spacing
from schemas.errors import EpisodeError


def survey(found: Found, folder: str) -> Inspection:
    """What the metadata and the first readable episode say; `folder` lies below the one that was named."""
    meta = LeRobotMeta.read(found.root)
    info, names = meta.info, meta.names()
    videos = meta.keys("video")
    filmed = [name for name in names if all(meta.video_path(episode_number(name), key).is_file() for key in videos)]
    stored = [name for name in names if meta.parquet_path(name).is_file()]
    columns, timing, broken = _first_table(meta, stored)
    cameras = [_lerobot_camera(meta, key, filmed, broken) for key in videos]
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=len(names),
        num_rows=sum(meta.lengths.values()),
        rows=tuple(
            InspectedKey(key=key, shape=feature.shape, dtype=feature.dtype) for key, feature in info.features.items()
        ),
        cameras=tuple(cameras),
        rate_hz=info.fps,
        timing=timing,
        tasks=tuple(meta.tasks.values()),
        notes=(*_lerobot_notes(meta, names, filmed, stored), *broken_notes(broken)),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=info.robot_type,
            rate_hz=meta.whole_rate_hz,
            columns=columns,
            cameras=[DraftCamera(name=camera_name(key), key=key, channel_order="rgb") for key in videos],
            task_key=None,
            has_task=bool(meta.tasks),
        ),
    )


def _first_table(meta: LeRobotMeta, stored: Sequence[str]) -> tuple[list[DraftColumn], str, dict[str, str]]:
    """Ranges and timing of the first episode whose parquet can be read; and the ones before it that can not: why."""
    broken: dict[str, str] = {}
    for name in stored:
        path = meta.parquet_path(name)
        try:
            table = pq.read_table(path, partitioning=None)
            columns = [
                draft_column(key, matrix_of(table, name, key), name=key, labels=feature.labels())
                for key, feature in low_dim_features(meta.info)
            ]
        except (pa.ArrowException, OSError):
            broken[name] = f"{path.relative_to(meta.root).as_posix()} is no readable parquet"
        except EpisodeError as error:
            broken[name] = str(error)
        else:
            stamped = "timestamp" in table.column_names and table.num_rows
            return columns, spacing(name, table["timestamp"].to_numpy()) if stamped else "no stamps stored", broken
    return [], "no stamps stored", broken


def _lerobot_notes(meta: LeRobotMeta, names: list[str], filmed: list[str], stored: list[str]) -> list[str]:
    notes = ["which numbers are grippers or hands is not stored"]
    if meta.whole_rate_hz is None:
        notes.append(f"{meta.info.fps:g} Hz is no whole rate: resample before converting")
    notes += [f"{key} is stored as images inside parquet, which is not read" for key in meta.keys("image")]
    for what, present in (("video", filmed), ("parquet", stored)):
        lacking = [name for name in names if name not in set(present)]
        if lacking:
            notes.append(f"{len(lacking)} of {len(names)} episodes lack their {what}: {some(lacking)}")
    return notes


def _lerobot_camera(meta: LeRobotMeta, key: str, filmed: Sequence[str], broken: dict[str, str]) -> InspectedCamera:
    """As the first readable video says; as info.json says where there is none. Others are added to `broken`."""
    for name in filmed:
        try:
            probe = probe_video(meta.video_path(episode_number(name), key), f"its video of {key}")
        except EpisodeError as error:
            broken[name] = str(error)
        else:
            return InspectedCamera(key=key, height=probe.height, width=probe.width, encoding=probe.codec)
    height, width = meta.info.features[key].shape[:2]
    encoding = "unknown: no video can be read" if filmed else "unknown: no video present"
    return InspectedCamera(key=key, height=height, width=width, encoding=encoding)
