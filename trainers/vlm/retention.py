"""What robot training makes a model forget: the same held-out questions, before and after, pair by pair.

ChatVLA (2025) calls it spurious forgetting: the answers go although the knowledge need not. The difference of a skill
is paired, so that hard questions count against nobody, and its interval comes from drawing the questions again.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dataengine.artifacts import begin, write_atomic
from dataengine.rendered import SKILLS, plans_hash
from dataengine.rendered.keyed import keyed_rng
from dataengine.workspace import Workspace
from schemas.errors import TrainError
from schemas.records import InputRef, Record, sha256_of
from schemas.refs import Ref
from trainers.checkpoint import load_trained
from trainers.loop import directory_fingerprint
from trainers.models.vla import FlatPatchEmbed
from trainers.tokenizer import LocalTokenizer
from trainers.vlm.model import PackedVlm
from trainers.vlm.rendered_lessons import rendered_exams
from trainers.vlm.score import Exam, examine
from trainers.vlm_directory import load_vlm_directory

RETENTION_FILE = "retention.json"
ALL_SKILLS = "all"
_DRAWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """One skill: right answers of the base and of the checkpoint, and how the share changed, with a 95 % interval."""

    skill: str
    num: int
    base_right: int
    right: int
    change: float  # share after minus share before
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One checkpoint beside the base: all skills together, then each."""

    checkpoint: str
    rows: tuple[Retained, ...]


def compare(
    *,
    base: Path,
    checkpoints: Sequence[Ref],
    to: Ref,
    workspace: Workspace,
    exams_per_skill: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Ask the base (a dense model directory) and every checkpoint the same held-out questions; publish what changed.

    Raises TrainError for a checkpoint whose tokenizer is not the base's, ArtifactError for one that is not there.
    """
    folders = [workspace.find("checkpoints", ref) for ref in checkpoints]
    inputs = [InputRef(kind="raw", ref=base.name, fingerprint=directory_fingerprint(base))]
    inputs += [
        InputRef(kind="checkpoints", ref=str(ref), fingerprint=workspace.record("checkpoints", ref).fingerprint)
        for ref in checkpoints
    ]
    questions = {"per_skill": exams_per_skill, "plans": plans_hash(SKILLS, exams_per_skill)}
    draft = begin(workspace, "evaluations", to, recipe={"retention": questions}, inputs=inputs)
    if isinstance(draft, Record):
        return draft
    with draft:
        directory = load_vlm_directory(base)
        exams = [exam for skill in SKILLS for exam in rendered_exams(skill, exams_per_skill)]
        known = PackedVlm(directory.vlm, directory.size)
        known.vlm.model.visual.patch_embed = FlatPatchEmbed(known.vlm.model.visual.patch_embed.proj)
        before = _right(known, directory.tokenizer, exams)
        compared = []
        for done, (ref, folder) in enumerate(zip(checkpoints, folders, strict=True), 1):
            if on_progress is not None:
                on_progress(done, len(folders) + 1)
            trained = load_trained(folder)
            if trained.tokenizer.fingerprint != directory.tokenizer.fingerprint:
                raise TrainError(
                    f"{ref} has another tokenizer than '{base.name}', so it never was that model. Name the directory "
                    "it started from: --base DIR."
                )
            after = _right(PackedVlm(trained.vla.vlm, trained.config.vlm), directory.tokenizer, exams)
            compared.append(Compared(checkpoint=str(ref), rows=tuple(_by_skill(exams, before, after))))
        if on_progress is not None:
            on_progress(len(folders) + 1, len(folders) + 1)
        rows = [asdict(one) for one in compared]
        write_atomic(draft.path / RETENTION_FILE, json.dumps(rows, indent=1).encode())
        return draft.publish(
            fingerprint=sha256_of(rows),
            counts={"num_questions": len(exams), "num_checkpoints": len(compared)},
        )


def read_retention(folder: Path) -> tuple[Compared, ...]:
    """What `compare` published."""
    return tuple(
        Compared(checkpoint=one["checkpoint"], rows=tuple(Retained(**row) for row in one["rows"]))
        for one in json.loads((folder / RETENTION_FILE).read_bytes())
    )


def retention(
    base: PackedVlm, checkpoint: PackedVlm, tokenizer: LocalTokenizer, exams: Sequence[Exam]
) -> list[Retained]:
    """Ask both the same questions; all together, then skill by skill in order of appearance. Deterministic.

    Raises TrainError where there is nothing to ask.
    """
    if not exams:
        raise TrainError("there are no questions to compare by. Ask for one or more a skill.")
    return _by_skill(exams, _right(base, tokenizer, exams), _right(checkpoint, tokenizer, exams))


def _right(model: PackedVlm, tokenizer: LocalTokenizer, exams: Sequence[Exam]) -> list[bool]:
    return [right for _, right in examine(model, tokenizer, exams)]


def _by_skill(exams: Sequence[Exam], before: Sequence[bool], after: Sequence[bool]) -> list[Retained]:
    rows = list(zip(exams, before, after, strict=True))
    return [_paired(ALL_SKILLS, [(was, now) for _, was, now in rows])] + [
        _paired(skill, [(was, now) for exam, was, now in rows if exam.skill == skill])
        for skill in dict.fromkeys(exam.skill for exam in exams)
    ]


def _paired(skill: str, pairs: list[tuple[bool, bool]]) -> Retained:
    before, after = np.array(pairs, dtype=np.int64).T
    changes = after - before
    drawn = keyed_rng("retention", skill).integers(len(changes), size=(_DRAWS, len(changes)))
    low, high = np.quantile(changes[drawn].mean(axis=1), (0.025, 0.975))
    return Retained(
        skill=skill,
        num=len(changes),
        base_right=int(before.sum()),
        right=int(after.sum()),
        change=float(changes.mean()),
        low=float(low),
        high=float(high),
    )
