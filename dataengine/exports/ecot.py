"""ECoT: one JSON file, {file path: {episode: {"metadata", "features", "reasoning": {step: fields}}}}.

The form is that of embodied-CoT (scripts/generate_embodied_data/full_reasonings.py), whose loader walks the steps that
"reasoning" holds. A field for which nothing was released is absent from a step, and a step without words is absent.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dataengine.exports.folder import begin_folder
from dataengine.exports.report import ExportReport
from dataengine.exports.spoken import Pair, Spoken, unknown_fields
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.records import RejectedRow
from schemas.refs import Ref

FILE = "reasonings.json"


def export_ecot(
    *,
    annotations: Ref,
    out: Path,
    workspace: Workspace,
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write what was released into the folder `out`.

    Raises RefError or ArtifactError where the release or its episodes are missing or do not fit, UsageError where there
    is nothing to say or `out` holds something else.
    """
    pair = Pair.open(workspace, annotations)
    with begin_folder(out, form="ecot", inputs=pair.inputs(), options={}) as begun:
        if isinstance(begun, ExportReport):
            return begun
        found: dict[str, dict[str, Any]] = {}
        silent: list[str] = []
        left_out: list[RejectedRow] = list(unknown_fields(pair.annotations))
        counts = {"episodes": 0, "steps": 0, "steps_without_words": 0}
        num_episodes = len(pair.episodes.ids())
        for number, spoken in enumerate(pair.each(), 1):
            if on_progress is not None:
                on_progress(number, num_episodes)
            left_out += spoken.left_out
            questions = sum(len(one.pairs) for one in spoken.questions())
            if questions:
                reason = f"{questions} questions about pictures, which ECoT's file has no place for"
                left_out.append(RejectedRow(episode=spoken.episode.episode_id, reason=reason))
            if spoken.is_silent:
                silent.append(spoken.episode.episode_id)
                continue
            written = ecot_episode(spoken)
            found.setdefault(spoken.episode.metadata["raw_name"], {})[spoken.episode.episode_id] = written
            counts["episodes"] += 1
            counts["steps"] += len(written["reasoning"])
            counts["steps_without_words"] += spoken.episode.num_frames - len(written["reasoning"])
        if not found:
            raise UsageError(f"annotations '{annotations}' hold no row that covers a frame. Release more.")
        (begun.path / FILE).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
        return begun.publish(counts=counts, without_words=silent, left_out=left_out)


def ecot_episode(spoken: Spoken) -> dict[str, Any]:
    """One episode of the file."""
    episode = spoken.episode
    subtasks, reasons = spoken.words("segment"), spoken.words("trace")
    moves, plans = _moves(spoken), spoken.plans()
    steps = {}
    for frame in range(episode.num_frames):
        said = {
            "plan": plans[frame],
            "subtask_reason": reasons[frame],
            "subtask": subtasks[frame],
            "move": moves[frame],
        }
        words = {key: text for key, text in said.items() if text is not None}
        if words:
            steps[str(frame)] = {"task": episode.task, **words}
    return {
        "metadata": {
            "episode_id": episode.episode_id,
            "file_path": episode.metadata["raw_name"],
            "n_steps": episode.num_frames,
            "language_instruction": episode.task,
        },
        "features": {"move_primitive": moves},
        "reasoning": steps,
    }


def _moves(spoken: Spoken) -> Sequence[str | None]:
    found: list[str | None] = [None] * spoken.episode.num_frames
    for said in spoken.segments:
        if said.moves:
            found[said.first : said.stop] = [", ".join(said.moves)] * (said.stop - said.first)
    return found
