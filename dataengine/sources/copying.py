"""Sources whose pictures are copied to their places while they are looked at, and not read a second time."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dataengine.sinks.shard_plan import CameraCopy, ShardPlan
from dataengine.sinks.staging import StageFrames, StageJob
from dataengine.sources.protocol import Source
from schemas.episodes import Episode

type CopyTo = Callable[[str, NDArray[np.int64]], CameraCopy | None]  # camera, bytes of each JPEG -> who takes them


@runtime_checkable
class StatesSizes(Protocol):
    """A source that knows how large JPEGs are before it reads them; optional."""

    def jpeg_sizes(self, name: str) -> Mapping[str, NDArray[np.int64]]:
        """Bytes of each JPEG of each camera; empty where the episode does not state them for all of its cameras.

        Cheap: nothing but headers is read. Raises EpisodeError for an episode that `read` would refuse.
        """
        ...

    def read_copying(self, name: str, copy_to: CopyTo) -> Episode:
        """As `read`; pictures go to whom `copy_to` names, each after it was checked."""
        ...


def shard_plan(source: Source, stamps: Mapping[str, str], jobs: tuple[StageJob, ...]) -> ShardPlan | None:
    """Where pictures go, if the source's own JPEGs are all that is staged and it states their sizes.

    Beside video nothing would be gained: encoding takes fifty times as long.
    """
    match jobs:
        case (StageFrames(root=root, frame_size=None, boot=str(boot)),) if isinstance(source, StatesSizes):
            return ShardPlan.of(root, boot, stamps, source.jpeg_sizes)
    return None


def read_copying(source: Source, name: str, plan: ShardPlan | None) -> Episode:
    """One episode, pictures written to their places on the way where there is a plan."""
    if plan is None or not isinstance(source, StatesSizes):
        return source.read(name)
    with plan.copies(name) as copies:
        return source.read_copying(name, copies.of)
