"""Prompts are scored before they ship: frozen questions with known answers, and what a named model made of them.

A family's folder holds `golden.jsonl` (one line: a question, its pictures, the right answer) and `golden_scores.json`.
A prompt, or the schema its answer must fit, that has no score of its own in there does not pass `make check`; a score
below the interval of the last one that the same model got on the same set is refused.

`python -m annotators.golden` is that check.
"""

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from annotators.arithmetic import canonical
from annotators.families import Family, families, load_family
from annotators.vlm.answers import Question, WordingsAnswer, form_of, parse, schema_of
from annotators.vlm.mending import MendingClient
from annotators.vlm.protocol import ImagePart, Request, RequestPart, Speaker, TextPart, Turn
from annotators.wordings import changed_fact, changed_in_retelling
from dataengine.artifacts import write_atomic
from schemas.errors import FamilyError
from schemas.intervals import wilson_interval
from schemas.records import sha256_of

SET, SCORES = "golden.jsonl", "golden_scores.json"
_FROZEN = ConfigDict(frozen=True, extra="forbid")
_ASKED_TOGETHER = 16
_SAME_BOX = 0.5  # of two boxes' union


class GoldenQuestion(BaseModel):
    """One line of the set. `answer` holds what must be said; keys it leaves out may be anything.

    Of other words it holds the instruction, or the trace, that they are to keep to: {"keeps": "Put the red box ..."}.
    """

    model_config = _FROZEN
    question: Question
    pictures: tuple[str, ...]  # files beside the set
    words: str = ""  # before the pictures
    answer: dict[str, JsonValue]


