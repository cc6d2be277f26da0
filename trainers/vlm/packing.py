"""Which tokens of a batch are real, and which questions attend together.

A picture with seven questions is 400 tokens of which a fifth is padding, and a question sees a quarter of them. So the
language model is given the real tokens alone, in one row, and questions of like length attend side by side.

Axes: B pictures, T tokens of one with padding, N real tokens of all; of a group, G questions that attend together, L
tokens of the longest, R real ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

_ROOM = 1.25  # how much longer the longest of a group may be than the shortest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Questions that attend together; behind the end of a short one stands its last token again."""

    token_GL: Tensor  # among the real tokens
    is_real_GL: Tensor
    real_R: Tensor  # the real ones of these, in the flattened (G, L)
    picture_G: Tensor

    def to(self, device: torch.device) -> "Group":
        """The same on another device."""
        return Group(**{name: getattr(self, name).to(device) for name in Group.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packing:
    """The real tokens: first what stands before questions, picture by picture, then the questions group by group."""

    place_N: Tensor  # in the flattened (B, T)
    groups: tuple[Group, ...]
    num_pictures: int
    num_prefix: int

    def to(self, device: torch.device) -> "Packing":
        """The same on another device."""
        return replace(self, place_N=self.place_N.to(device), groups=tuple(group.to(device) for group in self.groups))


def pack(branches: Sequence[tuple[int, int, int]], *, num_prefix: int, num_pictures: int, length: int) -> Packing:
    """`branches` are (picture, first token, number of tokens) of each question; `length` is T."""
    places = [(np.arange(num_pictures)[:, None] * length + np.arange(num_prefix)).reshape(-1)]
    groups, start = [], num_pictures * num_prefix
    for together in _alike(sorted(branches, key=lambda branch: branch[2])):
        picture_G, first_G, num_G = (np.array(column) for column in zip(*together, strict=True))
        offset_1L = np.arange(num_G.max())[None]
        is_real_GL = offset_1L < num_G[:, None]
        starts_G = start + np.cumsum(num_G) - num_G
        groups.append(
            Group(
                token_GL=torch.from_numpy(starts_G[:, None] + np.minimum(offset_1L, num_G[:, None] - 1)),
                is_real_GL=torch.from_numpy(is_real_GL),
                real_R=torch.from_numpy(np.flatnonzero(is_real_GL)),
                picture_G=torch.from_numpy(picture_G),
            )
        )
        places.append((picture_G[:, None] * length + first_G[:, None] + offset_1L)[is_real_GL])
        start += int(num_G.sum())
    return Packing(
        place_N=torch.from_numpy(np.concatenate(places)),
        groups=tuple(groups),
        num_pictures=num_pictures,
        num_prefix=num_prefix,
    )


def _alike(branches: Sequence[tuple[int, int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """Runs of a sorted list of which the longest is not much longer than the shortest."""
    together: list[tuple[int, int, int]] = []
    for branch in branches:
        if together and branch[2] > _ROOM * together[0][2]:
            yield together
            together = []
        together.append(branch)
    if together:
        yield together
