"""Survey of LeRobot v2.0 and v2.1 datasets."""

from collections.abc import Sequence

from dataengine.inspected import Inspection
from dataengine.sources.detection import Found
from dataengine.sources.lerobot_meta import LeRobotMeta, episode_number
from dataengine.sources.lerobot_rows import EpisodeRows, Piece, num_rows, readable
from dataengine.sources.video_probe import VideoProbe, probe_video
from dataengine.surveys.lerobot import Surveyed
from dataengine.surveys.words import some


def survey(found: Found, folder: str) -> Inspection:
    """What the metadata and the first readable episode say; `folder` lies below the one that was named."""
    meta = LeRobotMeta.read(found.root)
    names, videos = meta.names(), meta.info.keys("video")
    filmed = [name for name in names if all(meta.video_path(episode_number(name), key).is_file() for key in videos)]
    stored = [name for name in names if meta.parquet_path(name).is_file()]

    def rows(name: str) -> EpisodeRows:
        path = meta.parquet_path(name)
        label = f"{name}: {path.relative_to(meta.root).as_posix()}"
        with readable(label):
            return EpisodeRows(label=label, pieces=(Piece(path=path, first=0, num=num_rows(path)),))

    def probe(name: str, key: str) -> VideoProbe:
        return probe_video(meta.video_path(episode_number(name), key), f"{name}: its video of {key}")

    return Surveyed(
        kind=found.kind,
        folder=folder,
        root=found.root,
        info=meta.info,
        modality=meta.modality,
        names=stored or names,
        num_rows=sum(meta.lengths.values()),
        tasks=tuple(meta.tasks.values()),
        has_task=bool(meta.tasks),
        rows=rows,
        probe=probe,
        filmed=filmed if videos else names,
        notes=(*meta.notes, *_alias_notes(meta, names), *_lacking_notes(names, filmed, stored)),
    ).inspection()


def _alias_notes(meta: LeRobotMeta, names: Sequence[str]) -> list[str]:
    """Cameras whose folder has another name than meta/info.json gives."""
    notes = []
    for key in meta.info.keys("video"):
        for name in names:
            index = episode_number(name)
            found, said = meta.video_path(index, key), meta.said_video_path(index, key)
            if found != said:
                here, there = (path.parent.relative_to(meta.root).as_posix() for path in (found, said))
                notes.append(f"videos of {key} are read from {here}, not from {there} as meta/info.json says")
                break
    return notes


def _lacking_notes(names: Sequence[str], filmed: Sequence[str], stored: Sequence[str]) -> list[str]:
    notes = []
    for what, present in (("video", filmed), ("parquet", stored)):
        lacking = [name for name in names if name not in set(present)]
        if lacking:
            notes.append(f"{len(lacking)} of {len(names)} episodes lack their {what}: {some(lacking)}")
    return notes
