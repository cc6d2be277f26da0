"""How good the small VLM is, skill by skill, on questions it has never seen, with 95 % intervals.

An answer counts when it is right word for word: every token is the likeliest one behind the true words before it, which
is what speaking greedily would give. A point counts within 8 pixels, and is spoken token by token.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched

import torch

from schemas.chat import IGNORE
from schemas.intervals import wilson_interval
from trainers.tokenizer import END_OF_TURN, LocalTokenizer
from trainers.vlm.lessons import Asked, Lesson, LessonCollator
from trainers.vlm.model import PackedVlm

POINT_WITHIN_PX = 8.0
_POINT = re.compile(r"\((\d+), (\d+)\)")
_LONGEST_POINT = 12  # tokens
_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """One held-out question: the picture, the right answer, and the place asked for where the skill is pointing."""

    skill: str
    lesson: Lesson
    point_px: tuple[float, float] | None = None

    @property
    def asked(self) -> Asked:
        """The one question."""
        return self.lesson.asked[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillScore:
    """Right answers of one skill, and Wilson's 95 % interval of their share."""

    skill: str
    num: int
    num_right: int

    @property
    def share(self) -> float:
        """Right ones of all."""
        return self.num_right / self.num

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval."""
        return wilson_interval(self.num_right, self.num)


@torch.inference_mode()
def examine(model: PackedVlm, tokenizer: LocalTokenizer, exams: Iterable[Exam]) -> list[tuple[Exam, bool]]:
    """Every exam, and whether its answer was right; in the order given."""
    collate = LessonCollator(model.size, tokenizer)
    device = next(model.parameters()).device
    rows = list(exams)
    right = [False] * len(rows)
    was_training = model.training
    model.eval()
    for places in _alike(rows, collate):
        batch = collate([rows[place].lesson for place in places]).to(device)
        score = model.scores(batch)
        want_BT = batch.labels_BT[:, 1:]
        wrong_BT = (score[:, :-1].argmax(-1) != want_BT) & (want_BT != IGNORE)
        for place, is_wrong in zip(places, wrong_BT.any(dim=1).tolist(), strict=True):
            right[place] = not is_wrong
    pointing = [number for number, exam in enumerate(rows) if exam.point_px is not None and not right[number]]
    for start in range(0, len(pointing), _AT_ONCE):
        some_places = pointing[start : start + _AT_ONCE]
        spoken = answers(model, tokenizer, [rows[number].lesson for number in some_places], max_tokens=_LONGEST_POINT)
        for number, words in zip(some_places, spoken, strict=True):
            right[number] = _is_near(words, rows[number].point_px)
    model.train(was_training)
    return list(zip(rows, right, strict=True))


def _alike(rows: Sequence[Exam], collate: LessonCollator) -> Iterator[list[int]]:
    """Places of exams that fit into one batch."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, exam in enumerate(rows):
        groups.setdefault(collate.shape(exam.lesson), []).append(place)
    for places in groups.values():
        for some in batched(places, _AT_ONCE):
            yield list(some)


def by_skill(results: Sequence[tuple[Exam, bool]]) -> list[SkillScore]:
    """Scores, skill by skill in order of appearance."""
    skills = dict.fromkeys(exam.skill for exam, _ in results)
    return [
        SkillScore(
            skill=skill,
            num=sum(exam.skill == skill for exam, _ in results),
            num_right=sum(right for exam, right in results if exam.skill == skill),
        )
        for skill in skills
    ]


@torch.inference_mode()
def answers(model: PackedVlm, tokenizer: LocalTokenizer, lessons: Sequence[Lesson], *, max_tokens: int) -> list[str]:
    """What the model says to the first question of each lesson, likeliest token each time."""
    collate = LessonCollator(model.size, tokenizer)
    device = next(model.parameters()).device
    end = tokenizer.id_of(END_OF_TURN)
    said: list[list[int]] = [[] for _ in lessons]
    opened = [collate.opened(lesson) for lesson in lessons]
    for _ in range(max_tokens):
        open_rows = [row for row, words in enumerate(said) if not words or words[-1] != end]
        if not open_rows:
            break
        batch = collate.speaking([(lessons[row], opened[row] + said[row]) for row in open_rows]).to(device)
        score = model.scores(batch)
        last = (batch.branch_BT >= 0).sum(dim=1) - 1
        for place, row in enumerate(open_rows):
            said[row].append(int(score[place, last[place]].argmax()))
    return [tokenizer.words([token for token in words if token != end]) for words in said]


def is_right(words: str, answer: str, point_px: tuple[float, float] | None = None) -> bool:
    """Whether what was said is the right answer: word for word, or a point within 8 pixels."""
    return words == answer or _is_near(words, point_px)


def _is_near(words: str, point_px: tuple[float, float] | None) -> bool:
    found = _POINT.fullmatch(words.strip())
    if found is None or point_px is None:
        return False
    return math.dist((int(found[1]), int(found[2])), point_px) <= POINT_WITHIN_PX
