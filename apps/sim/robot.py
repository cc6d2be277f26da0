"""The simulated robot of closed-loop trials: reset to a scene, look, act, be scored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.sim.game import TASK, Split, draw_scene
from apps.sim.tabletop import CAMERAS, action_limits
from apps.sim.world import TrialOutcome, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the robot senses at one control step: `qpos` (14,) float32, images (height, width, 3) uint8 RGB."""

    qpos: NDArray[np.float32]
    images: dict[str, NDArray[np.uint8]]


class SimRobot:
    """The tabletop as a robot to be controlled at 50 Hz; `reset` first, `close` last."""

    task = TASK
    cameras = CAMERAS

    def __init__(self, *, image_size: tuple[int, int] = (320, 240)) -> None:
        self.image_size = image_size
        self._world: World | None = None

    @property
    def limits(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest action, (14,) each."""
        return action_limits()

    def reset(self, *, split: Split, seed: int, index: int) -> None:
        """The same cards, writing, light and physics as episode `index` recorded with this split and seed."""
        self.close()
        self._world = World(draw_scene(split=split, seed=seed, index=index), image_size=self.image_size)

    def observe(self) -> Observation:
        """State and all cameras, now."""
        world = self._running()
        return Observation(qpos=world.qpos, images={camera: world.render(camera) for camera in CAMERAS})

    def apply(self, action_14: NDArray[np.floating]) -> None:
        """One control step of 20 ms. Raises ValueError for a wrong shape or a number that is not finite."""
        self._running().step(action_14)

    def outcome(self) -> TrialOutcome:
        """The score as things lie now."""
        return self._running().outcome()

    def close(self) -> None:
        """Frees the scene and its graphics context."""
        if self._world is not None:
            self._world.close()
            self._world = None

    def _running(self) -> World:
        if self._world is None:
            raise RuntimeError("The robot has no scene yet. Call reset first.")
        return self._world
