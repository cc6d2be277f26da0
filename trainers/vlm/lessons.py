"""From pictures with questions to tensors: several questions share one picture, and none sees another's words.

The picture is looked at once; each question with its answer is a branch behind it that attends to the picture and to
itself. That is what a chat of this picture and this question alone would compute, at a quarter of the cost.

Axes: B pictures, T tokens, N picture tokens, G glyph cells, P patches, C colours, X pixels of a patch.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataengine.rendered.looks import Look
from dataengine.rendered.views import COLOURS, THINGS, Colour, ThingKind
from schemas.chat import IGNORE, IMAGE_TOKEN, Image, Message, Text, render_chat
from trainers.pixels import cut_patches, image_tokens, patch_grid
from trainers.recipes import VlmSize
from trainers.tokenizer import END_OF_TEXT, LocalTokenizer
from trainers.vlm.packing import Packing, pack

GLYPHS = "0123456789+-x()=?"
_PICTURE_END = "<|vision_end|>"
CARD_CLASSES = 12  # of tens, and of units: 0 no card, 1 a number of one digit (tens only), 2 to 11 the digit
_LARGEST_CARD = 99  # a larger number has no class and stays unknown
CELLS_PER_PATCH = 2  # a side: two digits of a card may stand in one patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question about a picture, and its answer."""

    question: str  # may be empty where the instructions say what to do
    answer: str
    instructions: str = ""  # of the system; part of what all questions about a picture share
    looks: tuple[Look, ...] = ()  # where in the picture words of the answer are found, as far as known


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """A picture, what is in it, and what is asked about it, under one system's instructions. `glyphs` are
    (character, x, y) in pixels, `things` (kind, colour, x, y), or None where nobody knows them; `cards` (number, x, y),
    the number None where it is hidden, and whether these are all cards."""

    picture: NDArray[np.uint8]
    asked: tuple[Asked, ...]
    glyphs: tuple[tuple[str, float, float], ...] | None
    things: tuple[tuple[ThingKind, Colour, float, float], ...] | None = None
    cards: tuple[tuple[int | None, float, float], ...] = ()
    are_all_cards: bool = False


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
    gaze_BT2: Tensor  # token of the picture's own part at which each of two heads should look; IGNORE: anywhere
    things_B2N: Tensor  # kind and colour of what lies in each picture token: 0 nothing, IGNORE where unknown
    cards_B2N: Tensor  # tens and units of the card with its middle in each picture token, see `CARD_CLASSES`; or IGNORE
    packing: Packing
    num_prefix: int
    num_questions: int

    def to(self, device: torch.device) -> "LessonBatch":
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            if isinstance(value, Tensor)
            else value.to(device)
            if isinstance(value, Packing)
            else value
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
        self._image = tokenizer.id_of(IMAGE_TOKEN)

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - one collator lives as long as its run
    def _branch(self, asked: Asked, num_image: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Ids and labels of a whole chat, without looks, and how many of them stand before the question."""
        chat = render_chat(messages_of(asked), self._tokenizer, [num_image])
        end = chat.ids.index(self._tokenizer.id_of(_PICTURE_END)) + 1
        return tuple(chat.ids), tuple(chat.labels), end

    def __call__(self, lessons: Sequence[Lesson]) -> LessonBatch:
        """Pad to the longest picture with its questions."""
        return self._batch(
            lessons,
            [[self._branch(replace(asked, looks=()), self._num_image(row)) for asked in row.asked] for row in lessons],
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
        gaze = np.full((len(rows), length, 2), IGNORE, np.int64)
        branches = []
        for number, row in enumerate(rows):
            ids[number, :prefix], branch[number, :prefix] = row[0][0][:prefix], 0
            place = prefix
            for which, (words, wanted, _) in enumerate(row, 1):
                end = place + len(words) - prefix
                ids[number, place:end], labels[number, place:end] = words[prefix:], wanted[prefix:]
                branches.append((number, place, end - place))
                branch[number, place:end], offset[number, place:end] = which, np.arange(end - place)
                for token, target, other in self._gaze(lessons[number], which - 1, words, wanted, grids[0]):
                    gaze[number, place + token - prefix - 1, int(other)] = target
                place = end
        glyphs = np.stack([self._cells(lesson, grids[0]) for lesson in lessons])
        return LessonBatch(
            ids_BT=torch.from_numpy(ids),
            labels_BT=torch.from_numpy(labels),
            branch_BT=torch.from_numpy(branch),
            offset_BT=torch.from_numpy(offset),
            gaze_BT2=torch.from_numpy(gaze),
            patches_PCX=torch.from_numpy(patches),
            grids=torch.from_numpy(grids),
            glyphs_BG=torch.from_numpy(glyphs),
            things_B2N=torch.from_numpy(np.stack([self._things(lesson, grids[0]) for lesson in lessons])),
            cards_B2N=torch.from_numpy(np.stack([self._cards(lesson, grids[0]) for lesson in lessons])),
            packing=pack(branches, num_prefix=prefix, num_pictures=len(rows), length=length),
            num_prefix=prefix,
            num_questions=sum(map(len, rows)),
        )

    def _gaze(
        self, lesson: Lesson, which: int, ids: Sequence[int], labels: Sequence[int], grid: NDArray[np.int64]
    ) -> Iterator[tuple[int, int, bool]]:
        """A token of a chat, the token of the picture's part that it is about, and whether that is the other thing.

        What is not there is looked for at the mark before the picture.
        """
        asked = lesson.asked[which]
        if not asked.looks:
            return
        first = ids.index(self._image)
        rows, columns = (int(side) // self._size.merge_size for side in grid[1:])
        answer = [token for token, label in enumerate(labels) if label != IGNORE]
        spans = self._tokenizer.spans(asked.answer)
        for look in asked.looks:
            target = first - 1
            if look.place_px is not None:
                cell = _cell(*look.place_px, lesson, rows, columns)
                if cell is None:
                    continue
                target = first + cell[0] * columns + cell[1]
            for token, (start, end) in zip(answer, spans, strict=False):  # the last one ends the turn
                if start < look.end and look.start < end:
                    yield token, target, look.other

    def _things(self, lesson: Lesson, grid: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2, N): classes of kind and of colour, in the order of the picture tokens."""
        merge = self._size.merge_size
        rows, columns = int(grid[1]) // merge, int(grid[2]) // merge
        classes = np.full((2, rows, columns), IGNORE if lesson.things is None else 0, np.int64)
        for kind, colour, x_px, y_px in lesson.things or ():
            if cell := _cell(x_px, y_px, lesson, rows, columns):
                classes[:, *cell] = THINGS.index(kind) + 1, COLOURS.index(colour) + 1
        return classes.reshape(2, -1)

    def _cards(self, lesson: Lesson, grid: NDArray[np.int64]) -> NDArray[np.int64]:
        """(2, N): classes of tens and of units, in the order of the picture tokens."""
        merge = self._size.merge_size
        rows, columns = int(grid[1]) // merge, int(grid[2]) // merge
        classes = np.full((2, rows, columns), 0 if lesson.are_all_cards else IGNORE, np.int64)
        for number, x_px, y_px in lesson.cards:
            if cell := _cell(x_px, y_px, lesson, rows, columns):
                classes[:, *cell] = IGNORE if number is None or number > _LARGEST_CARD else _digits(number)
        return classes.reshape(2, -1)

    def _cells(self, lesson: Lesson, grid: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of all cells, patch by patch in the merged order of `patchify`."""
        rows, columns, merge = int(grid[1]), int(grid[2]), self._size.merge_size
        cells = np.full((rows * CELLS_PER_PATCH, columns * CELLS_PER_PATCH), 0, np.int64)
        if lesson.glyphs is None:
            cells[:] = IGNORE
        for char, x_px, y_px in lesson.glyphs or ():
            cell = _cell(x_px, y_px, lesson, *cells.shape)
            if char in GLYPHS and cell is not None:
                cells[cell] = GLYPHS.index(char) + 1
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


def _cell(x_px: float, y_px: float, lesson: Lesson, rows: int, columns: int) -> tuple[int, int] | None:
    """Row and column of the cell in which a place of the picture lies; None beside the picture."""
    height, width = lesson.picture.shape[:2]
    row, column = math.floor(y_px / height * rows), math.floor(x_px / width * columns)
    return (row, column) if 0 <= row < rows and 0 <= column < columns else None


def _digits(number: int) -> tuple[int, int]:
    """Classes of a card's tens and units."""
    return (1 if number < 10 else number // 10 + 2), number % 10 + 2
