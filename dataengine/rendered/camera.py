"""The camera over the table: where a point of the table shows in the picture."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dataengine.rendered.items import PICTURE_SIZE

Points = NDArray[np.float64]

# The tabletop's `cam_high`; a test holds the two together.
_CENTRE_M = (0.0, -0.01, 0.98)
_UP = (0.0, 0.9888, 0.1494)
_FOV_Y_DEG = 29.5
_MIDDLE_M = np.array([[0.0, 0.06, 0.0]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """A pinhole and a shift: `axes` rows are the picture's right, up and backward directions."""

    centre_m: Points  # (3,)
    axes: Points  # (3, 3)
    focal_px: float
    shift_px: tuple[float, float]

    def project(self, points_m: Points) -> Points:
        """(N, 3) points of the table -> (N, 2) columns and rows."""
        seen = (points_m - self.centre_m) @ self.axes.T
        middle_px = (PICTURE_SIZE[0] / 2 + self.shift_px[0], PICTURE_SIZE[1] / 2 + self.shift_px[1])
        return np.asarray(seen[:, :2] / seen[:, 2:] * (-self.focal_px, self.focal_px) + middle_px, dtype=np.float64)

    def px_per_m(self, points_m: Points) -> Points:
        """How large a metre at each point shows, (N, 3) -> (N,)."""
        return np.asarray(-self.focal_px / ((points_m - self.centre_m) @ self.axes[2]), dtype=np.float64)


def table_camera(*, freedom: float, rng: np.random.Generator) -> Camera:
    """The tabletop's upper camera, moved and turned a little by `freedom` (0: exactly there).

    It keeps looking at the middle of the table, so that the board stays in view.
    """
    move = rng.uniform(-1, 1, 8) * freedom
    right = np.array([1.0, 0.0, 0.0])
    up = np.array(_UP) / np.linalg.norm(_UP)
    axes = np.stack([right, up, np.cross(right, up)])
    focal_px = PICTURE_SIZE[1] / 2 / np.tan(np.deg2rad(_FOV_Y_DEG) / 2)
    straight = Camera(centre_m=np.array(_CENTRE_M), axes=axes, focal_px=focal_px, shift_px=(0.0, 0.0))
    moved = Camera(
        centre_m=straight.centre_m + np.array([0.03, 0.03, 0.0]) * [move[0], move[1], 0.0],
        axes=_turn(0.06 * move[2], 0.06 * move[3], 0.05 * move[4]) @ axes,
        focal_px=focal_px * (1.0 - 0.03 * freedom + 0.08 * move[5]),
        shift_px=(0.0, 0.0),
    )
    drift = straight.project(_MIDDLE_M)[0] - moved.project(_MIDDLE_M)[0]
    return replace(moved, shift_px=(float(drift[0] + 9 * move[6]), float(drift[1] + 3 * freedom + 6 * move[7])))


def _turn(about_x_rad: float, about_y_rad: float, about_z_rad: float) -> Points:
    cx, cy, cz = np.cos([about_x_rad, about_y_rad, about_z_rad])
    sx, sy, sz = np.sin([about_x_rad, about_y_rad, about_z_rad])
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(z @ y @ x, dtype=np.float64)
