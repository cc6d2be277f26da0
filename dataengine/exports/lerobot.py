"""LeRobot: a new dataset whose data files hold the released words as language columns.

Every video shard and all of meta/ but info.json are linked; data files are written again, row group by row group, with
two more columns. Nothing is encoded, no number changes, the old version stays as it is.

segment -> persistent `subtask`; its moves -> persistent `motion`; trace -> an assistant turn without a style on the
first frame of its span; notes about a scene -> persistent `plan`, other wordings of the task as `task_aug`, and one
`vqa` pair at the picture that its questions are about, in one turn: LeRobot takes one a frame and camera. LeRobot knows
when a persistent row begins and not when it ends: it holds until the next one
of its style. Where a row ends earlier, one without content follows it, or else "forward" would be said of an arm that
rests.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataengine.artifacts import Draft, begin, write_atomic
from dataengine.exports.report import ExportReport
from dataengine.exports.spoken import Pair, Spoken, unknown_fields
from dataengine.sinks.language_columns import (
    FEATURE,
    LANGUAGE,
    LanguageRow,
    exported_fingerprint,
    language_arrays,
    language_digest,
    language_names,
    word_leaves,
)
from dataengine.sinks.parts import link_or_copy
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, UsageError
from schemas.records import Record, RejectedRow
from schemas.refs import Ref

MAPPING = 2  # version of what becomes what; part of the recipe
_APART_S = 0.2  # LeRobot's emitted_at looks 0.1 s to both sides, and raises where it finds two rows of one style
_COUNTS = ("subtask", "motion", "plan", "task_aug", "vqa", "assistant", "open_ended")
_OF_SCENES = ("plan", "task_aug", "vqa")  # said where there are any
_COUNTED = {name: name for name in _COUNTS[:-2]} | {"assistant": None}  # count -> style


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The rows of both columns of one episode."""

    persistent: tuple[LanguageRow, ...]
    events: dict[int, list[LanguageRow]]  # by frame
    open_ended: int  # persistent rows without an end: LeRobot takes them for true until the next one

    def count(self, style: str | None) -> int:
        """Rows of one style that say something; of None those of the assistant's turns."""
        rows = [*self.persistent, *(row for each in self.events.values() for row in each)]
        return sum(row["style"] == style and row["content"] is not None for row in rows)


