"""Which scenes the trials are played in: those of recorded episodes, or fresh ones that nobody recorded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from apps.sim.game import Split
from schemas.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialScene:
    """A scene of the simulator; `episode_id` names the recording made in it, if any."""

    split: Split
    seed: int
    index: int
    episode_id: str = ""


class _Truth(BaseModel):
    """The part of the simulator's side file that says how to set the same scene up again."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    split: Split
    seed: int
    index: int


def recorded_scenes(ground_truth: Path, raw_names: Sequence[tuple[str, str]]) -> tuple[TrialScene, ...]:
    """The scenes of recorded episodes, given as (episode_id, raw file name). Raises UsageError when one is unknown."""
    if not ground_truth.is_dir():
        raise UsageError(f"there is no folder {ground_truth}. Give the .ground_truth folder that `simulate` wrote.")
    scenes = []
    for episode_id, raw_name in raw_names:
        path = ground_truth / f"{Path(raw_name).stem}.json"
        try:
            truth = _Truth.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise UsageError(
                f"{ground_truth} does not say how episode '{raw_name}' was set up (no {path.name}). "
                "Give the folder that belongs to these episodes."
            ) from None
        except ValidationError as error:
            raise UsageError(f"{path} is damaged ({error.errors()[0]['msg']}). Simulate the episodes again.") from None
        scenes.append(TrialScene(split=truth.split, seed=truth.seed, index=truth.index, episode_id=episode_id))
    return tuple(scenes)


def recorded_seeds(ground_truth: Path | None) -> frozenset[int]:
    """All seeds that demonstrations were simulated with."""
    if ground_truth is None or not ground_truth.is_dir():
        return frozenset()
    return frozenset(int(json.loads(path.read_bytes())["seed"]) for path in sorted(ground_truth.glob("episode_*.json")))


def fresh_scenes(split: Split, *, trials: int, seed: int, taken: frozenset[int]) -> tuple[TrialScene, ...]:
    """Scenes of the first seed from `seed` on that no demonstration used."""
    while seed in taken:
        seed += 1
    return tuple(TrialScene(split=split, seed=seed, index=index) for index in range(trials))
