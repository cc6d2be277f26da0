"""The math matching game as it runs: one scene of cards on the station's table, and its score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apps.sim.game import POSITIONS, Scene
from apps.sim.station import NUM_DIMS, Station, home_action
from apps.sim.tabletop import CARD_HALF_M, LEDGE_CENTRE_M, LEDGE_HALF_M, LEDGE_TOP_M, build_tabletop

# Named here too: the world is where its users look for them.
__all__ = ["NUM_DIMS", "TrialOutcome", "World", "home_action"]

_LIFTED_M = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialOutcome:
    """What became of a trial: `success` wants the right card, resting on the ledge, let go.

    A wrong number is a failure of reasoning, no picked card a failure of control. `picked_*` names the card that
    was lifted last, `placed` says that some lifted card was let go and lies still, `on_ledge` that it lies there.
    """

    success: bool
    picked_position: str | None
    picked_number: int | None
    placed: bool
    on_ledge: bool
    num_steps: int


class World(Station):
    """One scene, from reset to outcome. Close it (or use `with`): it holds a renderer."""

    def __init__(self, scene: Scene, *, image_size: tuple[int, int] = (320, 240)) -> None:
        self.scene = scene
        self._lifted: int | None = None
        super().__init__(build_tabletop(scene, image_size=image_size), image_size=image_size)

    def reset(self) -> None:
        """Back to the start of the scene: arms at home, cards where they were laid."""
        super().reset()
        self._lifted = None

    def step(self, action_14: NDArray[np.floating]) -> None:
        """One control step, and a look at which card is up."""
        super().step(action_14)
        for slot in range(3):
            if self.card_centre_m(slot)[2] > LEDGE_TOP_M + CARD_HALF_M[2] + _LIFTED_M:
                self._lifted = slot

    def card_centre_m(self, slot: int) -> NDArray[np.float64]:
        """Where a card's centre is, (3,)."""
        return self.centre_m(f"card{slot}")

    def card_yaw_rad(self, slot: int) -> float:
        """How far a card is turned about the vertical."""
        return self.yaw_rad(f"card{slot}")

    def outcome(self) -> TrialOutcome:
        """The score as things lie now."""
        slot = self._lifted
        placed = slot is not None and self.at_rest(f"card{slot}")
        on_ledge = slot is not None and self._on_ledge(slot)
        return TrialOutcome(
            success=placed and on_ledge and slot == self.scene.correct_slot,
            picked_position=None if slot is None else POSITIONS[slot],
            picked_number=None if slot is None else self.scene.cards[slot].number,
            placed=placed,
            on_ledge=on_ledge,
            num_steps=self.num_steps,
        )

    def _on_ledge(self, slot: int) -> bool:
        x_m, y_m, z_m = self.card_centre_m(slot)
        return bool(
            abs(x_m - LEDGE_CENTRE_M[0]) <= LEDGE_HALF_M[0]
            and abs(y_m - LEDGE_CENTRE_M[1]) <= LEDGE_HALF_M[1]
            and abs(z_m - LEDGE_TOP_M - CARD_HALF_M[2]) <= 0.006
        )
