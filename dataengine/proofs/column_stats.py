"""Statistics recomputed from the rows as they stream by; quantiles by counting, so that nothing is kept or sorted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_RELATIVE = 1e-6  # mean and std are sums in another order

type Floats = NDArray[np.float64]


@dataclass(slots=True, kw_only=True, eq=False)
class StatsCheck:
    """What stats.json says of one feature, and what its rows say."""

    key: str
    said: dict[str, Floats]
    num: int
    low: Floats
    high: Floats
    off: Floats  # sum of (value - said mean): without the mean taken off, squares of large values would round
    squares: Floats
    below: dict[str, NDArray[np.int64]]  # quantile -> values smaller than it
    up_to: dict[str, NDArray[np.int64]]  # quantile -> values not larger than it

    @classmethod
    def of(cls, key: str, said: dict[str, Any]) -> "StatsCheck":
        """Nothing counted yet."""
        values: dict[str, Floats] = {
            name: np.asarray(value, dtype=np.float64).reshape(-1) for name, value in said.items()
        }
        dims = len(values["mean"])
        return cls(
            key=key,
            said=values,
            num=0,
            low=np.full(dims, np.inf),
            high=np.full(dims, -np.inf),
            off=np.zeros(dims),
            squares=np.zeros(dims),
            below={name: np.zeros(dims, np.int64) for name in _QUANTILES if name in values},
            up_to={name: np.zeros(dims, np.int64) for name in _QUANTILES if name in values},
        )

    def add(self, rows: NDArray[Any]) -> None:
        """Count (rows, dims)."""
        values = rows.astype(np.float64)
        if values.shape[1] != len(self.low):
            return  # `faults` says so: nothing is counted
        self.num += len(values)
        self.low = np.minimum(self.low, values.min(axis=0))
        self.high = np.maximum(self.high, values.max(axis=0))
        away = values - self.said["mean"]
        self.off += away.sum(axis=0)
        self.squares += (away**2).sum(axis=0)
        for name in self.below:
            # as much as a float32 or a histogram bin may round
            slack = _RELATIVE * np.maximum(np.abs(self.said[name]), 1e-30)
            self.below[name] += (values < self.said[name] - slack).sum(axis=0)
            self.up_to[name] += (values <= self.said[name] + slack).sum(axis=0)

    def faults(self) -> list[str]:
        """What differs, in words."""
        if "count" in self.said and int(self.said["count"][0]) != self.num:
            return [f"count is {int(self.said['count'][0])}, found {self.num}"]
        if not self.num:
            return []
        mean_off = self.off / self.num
        std = np.sqrt(np.maximum(self.squares / self.num - mean_off**2, 0))
        scale = _RELATIVE * np.maximum(np.maximum(np.abs(self.low), np.abs(self.high)), 1e-30)
        faults = []
        for name, found in (("min", self.low), ("max", self.high)):
            if (self.said[name] != found).any():
                dim = int(np.argmax(self.said[name] != found))
                faults.append(f"{name} of dimension {dim} is {self.said[name][dim]:g}, found {found[dim]:g}")
        if (np.abs(mean_off) > scale).any():
            faults.append(f"mean of dimension {int(np.argmax(np.abs(mean_off) - scale))} is off")
        if "std" in self.said and (np.abs(std - self.said["std"]) > 10 * scale).any():
            faults.append(f"std of dimension {int(np.argmax(np.abs(std - self.said['std']) - scale))} is off")
        for name, share in _QUANTILES.items():
            if name in self.below:
                faults += self._quantile(name, int(share * (self.num - 1)))
        return faults

    def _quantile(self, name: str, rank: int) -> list[str]:
        """A quantile lies between the values of two neighbouring ranks, however it was found."""
        odd = (self.below[name] > rank + 1) | (self.up_to[name] < rank + 1)
        return [f"{name} of dimension {int(np.argmax(odd))} is off"] if odd.any() else []
