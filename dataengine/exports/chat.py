"""Chat messages for trainers: `chat.jsonl`, one sample per released row, with its pictures as files in `frames/`.

A sample shows what the robot saw and what it was told, and says what was released: {"messages": [{"role", "content"}],
"images": [paths], ...}. Content is a list of {"type": "image", "image": path} and {"type": "text", "text": words}, as
chat templates of vision-language models take it. A trace stands at the first frame of its span, so that it cites
nothing the robot has not seen; a segment at its middle one, where it can be seen. Each question about a picture is a
sample of its own, with that picture alone, and not about the task: it is there for co-training.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from dataengine.annotation_set import ReleasedRow
from dataengine.exports.folder import FolderDraft, begin_folder
from dataengine.exports.frame_pictures import FramePictures, encoded_note
from dataengine.exports.report import ExportReport, Field
from dataengine.exports.spoken import Pair, Questions, Said, Spoken, unknown_fields
from dataengine.workspace import Workspace
from schemas.errors import UsageError, did_you_mean
from schemas.records import RejectedRow
from schemas.refs import Ref
from schemas.scenes import QuestionAnswer

FILE, FRAMES = "chat.jsonl", "frames"
_ASKED = {"trace": "", "segment": "\nWhat does the robot do now?"}  # after the instruction


def export_chat(
    *,
    annotations: Ref,
    out: Path,
    workspace: Workspace,
    fields: Sequence[Field | Literal["question"]] = ("trace", "segment", "question"),
    cameras: Sequence[str] = (),
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write one sample for every released row of `fields` into the folder `out`.

    Args:
        cameras: those whose pictures are shown, in this order; all in colour where none is named.

    Raises RefError or ArtifactError where the release or its episodes are missing or do not fit, UsageError for an
    unknown camera, where there is nothing to say, or where `out` holds something else.
    """
    pair = Pair.open(workspace, annotations)
    known = pair.episodes.cameras
    unknown = next((name for name in cameras if name not in known), None)
    if unknown is not None:
        raise UsageError(f"episodes '{pair.episodes.ref}' have no camera '{unknown}'. {did_you_mean(unknown, known)}")
    shown = tuple(dict.fromkeys(cameras)) or known
    options = {"cameras": list(shown), "fields": sorted(fields)}
    with begin_folder(out, form="chat", inputs=pair.inputs(), options=options) as begun:
        if isinstance(begun, ExportReport):
            return begun
        return _write(begun, pair, tuple(sorted(fields)), shown, on_progress)


def _write(
    draft: FolderDraft,
    pair: Pair,
    fields: Sequence[str],
    cameras: Sequence[str],
    on_progress: Callable[[int, int], None] | None,
) -> ExportReport:
    pictures = [FramePictures(episodes=pair.episodes, camera=name, plain=True) for name in cameras]
    silent: list[str] = []
    left_out: list[RejectedRow] = list(unknown_fields(pair.annotations))
    counts = {"episodes": 0, "samples": 0, "pictures": 0}
    num_episodes = len(pair.episodes.ids())
    with (draft.path / FILE).open("w", encoding="utf-8") as file:
        for number, spoken in enumerate(pair.each(), 1):
            left_out += spoken.left_out
            if "question" in fields:
                left_out += [*spoken.cut_off(), *_unshown(spoken, cameras)]
            samples = _write_episode(file, draft.path, spoken, fields, pictures, counts)
            counts["samples"] += samples
            counts["episodes"] += bool(samples)
            if not samples:
                silent.append(spoken.episode.episode_id)
            if on_progress is not None:
                on_progress(number, num_episodes)
    if not counts["samples"]:
        raise UsageError(
            f"annotations '{pair.annotations.ref}' hold no {' and no '.join(fields)} that covers a frame. Release more."
        )
    notes = encoded_note(pictures)
    return draft.publish(counts=counts, without_words=silent, left_out=left_out, notes=notes)


def _write_episode(
    file: TextIO,
    root: Path,
    spoken: Spoken,
    fields: Sequence[str],
    pictures: Sequence[FramePictures],
    counts: dict[str, int],
) -> int:
    """The samples of one episode, and the pictures that they show; returns how many samples."""
    samples = 0
    for frame, said in sorted(_placed(spoken, fields), key=lambda each: (each[0], each[1].row.index)):
        paths = [_picture(root, spoken, camera, frame, counts) for camera in pictures]
        for text in (said.row.text, *spoken.retellings(said)):
            file.write(json.dumps(_sample(spoken, said, frame, paths, text), ensure_ascii=False) + "\n")
            samples += 1
    for asked in spoken.questions() if "question" in fields else ():
        shown = next((camera for camera in pictures if camera.camera == asked.camera), None)
        if shown is None:
            continue  # said in `_unshown`
        path = _picture(root, spoken, shown, asked.frame, counts)
        for pair in asked.pairs:
            file.write(json.dumps(_answered(spoken, asked, pair, path), ensure_ascii=False) + "\n")
            samples += 1
    return samples


def _unshown(spoken: Spoken, cameras: Sequence[str]) -> list[RejectedRow]:
    """Questions about pictures of a camera that this export does not show."""
    return [
        RejectedRow(
            episode=spoken.episode.episode_id,
            reason=f"{len(asked.pairs)} questions about pictures of {asked.camera}, which is not shown",
        )
        for asked in spoken.questions()
        if asked.camera not in cameras
    ]


def _picture(root: Path, spoken: Spoken, camera: FramePictures, frame: int, counts: dict[str, int]) -> str:
    """The name of one picture, written if it is not there yet."""
    name = f"{FRAMES}/{spoken.episode.episode_id}/{camera.camera}/{frame:06d}.jpg"
    path = root / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(camera.jpeg(spoken.episode.episode_id, frame))
        counts["pictures"] += 1
    return name


def _placed(spoken: Spoken, fields: Sequence[str]) -> Iterator[tuple[int, Said]]:
    """Each row and the frame at which it is said."""
    for field in fields:
        if field == "question":
            continue
        for said in spoken.of_field(field):
            yield (said.first if field == "trace" else (said.first + said.stop) // 2), said


def _sample(spoken: Spoken, said: Said, frame: int, paths: Sequence[str], text: str) -> dict[str, Any]:
    asked = spoken.episode.task + _ASKED[said.row.field]
    return _line(spoken, said.row, said.row.field, frame, paths, asked, text)


def _answered(spoken: Spoken, asked: Questions, pair: QuestionAnswer, path: str) -> dict[str, Any]:
    return _line(spoken, asked.row, "question", asked.frame, [path], pair.question, pair.answer)


def _line(
    spoken: Spoken, row: ReleasedRow, field: str, frame: int, paths: Sequence[str], asked: str, text: str
) -> dict[str, Any]:
    shown: list[dict[str, str]] = [{"type": "image", "image": path} for path in paths]
    return {
        "messages": [
            {"role": "user", "content": [*shown, {"type": "text", "text": asked}]},
            {"role": "assistant", "content": [{"type": "text", "text": text}]},
        ],
        "images": list(paths),
        "episode_id": spoken.episode.episode_id,
        "frame": frame,
        "field": field,
        "basis": row.basis,
        "reviewer": row.reviewer,
        "proposal_id": row.proposal_id,
    }
