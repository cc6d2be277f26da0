"""Toy placement as it runs: one scene of toys on the station's table, and whether the relation came true."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from apps.sim.station import Station
from apps.sim.tabletop import TabletopXml, station_xml, wood_png
from apps.sim.toys import COLOURS, HALF_M, TRAY_WALL_M, Toy, ToyScene
from dataengine.rendered.keyed import keyed_rng
from schemas.scenes import Box, Relation

_NEAR_M = 0.10  # between the edges of what lies beside each other, at most
_ON_TOP_M = 0.022  # how far off its middle a toy may lie on another


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOutcome:
    """What became of a trial: the target at rest, let go, and in the relation that was asked for."""

    success: bool
    at_rest: bool
    relation: Relation  # as it came out, in the robot's frame


class ToyWorld(Station):
    """One scene, from reset to outcome. Close it (or use `with`): it holds a renderer."""

    def __init__(self, scene: ToyScene, *, image_size: tuple[int, int] = (320, 240)) -> None:
        self.scene = scene
        super().__init__(build_toy_table(scene, image_size=image_size), image_size=image_size)

    def outcome(self) -> ToyOutcome:
        """The score as things lie now."""
        at_rest, relation = self.at_rest(_name(self.scene.target)), self.relation()
        return ToyOutcome(success=at_rest and relation == self.scene.relation, at_rest=at_rest, relation=relation)

    def relation(self) -> Relation:
        """How the target lies to the reference now, in the robot's frame."""
        target, reference = self.scene.toys[self.scene.target], self.scene.toys[self.scene.reference]
        at_m = self.centre_m(_name(self.scene.target))
        off_m = at_m - self.centre_m(_name(self.scene.reference))
        flat_m = float(np.hypot(off_m[0], off_m[1]))
        if reference.shape == "tray":
            half_x, half_y, _ = HALF_M["tray"]
            within = abs(off_m[0]) < half_x and abs(off_m[1]) < half_y
            if within and off_m[2] < target.half_m[2] + reference.half_m[2]:
                return "inside"
        if flat_m < _ON_TOP_M and off_m[2] > 0.8 * (target.half_m[2] + reference.half_m[2]):
            return "on top of"
        if flat_m > max(target.half_m[:2]) + max(reference.half_m[:2]) + _NEAR_M:
            return "unknown"
        if abs(off_m[0]) >= abs(off_m[1]):
            return "left of" if off_m[0] < 0 else "right of"
        return "in front of" if off_m[1] < 0 else "behind"

    def boxes(self, camera: str) -> list[Box | None]:
        """The box around the pixels that each toy shows now, exact; None for one that is hidden."""
        renderer = self._drawing()
        renderer.enable_segmentation_rendering()
        renderer.update_scene(self.data, camera=camera)
        ids, kinds = np.moveaxis(renderer.render(), -1, 0)
        renderer.disable_segmentation_rendering()
        bodies = np.full(ids.shape, -1)
        is_geom = kinds == int(mujoco.mjtObj.mjOBJ_GEOM)
        bodies[is_geom] = self.model.geom_bodyid[ids[is_geom]]
        return [_around(bodies == self.model.body(_name(number)).id) for number in range(len(self.scene.toys))]


def _around(mask: NDArray[np.bool_]) -> Box | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def build_toy_table(scene: ToyScene, *, image_size: tuple[int, int]) -> TabletopXml:
    """The model of one set-up; `image_size` is (width, height) in pixels."""
    light = keyed_rng("toy light", scene.split, scene.seed, scene.index).uniform(-1.0, 1.0, 3)
    toys = "".join(_toy(number, toy) for number, toy in enumerate(scene.toys))
    xml = station_xml(image_size=image_size, light=light, assets="", fixed="", movable=toys)
    return TabletopXml(xml=xml, assets={"wood.png": wood_png()})


def _name(number: int) -> str:
    return f"toy{number}"


def _toy(number: int, toy: Toy) -> str:
    half_x, half_y, half_z = toy.half_m
    rgba = " ".join(f"{value:.3f}" for value in (*COLOURS[toy.colour], 1.0))
    match toy.shape:
        case "cylinder" | "disc":
            geoms = f'<geom class="thing" type="cylinder" size="{half_x} {half_z}" mass="0.05" rgba="{rgba}"/>'
        case "box" | "bar":
            geoms = f'<geom class="thing" type="box" size="{half_x} {half_y} {half_z}" mass="0.05" rgba="{rgba}"/>'
        case "tray":
            geoms = _tray(rgba)
    return f"""
    <body name="{_name(number)}" pos="{toy.x_m:.5f} {toy.y_m:.5f} {half_z}" axisangle="0 0 1 {toy.yaw_rad:.5f}">
      <freejoint name="{_name(number)}"/>
      {geoms}
    </body>"""


def _tray(rgba: str) -> str:
    """A floor and four walls, heavy enough to stay where it is."""
    half_x, half_y, half_z = HALF_M["tray"]
    thick, floor = TRAY_WALL_M / 2, 0.0015
    walls = [
        (0.0, half_y - thick, half_x, thick),
        (0.0, thick - half_y, half_x, thick),
        (half_x - thick, 0.0, thick, half_y - 2 * thick),
        (thick - half_x, 0.0, thick, half_y - 2 * thick),
    ]
    parts = [f'<geom class="thing" type="box" size="{half_x} {half_y} {floor}" pos="0 0 {floor - half_z}" mass="0.2"']
    parts += [
        f'<geom class="thing" type="box" size="{wide:.4f} {deep:.4f} {half_z}" pos="{x_m:.4f} {y_m:.4f} 0" mass="0.05"'
        for x_m, y_m, wide, deep in walls
    ]
    return "".join(f'{part} rgba="{rgba}"/>' for part in parts)
