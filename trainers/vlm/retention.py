"""What robot training makes a model forget: the same held-out questions, before and after, pair by pair.

ChatVLA (2025) calls it spurious forgetting: the answers go although the knowledge need not. The difference of a skill
is paired, so that hard questions count against nobody, and its interval comes from drawing the questions again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataengine.rendered.keyed import keyed_rng
from schemas.errors import TrainError
from trainers.tokenizer import LocalTokenizer
from trainers.vlm.model import PackedVlm
from trainers.vlm.score import Exam, examine

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


def retention(
    base: PackedVlm, checkpoint: PackedVlm, tokenizer: LocalTokenizer, exams: Sequence[Exam]
) -> list[Retained]:
    """Ask both the same questions; skill by skill in order of appearance. Deterministic.

    Raises TrainError where there is nothing to ask.
    """
    if not exams:
        raise TrainError("there are no questions to compare by. Ask for one or more a skill.")
    before = [right for _, right in examine(base, tokenizer, exams)]
    after = [right for _, right in examine(checkpoint, tokenizer, exams)]
    rows = list(zip(exams, before, after, strict=True))
    return [
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
