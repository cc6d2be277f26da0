"""From pictures with questions to tensors: several questions share one picture, and none sees another's words.

The picture is looked at once; each question with its answer is a branch behind it that attends to the picture and to
itself. That is what a chat of this picture and this question alone would compute, at a quarter of the cost.

Axes: B pictures, T tokens, N picture tokens, G glyph cells, P patches, C colours, X pixels of a patch.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataengine.rendered.views import COLOURS, THINGS, Colour, ThingKind
from schemas.chat import IGNORE, Image, Message, Text, render_chat
from trainers.pixels import cut_patches, image_tokens, patch_grid
from trainers.recipes import VlmSize
from trainers.tokenizer import END_OF_TEXT, LocalTokenizer

GLYPHS = "0123456789+-x()=?"
_PICTURE_END = "<|vision_end|>"
CELLS_PER_PATCH = 2  # a side: two digits of a card may stand in one patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question about a picture, and its answer."""

    question: str  # may be empty where the instructions say what to do
    answer: str
    instructions: str = ""  # of the system; part of what all questions about a picture share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """A picture, what is in it, and what is asked about it, under one system's instructions. `glyphs` are
    (character, x, y) in pixels and `things` (kind, colour, x, y), or None where nobody knows them."""

    picture: NDArray[np.uint8]
    asked: tuple[Asked, ...]
    glyphs: tuple[tuple[str, float, float], ...] | None
    things: tuple[tuple[ThingKind, Colour, float, float], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonBatch:
    """What the model eats. All pictures have one size and the same instructions."""

    ids_BT: Tensor
    labels_BT: Tensor
    branch_BT: Tensor  # 0: the picture and what stands before it; 1..: questions; -1: padding
    offset_BT: Tensor  # place of a token in its branch
    patches_PCX: Tensor  # bytes; the model normalises them, so that a quarter travels between processes and devices
    grids: Tensor
    glyphs_BG: Tensor  # class of each cell of each patch: 0 none, IGNORE where unknown; in the order of the patches
    things_B2N: Tensor  # kind and colour of what lies in each picture token: 0 nothing, IGNORE where unknown
    num_prefix: int
    num_questions: int

    def to(self, device: torch.device) -> "LessonBatch":
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name in LessonBatch.__slots__
            for value in (getattr(self, name),)
        }
        return LessonBatch(**moved)


class LessonCollator:
    """Lessons to a batch; the only place where words become token ids."""

    def __init__(self, size: VlmSize, tokenizer: LocalTokenizer) -> None:
        self._size = size
        self._tokenizer = tokenizer
        self._pad = tokenizer.id_of(END_OF_TEXT)

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - one collator lives as long as its run
    def _branch(self, asked: Asked, num_image: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Ids and labels of a whole chat, and how many of them stand before the question."""
        chat = render_chat(messages_of(asked), self._tokenizer, [num_image])
        end = chat.ids.index(self._tokenizer.id_of(_PICTURE_END)) + 1
        return tuple(chat.ids), tuple(chat.labels), end

    def __call__(self, lessons: Sequence[Lesson]) -> LessonBatch:
        """Pad to the longest picture with its questions."""
        return self._batch(
            lessons, [[self._branch(asked, self._num_image(row)) for asked in row.asked] for row in lessons]
        )

    def opened(self, lesson: Lesson) -> list[int]:
        """Ids of the chat of the first question, up to where its answer begins."""
        turns = messages_of(lesson.asked[0])[:-1]
        return render_chat(turns, self._tokenizer, [self._num_image(lesson)], open_turn=True).ids

    def speaking(self, rows: Sequence[tuple[Lesson, list[int]]]) -> LessonBatch:
        """Chats as far as they have come, nothing to learn from."""
        end = self._tokenizer.id_of(_PICTURE_END)
        chats = [[(tuple(ids), (IGNORE,) * len(ids), ids.index(end) + 1)] for _, ids in rows]
        return self._batch([lesson for lesson, _ in rows], chats)

    def shape(self, lesson: Lesson) -> tuple[object, ...]:
        """Lessons of one shape fit into one batch."""
        height, width = lesson.picture.shape[:2]
        grid = patch_grid(width, height, patch_size=self._size.patch_size, merge_size=self._size.merge_size)
        return (*grid, lesson.asked[0].instructions)

    def _num_image(self, lesson: Lesson) -> int:
        height, width = lesson.picture.shape[:2]
        return image_tokens(width, height, patch_size=self._size.patch_size, merge_size=self._size.merge_size)

    def _batch(
        self, lessons: Sequence[Lesson], rows: Sequence[Sequence[tuple[tuple[int, ...], tuple[int, ...], int]]]
    ) -> LessonBatch:
        patches, grids = cut_patches(
            [lesson.picture for lesson in lessons],
            patch_size=self._size.patch_size,
            merge_size=self._size.merge_size,
        )
        prefix = rows[0][0][2]
        length = max(prefix + sum(len(ids) - prefix for ids, _, _ in row) for row in rows)
        ids = np.full((len(rows), length), self._pad, np.int64)
        labels = np.full((len(rows), length), IGNORE, np.int64)
        branch = np.full((len(rows), length), -1, np.int64)
        offset = np.zeros((len(rows), length), np.int64)
        for number, row in enumerate(rows):
            ids[number, :prefix], branch[number, :prefix] = row[0][0][:prefix], 0
            place = prefix
            for which, (words, wanted, _) in enumerate(row, 1):
                end = place + len(words) - prefix
                ids[number, place:end], labels[number, place:end] = words[prefix:], wanted[prefix:]
                branch[number, place:end], offset[number, place:end] = which, np.arange(end - place)
                place = end
        glyphs = np.stack([self._cells(lesson, grids[0]) for lesson in lessons])
        return LessonBatch(
            ids_BT=torch.from_numpy(ids),
            labels_BT=torch.from_numpy(labels),
            branch_BT=torch.from_numpy(branch),
            offset_BT=torch.from_numpy(offset),
            patches_PCX=torch.from_numpy(patches),
            grids=torch.from_numpy(grids),
            glyphs_BG=torch.from_numpy(glyphs),
            things_B2N=torch.from_numpy(np.stack([self._things(lesson, grids[0]) for lesson in lessons])),
            num_prefix=prefix,
            num_questions=sum(map(len, rows)),
        )

    def _things(self, lesson: Lesson, grid: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2, N): classes of kind and of colour, in the order of the picture tokens."""
        merge = self._size.merge_size
        rows, columns = int(grid[1]) // merge, int(grid[2]) // merge
        classes = np.full((2, rows, columns), IGNORE if lesson.things is None else 0, np.int64)
        height, width = lesson.picture.shape[:2]
        for kind, colour, x_px, y_px in lesson.things or ():
            row, column = int(y_px / height * rows), int(x_px / width * columns)
            classes[:, row, column] = THINGS.index(kind) + 1, COLOURS.index(colour) + 1
        return classes.reshape(2, -1)

    def _cells(self, lesson: Lesson, grid: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of all cells, patch by patch in the merged order of `patchify`."""
        rows, columns, merge = int(grid[1]), int(grid[2]), self._size.merge_size
        cells = np.full((rows * CELLS_PER_PATCH, columns * CELLS_PER_PATCH), 0, np.int64)
        if lesson.glyphs is None:
            cells[:] = IGNORE
        height, width = lesson.picture.shape[:2]
        for char, x_px, y_px in lesson.glyphs or ():
            row, column = int(y_px / height * len(cells)), int(x_px / width * cells.shape[1])
            if char in GLYPHS and 0 <= row < len(cells) and 0 <= column < cells.shape[1]:
                cells[row, column] = GLYPHS.index(char) + 1
        side = CELLS_PER_PATCH
        x = cells.reshape(rows // merge, merge, side, columns // merge, merge, side)
        return x.transpose(0, 3, 1, 4, 2, 5).reshape(-1)


def messages_of(asked: Asked) -> tuple[Message, ...]:
    """The chat: the instructions if any, the picture, the question, the answer that is learned."""
    question = (Text(asked.question),) if asked.question else ()
    turns = (
        Message(role="user", parts=(Image("picture"), *question)),
        Message(role="assistant", parts=(Text(asked.answer),), supervised=True),
    )
    return (Message(role="system", parts=(Text(asked.instructions),)), *turns) if asked.instructions else turns
