"""Lessons rendered on the fly, some of them replaced by simulator frames where a folder of those is at hand."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from dataengine.mix.pixels import decode_picture
from dataengine.rendered import SKILLS, Skill, held_out
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.related import render_exercise
from dataengine.sources.content import hash_files
from schemas.errors import TrainError
from schemas.records import sha256_of
from trainers.vlm.lessons import CELLS_PER_PATCH, GLYPHS, Asked, Lesson
from trainers.vlm.recipe import Phase, VlmConfig
from trainers.vlm.score import Exam

_LISTING = "conversations.json"
_HASHED_ROWS = 4  # of each skill, at full difficulty: a change of the renderer shows in some of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """A folder of simulator frames with questions, as `write_questions` leaves it: several rows share a picture."""

    folder: Path
    pictures: tuple[tuple[str, tuple[tuple[str, Asked, tuple[float, float] | None], ...]], ...]

    @classmethod
    def open(cls, folder: Path) -> "Frames":
        """Read the listing. Raises TrainError where there is none."""
        path = folder / _LISTING
        if not path.is_file():
            raise TrainError(f"'{folder}' holds no {_LISTING}. Write simulator frames with questions there first.")
        found: dict[str, list[tuple[str, Asked, tuple[float, float] | None]]] = {}
        for row in json.loads(path.read_text(encoding="utf-8")):
            question, answer = (turn["value"].replace("<image>", "").strip() for turn in row["conversations"])
            point = row.get("point_px")
            asked = Asked(question=question, answer=answer)
            found.setdefault(row["image"], []).append((row["skill"], asked, tuple(point) if point else None))
        return cls(folder=folder, pictures=tuple((name, tuple(rows)) for name, rows in found.items()))

    @property
    def fingerprint(self) -> str:
        """Of the words and of the picture files."""
        return sha256_of(
            [
                [[s, a.question, a.answer, point] for s, a, point in rows] + [hash_files([self.folder / name])]
                for name, rows in self.pictures
            ]
        )

    def lesson(self, number: int, skills: frozenset[str], most: int, rng: np.random.Generator) -> Lesson | None:
        """A picture with questions of some skills; None where it has none of them."""
        name, rows = self.pictures[number]
        fitting = [asked for skill, asked, _ in rows if skill in skills]
        if not fitting:
            return None
        chosen = rng.permutation(len(fitting))[:most]
        return Lesson(picture=self.picture(name), asked=tuple(fitting[int(k)] for k in chosen), glyphs=None)

    def picture(self, name: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
        """One decoded frame."""
        return decode_picture((self.folder / name).read_bytes())

    def exams(self, num_per_skill: int) -> list[Exam]:
        """The first questions of each skill."""
        left: dict[str, int] = {}
        exams = []
        for name, rows in self.pictures:
            for skill, asked, point in rows:
                if left.setdefault(skill, num_per_skill) > 0:
                    left[skill] -= 1
                    lesson = Lesson(picture=self.picture(name), asked=(asked,), glyphs=None)
                    exams.append(Exam(skill=skill, lesson=lesson, point_px=point))
        return sorted(exams, key=lambda exam: exam.skill)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedLessons:
    """The lessons of a recipe; a pure function of the recipe's seed and the step."""

    config: VlmConfig
    frames: Frames | None = None

    @property
    def fingerprint(self) -> str:
        """Of what is not in the recipe: what the renderer draws and asks, by some of each skill, and the frames."""
        digest = hashlib.sha256(f"{GLYPHS} {CELLS_PER_PATCH}".encode())
        for skill in SKILLS:
            for row in range(_HASHED_ROWS):
                made = render_exercise(split="train", seed=self.config.seed, row=row, skill=skill, most=9)
                digest.update(made.picture)
                digest.update(repr((made.questions, made.glyphs)).encode())
        return sha256_of([digest.hexdigest(), self.frames.fingerprint if self.frames else None])

    def step(self, phase: Phase, phase_step: int, step: int) -> list[Lesson]:
        """The pictures of one step."""
        rng = keyed_rng("lessons", self.config.seed, step)
        skills = [skill for skill, _ in phase.skills]
        weights = np.array([weight for _, weight in phase.skills])
        chosen = rng.choice(len(skills), self.config.pictures_per_step, p=weights / weights.sum())
        lessons = []
        for place, number in enumerate(chosen):
            lesson = self._frame(phase, rng) if rng.random() < phase.frames_share else None
            lessons.append(lesson or self._rendered(phase, phase_step, step, place, skills[int(number)]))
        return lessons

    def _frame(self, phase: Phase, rng: np.random.Generator) -> Lesson | None:
        if self.frames is None:
            return None
        number = int(rng.integers(len(self.frames.pictures)))
        names = frozenset(skill for skill, _ in phase.skills)
        return self.frames.lesson(number, names, self.config.questions_per_picture, rng)

    def _rendered(self, phase: Phase, phase_step: int, step: int, place: int, skill: Skill) -> Lesson:
        exercise = render_exercise(
            split="train",
            seed=self.config.seed,
            row=step * self.config.pictures_per_step + place,
            skill=skill,
            most=self.config.questions_per_picture if phase.text_weight else 1,
            difficulty=phase.difficulty(phase_step),
        )
        names = {name for name, _ in phase.skills}
        return Lesson(
            picture=exercise.picture,
            asked=tuple(
                Asked(question=row.question, answer=row.answer) for row in exercise.questions if row.skill in names
            ),
            glyphs=tuple((glyph.char, glyph.x_px, glyph.y_px) for glyph in exercise.glyphs),
        )


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
