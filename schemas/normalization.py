"""How numbers become what the model sees, and back. Saved with the model; the same object in training and serving."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import MixError

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalizer:
    """State is z-scored; actions map [low, high] to [-1, 1] (ChatVLA's scheme). One per embodiment.

    All arrays float32; state (S,), action (A,). `low`/`high` are bounds over the training split, widened so that no
    dimension has a range under 1e-2 (a constant dimension would otherwise be divided by zero).
    """

    embodiment: str
    state_mean: FloatArray
    state_std: FloatArray
    action_low: FloatArray
    action_high: FloatArray

    def __post_init__(self) -> None:
        if self.state_mean.shape != self.state_std.shape or self.action_low.shape != self.action_high.shape:
            raise MixError(f"{self.embodiment}: normalisation arrays differ in shape. Build the mix again.")
        if not (np.all(self.state_std >= 1e-2) and np.all(self.action_high - self.action_low >= 9e-3)):
            raise MixError(f"{self.embodiment}: a normalisation range is too small. Build the mix again.")

    @classmethod
    def fit(cls, embodiment: str, state: NDArray[np.floating], action: NDArray[np.floating]) -> "Normalizer":
        """From all rows of the training split: state (N, S), action (N, A)."""
        low, high = action.min(axis=0).astype(np.float32), action.max(axis=0).astype(np.float32)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 5e-3)
        return cls(
            embodiment=embodiment,
            state_mean=state.mean(axis=0, dtype=np.float64).astype(np.float32),
            state_std=np.maximum(state.std(axis=0, dtype=np.float64), 1e-2).astype(np.float32),
            action_low=(middle - half).astype(np.float32),
            action_high=(middle + half).astype(np.float32),
        )

    def state(self, state: NDArray[np.floating]) -> FloatArray:
        """(..., S) raw -> z-scores."""
        return ((state - self.state_mean) / self.state_std).astype(np.float32)

    def action(self, action: NDArray[np.floating]) -> FloatArray:
        """(..., A) raw -> [-1, 1] on the training split; not clipped."""
        return ((action - self.action_low) / (self.action_high - self.action_low) * 2 - 1).astype(np.float32)

    def raw_action(self, action: NDArray[np.floating]) -> FloatArray:
        """(..., A) model units -> raw; the inverse of `action`."""
        return ((action + 1) / 2 * (self.action_high - self.action_low) + self.action_low).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain lists; float32 values survive exactly."""
        return {
            "embodiment": self.embodiment,
            **{
                name: [float(v) for v in getattr(self, name)]
                for name in ("state_mean", "state_std", "action_low", "action_high")
            },
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Normalizer":
        """The inverse of `to_json`."""
        arrays = {
            name: np.asarray(value[name], dtype=np.float32)
            for name in ("state_mean", "state_std", "action_low", "action_high")
        }
        return cls(embodiment=str(value["embodiment"]), **arrays)
