"""The forms of placements and scenes: what a reviewer may change in them, and how their words become a payload.

As in `annotators.review`, everything is held as it was typed, and reading it gives a payload or sentences about what to
mend. Rows that nobody touched stay as they were proposed, to the letter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from annotators.review import LABELS, Reading, is_no_box, plain, words_in
from schemas.scenes import (
    Box,
    FrameOfReference,
    Outcome,
    PictureRef,
    PlacementTrace,
    PlanStep,
    QuestionAnswer,
    Relation,
    SceneNotes,
    SceneObject,
    SpatialRelation,
)

RELATIONS: tuple[Relation, ...] = get_args(Relation)
SIDES: tuple[FrameOfReference, ...] = get_args(FrameOfReference)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
WHENS = ("before", "after")
type Row = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThingRow:
    """One thing as typed, and the box that lies on it."""

    noun: str = ""
    box: Box | None = None

    @classmethod
    def of(cls, thing: SceneObject | None) -> "ThingRow":
        """The row that shows a thing; an empty one for none."""
        return cls() if thing is None else cls(noun=thing.noun, box=thing.box_xyxy)

    @property
    def is_empty(self) -> bool:
        """True when it says nothing."""
        return self.box is None and not self.noun.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementForm:
    """What is to be put where, as typed."""

    target: ThingRow = ThingRow()
    relation: str = "unknown"
    reference: ThingRow = ThingRow()
    side: str = "robot"  # whose left and right it is
    picture: PictureRef | None = None  # of both boxes

    @classmethod
    def of(cls, trace: PlacementTrace) -> "PlacementForm":
        """The form that shows a placement."""
        return cls(
            target=ThingRow.of(trace.target),
            relation=trace.relation,
            reference=ThingRow.of(trace.reference),
            side=trace.frame_of_reference,
            picture=trace.picture,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneForm:
    """The notes about a scene, as typed; a row that says nothing is none."""

    instruction: str = ""
    outcome: str = "unknown"
    things: tuple[ThingRow, ...] = ()
    picture: PictureRef | None = None
    relations: tuple[Row, ...] = ()  # (when, subject, relation, reference, whose left and right)
    plan: tuple[Row, ...] = ()  # (label, noun, relation or nothing, reference)
    wordings: tuple[str, ...] = ()
    questions: tuple[Row, ...] = ()  # (question, answer)

    @classmethod
    def of(cls, notes: SceneNotes) -> "SceneForm":
        """The form that shows notes."""
        return cls(
            instruction=notes.instruction,
            outcome=notes.outcome,
            things=tuple(ThingRow.of(one) for one in notes.objects),
            picture=notes.picture,
            relations=tuple(_relation_row(one) for one in notes.relations),
            plan=tuple(_step_row(one) for one in notes.plan),
            wordings=notes.paraphrases,
            questions=tuple((one.question, one.answer) for one in notes.questions),
        )

    @property
    def said(self) -> "SceneForm":
        """The same without rows that say nothing."""
        return replace(
            self,
            things=tuple(one for one in self.things if not one.is_empty),
            relations=tuple(row for row in self.relations if row[1].strip() or row[3].strip()),
            plan=tuple(row for row in self.plan if any(cell.strip() for cell in row)),
            wordings=tuple(words for words in self.wordings if words.strip()),
            questions=tuple(row for row in self.questions if any(cell.strip() for cell in row)),
        )


def _relation_row(one: SpatialRelation) -> Row:
    return (one.when, one.subject, one.relation, one.reference, one.frame_of_reference)


def _step_row(step: PlanStep) -> Row:
    return (step.label, step.noun or "", step.relation or "", step.reference or "")


def read_placement(form: PlacementForm, base: PlacementTrace) -> Reading:
    """The placement a form stands for."""
    if form == PlacementForm.of(base):
        return Reading(payload=base)
    problems = [
        *_box_problems([("The target", form.target), ("The reference", form.reference)], form.picture),
        *_not_of("The relation", form.relation, RELATIONS),
        *_not_of("The side", form.side, SIDES),
    ]
    target, reference = words_in(form.target.noun), words_in(form.reference.noun)
    if target is not None and target == reference:
        problems.append(f"The {target} can not be put beside itself. Correct the target or the reference.")
    if problems:
        return Reading(payload=None, problems=tuple(problems))
    made = PlacementTrace(
        target=_thing(form.target, base.target),
        relation=cast(Relation, form.relation),
        reference=_thing(form.reference, base.reference),
        frame_of_reference=cast(FrameOfReference, form.side),
        picture=form.picture,
    )
    return plain(made)


def _thing(row: ThingRow, base: SceneObject | None) -> SceneObject | None:
    if base is not None and row == ThingRow.of(base):
        return base
    noun = words_in(row.noun)
    return None if noun is None else SceneObject(noun=noun, box_xyxy=row.box)


def read_scene(form: SceneForm, base: SceneNotes) -> Reading:
    """The notes a form stands for. Wordings that somebody typed are no longer those of the templates."""
    said = form.said
    if said == SceneForm.of(base).said:
        return Reading(payload=base)
    problems = list(_scene_problems(said, base))
    if problems:
        return Reading(payload=None, problems=tuple(problems))
    wordings = tuple(words_in(words) or "" for words in said.wordings)
    same = said.wordings == SceneForm.of(base).said.wordings
    made = {
        "instruction": base.instruction if said.instruction == base.instruction else words_in(said.instruction) or "",
        "paraphrases": base.paraphrases if same else wordings,
        "worded_by": base.worded_by if same else None,
        "outcome": said.outcome,
        "objects": _kept(said.things, base.objects, ThingRow.of, _object),
        "picture": said.picture,
        "relations": _kept(said.relations, base.relations, _relation_row, _relation),
        "plan": _kept(said.plan, base.plan, _step_row, _step),
        "questions": _kept(said.questions, base.questions, lambda one: (one.question, one.answer), _question),
    }
    return plain(SceneNotes.model_validate(dict(base) | made))  # what the form does not show stays as it is


def _kept[Typed, Made](
    rows: Sequence[Typed], base: Sequence[Made], shown: Callable[[Made], Typed], read: Callable[[Typed], Made]
) -> tuple[Made, ...]:
    """What rows stand for; a row that says what something proposed says is that, to the letter."""
    known = {shown(one): one for one in base}
    return tuple(known[row] if row in known else read(row) for row in rows)


def _object(row: ThingRow) -> SceneObject:
    return SceneObject(noun=words_in(row.noun) or "", box_xyxy=row.box)


def _relation(row: Row) -> SpatialRelation:
    when, subject, relation, reference, side = row
    return SpatialRelation(
        subject=words_in(subject) or "",
        relation=cast(Relation, relation),
        reference=words_in(reference) or "",
        frame_of_reference=cast(FrameOfReference, side),
        when=cast(Literal["before", "after"], when),
    )


def _step(row: Row) -> PlanStep:
    label, noun, relation, reference = (words_in(cell) for cell in row)
    return PlanStep(label=label or "", noun=noun, relation=cast(Relation | None, relation), reference=reference)


def _question(row: Row) -> QuestionAnswer:
    return QuestionAnswer(question=words_in(row[0]) or "", answer=words_in(row[1]) or "")


def _scene_problems(said: SceneForm, base: SceneNotes) -> Iterator[str]:
    if not said.instruction.strip() and base.instruction.strip():
        yield "There is no instruction. Type what the robot was told to do."
    yield from _not_of("The outcome", said.outcome, OUTCOMES)
    yield from _box_problems([(f"Thing {at}", row) for at, row in enumerate(said.things, 1)], said.picture)
    nouns = [words_in(row.noun) for row in said.things]
    for noun in sorted({noun for noun in nouns if noun is not None and nouns.count(noun) > 1}):
        yield f"Two things are called '{noun}'. Give each a noun of its own."
    for at, (when, subject, relation, reference, side) in enumerate(said.relations, 1):
        if not (subject.strip() and reference.strip()):
            yield f"Relation {at} names one thing and not the other. Name both, or delete the row."
        yield from _not_of(f"The time of relation {at}", when, WHENS)
        yield from _not_of(f"Relation {at}", relation, RELATIONS)
        yield from _not_of(f"The side of relation {at}", side, SIDES)
    known = {*LABELS, *(step.label for step in base.plan)}  # another program may name its steps otherwise
    for at, (label, noun, relation, reference) in enumerate(said.plan, 1):
        if label.strip() not in known:
            yield f"Step {at}: '{label}' is no label. Use {', '.join(LABELS)}."
        if relation.strip() and not (noun.strip() and reference.strip()):
            yield f"Step {at} says how it is put, and not what or beside what. Name both, or leave it empty."
        elif relation.strip():
            yield from _not_of(f"The place of step {at}", relation, RELATIONS)
    for at, (question, answer) in enumerate(said.questions, 1):
        if not (question.strip() and answer.strip()):
            yield f"Question {at} lacks its {'answer' if question.strip() else 'words'}. Type it, or delete the row."
    if said.questions and said.picture is None:
        yield "Questions are about a picture, and none is chosen. Go to its frame and press p."


def _not_of(name: str, value: str, options: Sequence[str]) -> Iterator[str]:
    if value not in options:
        yield f"{name} can not be '{value}'. Choose {', '.join(options)}."


def _box_problems(rows: Sequence[tuple[str, ThingRow]], picture: PictureRef | None) -> Iterator[str]:
    for name, row in rows:
        if row.box is None:
            continue
        if not row.noun.strip():
            yield f"{name} has a box and no noun. Type what it is, or delete the box."
        if is_no_box(row.box) or picture is None or row.box[2] > picture.width or row.box[3] > picture.height:
            yield f"The box of {row.noun.strip() or name} is empty or leaves the picture. Draw it again."


def scene_fields(notes: SceneNotes) -> dict[str, list[str]]:
    """What notes say, in the words of the form: one list for each of its parts."""
    return {
        "instruction": [notes.instruction],
        "outcome": [notes.outcome],
        "picture": picture_words(notes.picture),
        "thing": [thing_words(one) for one in notes.objects],
        "relation": [f"{one.render()[:-1]}, {one.frame_of_reference}'s side" for one in notes.relations],
        "step": [step.render() for step in notes.plan],
        "wording": list(notes.paraphrases),
        "question": [f"{one.question} {one.answer}" for one in notes.questions],
    }


def placement_fields(trace: PlacementTrace) -> dict[str, list[str]]:
    """What a placement says, in the words of the form."""
    return {
        "target": [thing_words(trace.target)] if trace.target else [],
        "relation": [trace.relation],
        "reference": [thing_words(trace.reference)] if trace.reference else [],
        "side": [trace.frame_of_reference],
        "picture": picture_words(trace.picture),
    }


def picture_words(picture: PictureRef | None) -> list[str]:
    """Which picture it is, for people; nothing where there is none."""
    return [] if picture is None else [f"frame {picture.frame} of {picture.camera}"]


def thing_words(thing: SceneObject) -> str:
    """A thing with its box, for people."""
    return thing.noun if thing.box_xyxy is None else f"{thing.noun} {list(thing.box_xyxy)}"


def loose_nouns(notes: SceneNotes) -> tuple[str, ...]:
    """Nouns of relations and steps that no thing goes by."""
    there = {one.noun for one in notes.objects}
    used = [noun for one in notes.relations for noun in (one.subject, one.reference)]
    used += [noun for step in notes.plan for noun in (step.noun, step.reference) if noun is not None]
    return tuple(dict.fromkeys(noun for noun in used if noun not in there))


def misplaced_answers(notes: SceneNotes) -> tuple[str, ...]:
    """Questions where a thing is whose answer is not the box of that thing."""
    boxes = {f"Where is the {one.noun}?": f"At {list(one.box_xyxy)}." for one in notes.objects if one.box_xyxy}
    return tuple(one.question for one in notes.questions if boxes.get(one.question, one.answer) != one.answer)
