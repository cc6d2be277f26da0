"""Survey of LeRobot v1.x datasets."""

from dataengine.inspected import Inspection
from dataengine.sources.detection import Found
from dataengine.sources.lerobot_columns import text_columns
from dataengine.sources.lerobot_info import Modality
from dataengine.sources.lerobot_rows import EpisodeRows
from dataengine.sources.lerobot_v1 import INSTRUCTION, episode_number
from dataengine.sources.lerobot_v1_meta import INFO, LeRobotV1Meta
from dataengine.sources.video_probe import VideoProbe, probe_video
from dataengine.surveys.lerobot import Surveyed
from dataengine.surveys.words import some
from schemas.errors import EpisodeError


def survey(found: Found, folder: str) -> Inspection:
    """What the columns and the first readable episode say; `folder` lies below the one that was named."""
    meta = LeRobotV1Meta.read(found.root)
    names = meta.names()
    filmed = [
        name
        for name in names
        if episode_number(name) in meta.pieces and all(path.is_file() for path in meta.paths_of(episode_number(name)))
    ]

    def rows(name: str) -> EpisodeRows:
        pieces = meta.pieces.get(episode_number(name), ())
        if not pieces:
            raise EpisodeError(f"{name}: the data holds no row of it.")
        return EpisodeRows(label=f"{name}: {pieces[0].path.relative_to(meta.root).as_posix()}", pieces=pieces)

    def probe(name: str, key: str) -> VideoProbe:
        file = meta.videos[episode_number(name), key][0]
        path = meta.video_path(file)
        if path is None:
            raise EpisodeError(f"{name}: its rows name {file}, which is not in the dataset's folder.")
        return probe_video(path, f"{name}: video {file}")

    has_instruction = INSTRUCTION in meta.schema.names
    return Surveyed(
        kind=found.kind,
        folder=folder,
        root=found.root,
        info=meta.info,
        modality=Modality(),
        names=names,
        num_rows=meta.num_rows,
        tasks=(),
        has_task=has_instruction,
        rows=rows,
        probe=probe,
        filmed=filmed,
        notes=_notes(meta, names, filmed),
    ).inspection()


def _notes(meta: LeRobotV1Meta, names: list[str], filmed: list[str]) -> list[str]:
    notes = []
    if not meta.has_rate:
        rate = f"even at {meta.info.fps:g} Hz, which is taken" if meta.info.fps else "uneven: a rig must say rate_hz"
        notes.append(f"{INFO} is missing; the timestamps are {rate}")
    absent = [name for name in names if episode_number(name) not in meta.pieces]
    if absent:
        notes.append(f"the index lists {len(names)} episodes, the data holds {len(names) - len(absent)} of them")
    bare = [name for name in names if name not in set(absent) and name not in set(filmed)]
    if bare:
        notes.append(f"{len(bare)} of {len(names)} episodes lack their video: {some(bare)}")
    if INSTRUCTION not in meta.schema.names:
        notes.append("no instruction is stored: a rig must say task")
    notes += [f"{key} is text, kept as an imported annotation" for key in text_columns(meta.info, meta.schema)]
    return notes