def export_lerobot(
    *,
    annotations: Ref,
    to: Ref,
    workspace: Workspace,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Make `episodes/to` from a release and its episodes.

    The same words again find it "already there". Raises RefError or ArtifactError where one of them is missing or does
    not fit, ArtifactError where `to` was made differently, UsageError where the episodes hold language columns already.
    """
    pair = Pair.open(workspace, annotations)
    episodes = pair.episodes
    if language_names(episodes.path):
        raise UsageError(f"episodes '{episodes.ref}' hold language columns already. Export what they were made from.")
    recipe = {**episodes.record.recipe, "language": {"mapping": MAPPING}}
    draft = begin(workspace, "episodes", to, recipe=recipe, inputs=pair.inputs())
    if isinstance(draft, Record):
        return _report(draft, already_there=True)
    with draft:
        return _report(_write(draft, pair, on_progress), already_there=False)


def language_of(spoken: Spoken, rate_hz: int) -> Language:
    """What LeRobot's columns say about one episode; stamps are those of its `timestamp` column, bit for bit."""
    subtasks = [_Span(said.first, said.stop, said.row.text) for said in spoken.segments]
    motions = [_Span(said.first, said.stop, ", ".join(said.moves)) for said in spoken.segments if said.moves]
    events: dict[int, list[LanguageRow]] = {}
    for said in spoken.traces:
        events.setdefault(said.first, []).append(_row(None, said.row.text))
    for asked in spoken.questions():
        camera = f"observation.images.{asked.camera}"
        words = [" ".join(each) for each in zip(*((pair.question, pair.answer) for pair in asked.pairs), strict=True)]
        pair = [
            {"role": role, "content": content, "style": "vqa", "camera": camera}
            for role, content in zip(("user", "assistant"), words, strict=True)
        ]
        events.setdefault(asked.frame, []).extend(pair)
    plans = [_Span(said.first, said.stop, text) for said in spoken.scenes if (text := said.notes.plan_text())]
    wordings = [(said.first, words) for said in spoken.scenes for words in said.notes.paraphrases]
    rows = [(frame, {**_row("task_aug", words), "role": "user"}) for frame, words in wordings]
    open_ended = 0
    for style, spans in (("subtask", subtasks), ("motion", motions), ("plan", plans)):
        begun, left_open = _begun(spans, spoken.episode.num_frames, rate_hz)
        rows += [(frame, _row(style, content)) for frame, content in begun]
        open_ended += left_open
    rows.sort(key=lambda each: each[0])  # stable: a subtask before its motion
    stamped = [{**row, "timestamp": float(np.float32(frame / rate_hz))} for frame, row in rows]
    return Language(persistent=tuple(stamped), events=events, open_ended=open_ended)


def _row(style: str | None, content: str | None) -> LanguageRow:
    return {"role": "assistant", "content": content, "style": style, "camera": None}


class _Span(NamedTuple):
    """Words about the frames [first, stop)."""

    first: int
    stop: int
    content: str


def _begun(spans: Sequence[_Span], num_frames: int, rate_hz: int) -> tuple[list[tuple[int, str | None]], int]:
    """(frame, content) of each row of one style, None where a span ends and none begins; and how many have no end.

    A span gets no end where that would stand too near another row of its style for LeRobot to tell them apart.
    """
    rows: list[tuple[int, str | None]] = []
    open_ended = 0
    for number, span in enumerate(spans):
        rows.append((span.first, span.content))
        following = spans[number + 1].first if number + 1 < len(spans) else None
        if span.stop == (num_frames if following is None else following):
            continue
        gaps = [span.stop - span.first, *([following - span.stop] if following is not None else [])]
        if min(gaps) > _APART_S * rate_hz:
            rows.append((span.stop, None))
        else:
            open_ended += 1
    return rows, open_ended


def _write(draft: Draft, pair: Pair, on_progress: Callable[[int, int], None] | None) -> Record:
    source = pair.episodes.path
    for name in ("data", "meta", "videos"):  # what a killed export left is written anew
        shutil.rmtree(draft.path / name, ignore_errors=True)
    data = sorted(row.path for row in pair.episodes.record.files if row.path.startswith("data/"))
    for row in pair.episodes.record.files:
        if row.path not in (*data, "meta/info.json"):
            _link(source, row.path, draft.path, pair)
    counts = dict.fromkeys(_COUNTS, 0)
    left_out: list[RejectedRow] = list(unknown_fields(pair.annotations))
    silent: list[str] = []
    num_done = 0
    ids = iter(pair.episodes.ids())  # data files hold the episodes in dataset order, one row group each
    for name in data:
        target = draft.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(source / name, pair) as file:
            several = [pair.of(next(ids)) for _ in range(file.num_row_groups)]
            _write_file(file, target, several, pair.episodes.rate_hz, counts)
        num_done += len(several)
        if on_progress is not None:
            on_progress(num_done, len(pair.episodes.ids()))
        left_out += [row for spoken in several for row in (*spoken.left_out, *spoken.cut_off())]
        silent += [spoken.episode.episode_id for spoken in several if spoken.is_silent]
    write_atomic(draft.path / "meta" / "info.json", _info(pair).encode())
    digest = language_digest(draft.path)
    base = pair.episodes.record
    return draft.publish(
        fingerprint=exported_fingerprint(base.fingerprint, digest),
        counts={**base.counts, **counts, "episodes_without_words": len(silent)},
        rejected=base.rejected,
        notes={"without_words": silent, "left_out": [row.model_dump() for row in left_out]},
    )


def _link(source: Path, name: str, target: Path, pair: Pair) -> None:
    try:
        link_or_copy(source / name, target / name)
    except FileNotFoundError:
        raise _damaged(name, pair, "is missing") from None


def _opened(path: Path, pair: Pair) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowInvalid) as error:
        raise _damaged(path.name, pair, f"can not be read ({error})") from None


def _damaged(name: str, pair: Pair, fault: str) -> ArtifactError:
    return ArtifactError(f"episodes '{pair.episodes.ref}': {name} {fault}. Pull or convert them again.")


def _write_file(
    file: pq.ParquetFile, target: Path, several: Sequence[Spoken], rate_hz: int, counts: dict[str, int]
) -> None:
    """One data file again, its row groups as they are and two columns more; adds to `counts`."""
    writer: pq.ParquetWriter | None = None
    try:
        for group, spoken in enumerate(several):
            table, language = file.read_row_group(group), language_of(spoken, rate_hz)
            for name, column in language_arrays(language.persistent, language.events, len(table)).items():
                table = table.append_column(name, column)
            if writer is None:
                dictionary = ["episode_index", "task_index", *word_leaves()]
                writer = pq.ParquetWriter(target, table.schema, compression="snappy", use_dictionary=dictionary)
            writer.write_table(table, row_group_size=max(1, len(table)))
            for name, style in _COUNTED.items():
                counts[name] += language.count(style)
            counts["open_ended"] += language.open_ended
    finally:
        if writer is not None:
            writer.close()


def _info(pair: Pair) -> str:
    info: dict[str, Any] = dict(pair.episodes.info)
    info["features"] = {**info["features"], **dict.fromkeys(LANGUAGE, FEATURE)}
    return json.dumps(info, indent=4, ensure_ascii=False)


def _report(record: Record, *, already_there: bool) -> ExportReport:
    notes: Any = record.notes
    names = ["episodes", *(name for name in _COUNTS if name not in _OF_SCENES or record.counts.get(name))]
    return ExportReport(
        form="lerobot",
        where=f"{record.name}@{record.version}",
        already_there=already_there,
        fingerprint=record.fingerprint,
        counts={name: int(record.counts[name]) for name in names},
        without_words=tuple(notes["without_words"]),
        left_out=tuple(RejectedRow.model_validate(row) for row in notes["left_out"]),
    )
