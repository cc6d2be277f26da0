"""What crosses the line between a policy and a robot."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import WireError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """What the robot sees now. images: upright RGB uint8 (H, W, 3) by camera name; state: (S,) float32 raw units."""

    images: dict[str, NDArray[np.uint8]]
    state: NDArray[np.float32]
    prompt: str

    def __post_init__(self) -> None:
        if self.state.ndim != 1:
            raise WireError(f"state must be one row, got shape {self.state.shape}. Send shape (S,).")
        for name, image in self.images.items():
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise WireError(f"image '{name}' must be uint8 (H, W, 3), got {image.dtype} {image.shape}.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """The block of future actions a policy predicts: (steps, A) float32 raw units, and the reasoning behind it."""

    actions: NDArray[np.float32]
    reasoning: str


class Policy(Protocol):
    """Anything that turns an observation into a chunk: a trained model, a recording, a random walk."""

    name: str

    def infer(self, observation: Observation) -> Chunk: ...
    def reset(self) -> None:
        """Forget the trial before; called when a robot starts a new one."""
        ...
