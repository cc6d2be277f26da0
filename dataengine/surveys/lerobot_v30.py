"""Survey of LeRobot v3.0 datasets."""

from collections.abc import Sequence

from dataengine.inspected import Inspection
from dataengine.sources.detection import Found
from dataengine.sources.lerobot_rows import EpisodeRows, find_episode
from dataengine.sources.lerobot_v30 import episode_number
from dataengine.sources.lerobot_v30_meta import LeRobotV30Meta
from dataengine.sources.video_probe import VideoProbe, probe_head
from dataengine.surveys.lerobot import Surveyed
from dataengine.surveys.words import some
from schemas.errors import EpisodeError


def survey(found: Found, folder: str) -> Inspection:
    """What the metadata and the first readable episode say; `folder` lies below the one that was named."""
    meta = LeRobotV30Meta.read(found.root)
    names, listed = meta.names(), [f"episode_{index:06d}" for index in sorted(meta.episodes)]
    videos = meta.info.keys("video")
    filmed = [name for name in listed if _is_filmed(meta, name)]

    def rows(name: str) -> EpisodeRows:
        path = meta.episodes[episode_number(name)].data
        label = f"{name}: {path.relative_to(meta.root).as_posix()}"
        piece = find_episode(path, episode_number(name), label)
        if piece is None:
            raise EpisodeError(f"{label} holds no row of it.")
        return EpisodeRows(label=label, pieces=(piece,))

    def probe(name: str, key: str) -> VideoProbe:
        place = meta.episodes[episode_number(name)]
        head = probe_head(place.videos[key].path, f"{name}: its video of {key}")
        return VideoProbe(codec=head.codec, height=head.height, width=head.width, num_frames=place.length)

    tasks = tuple(
        dict.fromkeys([*meta.tasks.values(), *(task for row in meta.episodes.values() for task in row.tasks)])
    )
    return Surveyed(
        kind=found.kind,
        folder=folder,
        root=found.root,
        info=meta.info,
        modality=meta.modality,
        names=listed,
        num_rows=sum(place.length for place in meta.episodes.values()),
        tasks=tasks,
        has_task=bool(tasks),
        rows=rows,
        probe=probe,
        filmed=filmed if videos else names,
        notes=(*meta.notes, *_lacking(listed, filmed, "video"), *_text_notes(meta)),
    ).inspection()


def _is_filmed(meta: LeRobotV30Meta, name: str) -> bool:
    said = meta.episodes[episode_number(name)].videos
    return all(key in said and said[key].path.is_file() for key in meta.info.keys("video"))


def _lacking(names: Sequence[str], present: Sequence[str], what: str) -> list[str]:
    lacking = [name for name in names if name not in set(present)]
    return [f"{len(lacking)} of {len(names)} episodes lack their {what}: {some(lacking)}"] if lacking else []


def _text_notes(meta: LeRobotV30Meta) -> list[str]:
    if meta.subtasks:
        return [f"{len(meta.subtasks)} subtasks in meta/subtasks.parquet, kept as an imported annotation"]
    return []
