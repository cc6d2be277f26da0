"""Lessons rendered on the fly, some of them replaced by simulator frames, and some steps by crops of boards and cards
with the prompts that `annotate` sends, where folders of those are at hand."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.mix.pixels import decode_picture
from dataengine.rendered import FULL, SKILLS, Skill, held_out, questions
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.looks import Look, looks_among, looks_at
from dataengine.rendered.related import render_exercise
from dataengine.rendered.sheets import render_sheet
from dataengine.rendered.sums import draw_sum
from dataengine.sources.content import hash_files
from schemas.errors import TrainError
from schemas.records import sha256_of
from trainers.vlm.config import VlmConfig
from trainers.vlm.lessons import CARD_CLASSES, CELLS_PER_PATCH, GLYPHS, Asked, Lesson
from trainers.vlm.phase import Phase
from trainers.vlm.score import Exam

_NUMBER, _POINT = re.compile(r"\d+"), re.compile(r"\((\d+), (\d+)\)")
_LISTING = "conversations.json"
_HASHED_SUMS = 100
_HASHED_ROWS = 4  # of each skill, at full difficulty: a change of the renderer shows in some of them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A question of a skill about a picture, and the place asked for where the skill is pointing."""

    skill: str
    asked: Asked
    point_px: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A picture of a folder; `cards` are all of them, (number, x, y), or None where nobody tells."""

    name: str
    rows: tuple[_Row, ...]
    cards: tuple[tuple[int | None, float, float], ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """A folder of pictures with questions in LLaVA's layout; several rows share a picture, and may share a system turn.

    Simulator frames as `apps.sim.questions` writes them, or crops as `apps.vlm_crops` does.
    """

    folder: Path
    pictures: tuple[_Shown, ...]

    @classmethod
    def open(cls, folder: Path) -> "Frames":
        """Read the listing. Raises TrainError where there is none."""
        path = folder / _LISTING
        if not path.is_file():
            raise TrainError(f"'{folder}' holds no {_LISTING}. Write pictures with questions there first.")
        found: dict[str, list[_Row]] = {}
        cards: dict[str, tuple[tuple[int | None, float, float], ...]] = {}
        for row in json.loads(path.read_text(encoding="utf-8")):
            said = {turn["from"]: turn["value"] for turn in row["conversations"]}
            question, instructions = said["human"].replace("<image>", "").strip(), said.get("system", "")
            point, listed = row.get("point_px"), row.get("cards_px")
            looks: tuple[Look, ...] = ()
            if listed is not None:
                cards[row["image"]] = tuple((number, x_px, y_px) for number, x_px, y_px in listed)
                places = [(number, (x_px, y_px)) for number, x_px, y_px in listed]
                try:
                    looks = looks_among(question, said["gpt"], places)
                except ValueError:
                    raise TrainError(
                        f"'{folder}': row {row['id']} tells of {len(listed)} cards, and its answer lists others. Write "
                        "the pictures again."
                    ) from None
            elif point:
                looks = (looks_at(said["gpt"], tuple(point)),)
            asked = Asked(question=question, answer=said["gpt"], instructions=instructions, looks=looks)
            read = _Row(skill=row["skill"], asked=asked, point_px=tuple(point) if point else None)
            found.setdefault(row["image"], []).append(read)
        pictures = (_Shown(name=name, rows=tuple(rows), cards=cards.get(name)) for name, rows in found.items())
        return cls(folder=folder, pictures=tuple(pictures))

    @property
    def fingerprint(self) -> str:
        """Of the words and of the picture files."""
        return sha256_of(
            [
                [
                    [row.skill, row.asked.question, row.asked.answer, row.asked.instructions, row.point_px]
                    for row in shown.rows
                ]
                + [hash_files([self.folder / shown.name])]
                + ([] if shown.cards is None else [shown.cards, repr([row.asked.looks for row in shown.rows])])
                for shown in self.pictures
            ]
        )

    def lesson(self, number: int, skills: frozenset[str], most: int, rng: np.random.Generator) -> Lesson | None:
        """A picture with questions of some skills; None where it has none of them."""
        shown = self.pictures[number]
        fitting = [row.asked for row in shown.rows if row.skill in skills]
        if not fitting:
            return None
        chosen = rng.permutation(len(fitting))[:most]
        pointed = {
            int(digits): row.point_px
            for row in shown.rows
            if row.skill == "point" and row.point_px is not None
            for digits in _NUMBER.findall(row.asked.question)
        }
        return Lesson(
            picture=self.picture(shown.name),
            asked=tuple(fitting[int(k)] for k in chosen),
            glyphs=None,
            cards=shown.cards or tuple((number, *point_px) for number, point_px in pointed.items()),
            are_all_cards=shown.cards is not None,
        )

    def picture(self, name: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        """One decoded frame."""
        return decode_picture((self.folder / name).read_bytes())

    def exams(self, num_per_skill: int) -> list[Exam]:
        """Questions of each skill, evenly from first to last: neighbouring pictures show one scene."""
        found: dict[str, list[tuple[str, _Row]]] = {}
        for shown in self.pictures:
            for row in shown.rows:
                found.setdefault(row.skill, []).append((shown.name, row))
        exams = []
        for skill, listed in sorted(found.items()):
            num = min(num_per_skill, len(listed))
            for place in range(num):
                name, row = listed[place * len(listed) // num]
                lesson = Lesson(picture=self.picture(name), asked=(row.asked,), glyphs=None)
                exams.append(Exam(skill=skill, lesson=lesson, point_px=row.point_px))
        return exams


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """The pictures of a folder sorted into groups that fit into one batch: one size, one system turn."""

    frames: Frames
    groups: tuple[tuple[tuple[int, int], tuple[int, ...]], ...]  # (width, height) and places in `frames.pictures`

    @classmethod
    def of(cls, frames: Frames, *, cell_px: int) -> "Crops":
        """Sizes are rounded to cells of a picture token, as the model rounds them."""
        found: dict[tuple[str, int, int], list[int]] = {}
        for number, shown in enumerate(frames.pictures):
            with Image.open(frames.folder / shown.name) as opened:
                width, height = (max(1, round(side / cell_px)) * cell_px for side in opened.size)
            found.setdefault((shown.rows[0].asked.instructions, width, height), []).append(number)
        return cls(frames=frames, groups=tuple(((w, h), tuple(places)) for (_, w, h), places in found.items()))

    def step(self, num: int, rng: np.random.Generator, *, evenly: bool = False) -> list[Lesson]:
        """Pictures of one group; large groups come more often, or, `evenly`, skills as often as each other."""
        sizes = np.array([len(places) for _, places in self.groups], dtype=np.float64)
        if evenly:
            skills = [self.frames.pictures[places[0]].rows[0].skill for _, places in self.groups]
            sizes /= [
                sum(size for size, other in zip(sizes, skills, strict=True) if other == skill) for skill in skills
            ]
        (width, height), places = self.groups[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        lessons = []
        for place in rng.choice(places, num, replace=len(places) < num):
            shown = self.frames.pictures[int(place)]
            whole = Image.fromarray(self.frames.picture(shown.name))
            lessons.append(_resized(whole, shown, (width, height)))
        return lessons


def _resized(whole: Image.Image, shown: _Shown, size: tuple[int, int]) -> Lesson:
    """One crop; what is known of its cards lies where it did."""
    across, down = size[0] / whole.width, size[1] / whole.height
    asked = shown.rows[0].asked
    looks = (
        look if look.place_px is None else replace(look, place_px=(look.place_px[0] * across, look.place_px[1] * down))
        for look in asked.looks
    )
    return Lesson(
        picture=np.asarray(whole.resize(size, Image.Resampling.BICUBIC)),
        asked=(replace(asked, looks=tuple(looks)),),
        glyphs=None,
        cards=tuple((number, x_px * across, y_px * down) for number, x_px, y_px in shown.cards or ()),
        are_all_cards=shown.cards is not None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedLessons:
    """The lessons of a recipe; a pure function of the recipe's seed and the step."""

    config: VlmConfig
    frames: Frames | None = None
    crops: Crops | None = None

    @property
    def fingerprint(self) -> str:
        """Of what is not in the recipe: what the renderer draws and asks, by some of each skill, and the frames."""
        digest = hashlib.sha256(f"{GLYPHS} {CELLS_PER_PATCH}".encode())
        for skill in SKILLS:
            for row in range(_HASHED_ROWS):
                made = render_exercise(split="train", seed=self.config.seed, row=row, skill=skill, most=9)
                digest.update(made.picture)
                digest.update(repr((made.questions, made.glyphs)).encode())
        for row in range(_HASHED_ROWS):
            sheet = render_sheet(split="train", seed=self.config.seed, row=row)
            digest.update(sheet.picture)
            digest.update(repr(sheet.glyphs).encode())
        if any(phase.asks_places for phase in self.config.phases):
            for row in range(_HASHED_ROWS):
                asked = render_exercise(
                    split="train", seed=self.config.seed, row=row, skill="cards", most=9, most_cards=3, asks_places=True
                )
                digest.update(asked.picture)
                digest.update(repr(asked.questions).encode())
        if any(phase.asks_things for phase in self.config.phases):
            for row in range(_HASHED_ROWS):
                told = render_exercise(
                    split="train", seed=self.config.seed, row=row, skill="relation", most=9, asks_things=True
                )
                digest.update(repr(told.questions).encode())
        if any(phase.thing_weight for phase in self.config.phases):
            for row in range(_HASHED_ROWS):
                shown = render_exercise(split="train", seed=self.config.seed, row=row, skill="colour", most=9)
                digest.update(repr(shown.things).encode())
        if any(phase.gaze_weight or phase.card_weight for phase in self.config.phases):
            for skill in SKILLS:
                for row in range(_HASHED_ROWS):
                    looked = render_exercise(
                        split="train",
                        seed=self.config.seed,
                        row=row,
                        skill=skill,
                        most=9,
                        asks_places=True,
                        asks_things=True,
                    )
                    digest.update(repr((looked.cards, [each.looks for each in looked.questions])).encode())
            digest.update(f"{CARD_CLASSES}".encode())
        if hands := max(end.hands for phase in self.config.phases for end in (phase.start, phase.end)):
            for row in range(10 * _HASHED_ROWS):
                written = render_sheet(
                    split="train", seed=self.config.seed, row=row, difficulty=replace(FULL, hands=hands)
                )
                digest.update(written.picture)
                digest.update(repr(written.glyphs).encode())
        rng = keyed_rng("hashed sums", self.config.seed)
        digest.update(" ".join(draw_sum(split="train", rng=rng).text for _ in range(_HASHED_SUMS)).encode())
        folders = [self.frames, self.crops.frames if self.crops else None]
        return sha256_of([digest.hexdigest(), *(folder.fingerprint if folder else None for folder in folders)])

    def step(self, phase: Phase, phase_step: int, step: int) -> list[Lesson]:
        """The pictures of one step."""
        rng = keyed_rng("lessons", self.config.seed, step)
        wants_crops = rng.random() < phase.crops_share  # drawn in any case: what follows must not hang on the folders
        if wants_crops and self.crops is not None and self.crops.groups:
            # Prompts are long: half as many pictures take the time of an ordinary step.
            return self.crops.step(max(1, self.config.pictures_per_step // 2), rng, evenly=phase.crops_evenly)
        skills = [skill for skill, _ in phase.skills]
        weights = np.array([weight for _, weight in phase.skills])
        chosen = rng.choice(len(skills), self.config.pictures_per_step, p=weights / weights.sum())
        lessons: list[Lesson] = []
        for place, number in enumerate(chosen):
            lesson = self._frame(phase, rng) if rng.random() < phase.frames_share else None
            if lesson is None and rng.random() < phase.sheets_share:
                lesson = self._sheet(phase, phase_step, step * self.config.pictures_per_step + place)
            lesson = lesson or self._rendered(phase, phase_step, step, place, skills[int(number)])
            asked = [_rounded(each, phase.point_step_px) for each in lesson.asked]
            lessons.append(replace(lesson, asked=(*asked, *self._sums(phase, rng))))
        return lessons

    def _sums(self, phase: Phase, rng: np.random.Generator) -> Iterator[Asked]:
        for _ in range(self.config.sums_per_picture if phase.text_weight else 0):
            drawn = draw_sum(split="train", rng=rng)
            yield Asked(question=f"Work out {drawn.text}.", answer=questions.solved(drawn))

    def _frame(self, phase: Phase, rng: np.random.Generator) -> Lesson | None:
        if self.frames is None:
            return None
        number = int(rng.integers(len(self.frames.pictures)))
        names = frozenset(skill for skill, _ in phase.skills)
        return self.frames.lesson(number, names, self.config.questions_per_picture, rng)

    def _sheet(self, phase: Phase, phase_step: int, row: int) -> Lesson:
        """Characters to be seen; the question only makes it a chat, its words are not computed."""
        difficulty = phase.difficulty(phase_step)
        sheet = render_sheet(split="train", seed=self.config.seed, row=row, difficulty=difficulty)
        glyphs = tuple((glyph.char, glyph.x_px, glyph.y_px) for glyph in sheet.glyphs)
        return Lesson(picture=sheet.picture, asked=(Asked(question="", answer="."),), glyphs=glyphs)

    def _rendered(self, phase: Phase, phase_step: int, step: int, place: int, skill: Skill) -> Lesson:
        exercise = render_exercise(
            split="train",
            seed=self.config.seed,
            row=step * self.config.pictures_per_step + place,
            skill=skill,
            most=self.config.questions_per_picture if phase.text_weight else 1,
            difficulty=phase.difficulty(phase_step),
            most_cards=phase.most_cards,
            asks_places=phase.asks_places,
            asks_things=phase.asks_things,
        )
        names = {name for name, _ in phase.skills}
        return Lesson(
            picture=exercise.picture,
            asked=tuple(
                Asked(question=row.question, answer=row.answer, looks=row.looks)
                for row in exercise.questions
                if row.skill in names
            ),
            glyphs=tuple((glyph.char, glyph.x_px, glyph.y_px) for glyph in exercise.glyphs),
            things=tuple((thing.kind, thing.colour, thing.x_px, thing.y_px) for thing in exercise.things),
            cards=tuple((card.number, card.x_px, card.y_px) for card in exercise.cards),
            are_all_cards=True,
        )


def _rounded(asked: Asked, step_px: int) -> Asked:
    """The same, a point in steps of so many pixels; its one look is about the whole answer."""
    found = _POINT.fullmatch(asked.answer)
    if found is None or step_px == 1:
        return asked
    x_px, y_px = (round(int(digits) / step_px) * step_px for digits in found.groups())
    answer = questions.pointed((x_px, y_px))
    return replace(asked, answer=answer, looks=tuple(looks_at(answer, look.place_px) for look in asked.looks))


@lru_cache(maxsize=32)
def rendered_exams(skill: Skill, num: int) -> tuple[Exam, ...]:
    """The frozen held-out questions of one skill."""
    return tuple(
        Exam(
            skill=skill,
            lesson=Lesson(
                picture=item.picture, asked=(Asked(question=item.question, answer=item.answer),), glyphs=None
            ),
            point_px=item.point_px,
        )
        for item in held_out(skill, num)
    )