class GoldenScore(BaseModel):
    """How many of a set one model answered right with one prompt."""

    model_config = _FROZEN
    question: Question
    prompt_hash: str  # of the prompt and of the schema
    set_hash: str  # of the questions, pictures and answers
    model: str
    num: int
    num_right: int
    low: float  # 95 % interval of the share
    high: float
    date: str

    def words(self) -> str:
        """For people."""
        return (
            f"{self.question}: {self.num_right} of {self.num} right ({self.num_right / self.num:.1%}, 95 % interval "
            f"{self.low:.1%} to {self.high:.1%}) by {self.model}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """The frozen questions of one family, and the folder their pictures lie in."""

    folder: Path
    questions: tuple[GoldenQuestion, ...]

    @classmethod
    def of(cls, family: Family) -> "GoldenSet":
        """The set of a family. Raises FamilyError where it has none, or one that can not be read."""
        path = family.folder / SET
        if not path.is_file():
            raise FamilyError(f"family '{family.file.name}' has no {SET}. Write one beside its family.yaml.")
        rows = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                rows.append(GoldenQuestion.model_validate_json(line))
            except ValidationError as error:
                told = error.errors()[0]
                where = ".".join(map(str, told["loc"]))
                raise FamilyError(f"{SET} line {number}: {where}: {told['msg']}. Mend that line.") from None
        missing = sorted({name for row in rows for name in row.pictures if not (family.folder / name).is_file()})
        if missing:
            raise FamilyError(f"{SET} of family '{family.file.name}' names {missing[0]}, which is missing. Add it.")
        return cls(folder=family.folder, questions=tuple(rows))

    def about(self, question: str) -> tuple[GoldenQuestion, ...]:
        """Those that one prompt asks."""
        return tuple(row for row in self.questions if row.question == question)

    def hash_of(self, question: str) -> str:
        """What a score of one prompt was made on."""
        return sha256_of(
            [
                [row.model_dump(mode="json"), [_digest(self.folder / name) for name in row.pictures]]
                for row in self.about(question)
            ]
        )

    def request(self, row: GoldenQuestion, family: Family, speaker: Speaker) -> Request:
        """One question as `annotate` asks it."""
        parts: tuple[RequestPart, ...] = (TextPart(row.words),) if row.words else ()
        pictures = tuple(ImagePart((self.folder / name).read_bytes(), _media(name)) for name in row.pictures)
        return Request(
            speaker=speaker,
            turns=(
                Turn(role="system", parts=(TextPart(family.prompts[row.question]),)),
                Turn(role="user", parts=(*parts, *pictures)),
            ),
            schema_name=row.question,
            schema=schema_of(row.question),
        )


def prompt_hash(family: Family, question: Question) -> str:
    """What a score belongs to: the words that are asked and the schema of the answer."""
    return sha256_of([family.prompts[question], schema_of(question)])


def read_scores(family: Family) -> tuple[GoldenScore, ...]:
    """Every score that is kept, oldest first."""
    path = family.folder / SCORES
    if not path.is_file():
        return ()
    return tuple(GoldenScore.model_validate(row) for row in json.loads(path.read_bytes()))


def unscored(family: Family) -> list[str]:
    """What is wrong with a family's scores, in sentences; nothing where every prompt has one."""
    if not family.prompts:
        return []
    golden = GoldenSet.of(family)
    kept = {(score.question, score.prompt_hash, score.set_hash) for score in read_scores(family)}
    problems = []
    for name in family.prompts:
        question = _question(name)
        if not golden.about(question):
            problems.append(f"{family.label}: {SET} asks nothing with prompt '{question}'. Add questions.")
        elif (question, prompt_hash(family, question), golden.hash_of(question)) not in kept:
            problems.append(
                f"{family.label}: prompt '{question}' has no golden score as it is now. "
                f"Run: dataengine evaluate golden {family.file.name} --vlm MODEL"
            )
    return problems


def score(family: Family, speaker: Speaker, client: MendingClient) -> tuple[GoldenScore, ...]:
    """Ask a model the whole set of a family."""
    golden = GoldenSet.of(family)
    scores = []
    for name in family.prompts:
        question = _question(name)
        rows = golden.about(question)
        if not rows:
            raise FamilyError(f"{SET} asks nothing with prompt '{question}' of {family.label}. Add questions.")
        num_right = 0
        for some in batched(rows, _ASKED_TOGETHER):
            asked = {golden.request(row, family, speaker).key: row for row in some}
            requests = [golden.request(row, family, speaker) for row in some]
            for settled in client.ask(requests):
                said = parse(settled.answer, form_of(question))
                right = asked[settled.request.key].answer
                num_right += said is not None and answers_right(question, right, said.model_dump(mode="json"))
        low, high = wilson_interval(num_right, len(rows))
        scores.append(
            GoldenScore(
                question=question,
                prompt_hash=prompt_hash(family, question),
                set_hash=golden.hash_of(question),
                model=speaker.label,
                num=len(rows),
                num_right=num_right,
                low=low,
                high=high,
                date=datetime.now(UTC).date().isoformat(),
            )
        )
    return tuple(scores)


def keep(family: Family, fresh: Sequence[GoldenScore]) -> None:
    """Write scores beside the family, after those there are. Raises FamilyError for one below its last interval."""
    kept = read_scores(family)
    for one in fresh:
        last = next((old for old in reversed(kept) if _comparable(old, one)), None)
        if last is not None and one.num_right / one.num < last.low:
            raise FamilyError(
                f"prompt {one.words()}; the last one had {last.num_right} of {last.num}, at least {last.low:.1%}. "
                "Nothing was kept: mend the prompt."
            )
    same = {(one.question, one.prompt_hash, one.set_hash, one.model) for one in fresh}
    older = [old for old in kept if (old.question, old.prompt_hash, old.set_hash, old.model) not in same]
    rows = [one.model_dump(mode="json") for one in (*older, *fresh)]
    write_atomic(family.folder / SCORES, (json.dumps(rows, indent=1) + "\n").encode())


def answers_right(question: Question, right: dict[str, JsonValue], said: dict[str, JsonValue]) -> bool:
    """Whether an answer is right: of other words, at least one, and none that changes a fact of what it is to keep."""
    if question not in ("wordings", "retelling"):
        return fits(right, said)
    told, words = str(right.get("keeps", "")), WordingsAnswer.model_validate(said).wordings
    changed = changed_fact if question == "wordings" else changed_in_retelling
    return any(one != told for one in words) and all(changed(told, one) is None for one in words)


def fits(right: JsonValue, said: JsonValue) -> bool:
    """Whether an answer says what it must: keys that `right` leaves out may be anything, numbered rows any others.

    Things are told apart by their nouns, in any order; a box must be that of the right one by half (IoU >= 0.5).
    """
    match right, said:
        case dict(), dict():
            return all(name in said and fits(value, said[name]) for name, value in right.items())
        case list(), list():
            if right and all(isinstance(row, dict) and "number" in row for row in right):
                return all(any(fits(row, other) for other in said) for row in right)
            if right and all(isinstance(row, dict) and "noun" in row for row in right):
                return all(any(_same_thing(row, other) for other in said) for row in right)
            return len(right) == len(said) and all(map(fits, right, said))
        case str(), str():
            sums = canonical(right), canonical(said)
            return sums[0] == sums[1] if None not in sums else _nouns(right) <= _nouns(said) and bool(_nouns(right))
        case _:
            return right == said


def _same_thing(right: JsonValue, said: JsonValue) -> bool:
    if not (isinstance(right, dict) and isinstance(said, dict) and fits(right["noun"], said.get("noun"))):
        return False
    return _iou(_numbers(right.get("box")), _numbers(said.get("box"))) >= _SAME_BOX


def _numbers(box: JsonValue) -> list[float]:
    return [float(one) for one in box if isinstance(one, int | float)] if isinstance(box, list) else []


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    """How much of two boxes (x0, y0, x1, y1) together is in both; 0 where either is none."""
    if len(one) != 4 or len(other) != 4:
        return 0.0
    wide, high = (min(one[at + 2], other[at + 2]) - max(one[at], other[at]) for at in (0, 1))
    both = max(0.0, wide) * max(0.0, high)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    either = sum(areas) - both
    return both / either if min(areas) > 0 else 0.0


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _nouns(words: str) -> set[str]:
    return set(re.findall(r"\w+", words.casefold()))


def _comparable(old: GoldenScore, new: GoldenScore) -> bool:
    return (old.question, old.model, old.set_hash) == (new.question, new.model, new.set_hash)


def _question(name: str) -> Question:
    form_of(name)  # refuses what is none
    return name  # type: ignore[return-value]  # just checked


def _media(name: str) -> Literal["image/png", "image/jpeg"]:
    return "image/png" if name.endswith(".png") else "image/jpeg"


def main() -> int:
    """Say which shipped prompts have no score; 1 where any has none."""
    problems = []
    for name in families():
        try:
            problems += unscored(load_family(name))
        except FamilyError as error:
            problems.append(str(error))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
