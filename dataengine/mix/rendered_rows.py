"""Image-text rows that nobody collected: rendered boards and tables with questions, drawn while the mix is built."""

from collections.abc import Iterator

import cv2
import numpy as np

from dataengine.mix.image_text import RawRow
from dataengine.rendered import SKILLS, Skill, render_item
from schemas.chat import Image, Message, Text
from schemas.errors import MixError, did_you_mean
from schemas.mixes import RenderedSource


class RenderedImageText:
    """The rows of a RenderedSource, of the training split alone: what is held out stays unseen."""

    def __init__(self, source: RenderedSource) -> None:
        self._source = source
        known = {str(skill): skill for skill in SKILLS}
        for name in source.skills:
            if name not in known:
                raise MixError(f"source '{source.name}': there is no skill '{name}'. {did_you_mean(name, SKILLS)}")
        self._skills: tuple[Skill, ...] = tuple(known[name] for name in source.skills) or SKILLS

    def rows(self) -> Iterator[RawRow]:
        """`rows_per_skill` questions of each skill in turn."""
        for row in range(self._source.rows_per_skill):
            for skill in self._skills:
                item = render_item(split="train", seed=self._source.seed, row=row, skill=skill)
                asked = Message(role="user", parts=(Image("image1"), Text(item.question)))
                answer = Message(role="assistant", parts=(Text(item.answer),), supervised=True)
                pointer = f"{skill}/{row}"
                yield RawRow(row_id=pointer, messages=(asked, answer), pictures=(pointer,))

    def picture(self, pointer: str) -> bytes:
        """PNG bytes of one picture, rendered again."""
        name, row = pointer.split("/")
        skill = next(skill for skill in self._skills if skill == name)
        item = render_item(split="train", seed=self._source.seed, row=int(row), skill=skill)
        _, png = cv2.imencode(".png", np.ascontiguousarray(item.picture[..., ::-1]))
        return png.tobytes()
