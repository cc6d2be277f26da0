"""Toy placement: which toys lie where, and what is to be put where.

A `ToyScene` is a pure function of (split, seed, index). The two splits share no toy (a colour and a shape), so no
instruction, no wording of an instruction, and no layout: an open-world trial asks for things no demonstration showed.

Of ChatVLA-2's six relations (left, right, front, behind, top, bottom) five are here. Nothing can be put under a
rigid thing by a gripper from above, so the sixth is `inside` a tray. All hold in the frame of the robot: it stands at
the near edge and looks across the table, `in front of` is nearer to it.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from apps.sim.game import Split
from dataengine.rendered.keyed import keyed_rng
from schemas.scenes import RELATION_WORDS, Relation

RELATIONS: tuple[Relation, ...] = ("left of", "right of", "in front of", "behind", "on top of", "inside")
Shape = Literal["box", "cylinder", "bar", "disc", "tray"]
# Half sizes in metres along x, y, z before a toy is turned; of round ones the first two are the radius.
HALF_M: dict[Shape, tuple[float, float, float]] = {
    "box": (0.020, 0.020, 0.020),
    "cylinder": (0.020, 0.020, 0.022),
    "bar": (0.042, 0.020, 0.016),
    "disc": (0.029, 0.029, 0.012),
    "tray": (0.060, 0.055, 0.006),
}
TRAY_WALL_M = 0.004
# Hues apart from each other, from the wood and from the arms' accents.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.10, 0.10),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.12, 0.20, 0.82),
    "yellow": (0.90, 0.82, 0.10),
    "purple": (0.50, 0.14, 0.72),
    "pink": (0.92, 0.35, 0.63),
    "white": (0.94, 0.94, 0.93),
    "teal": (0.08, 0.68, 0.63),
}
_FIRST, _SECOND = ("red", "green", "blue"), ("yellow", "purple", "pink")
TOYS: dict[Split, tuple[tuple[str, Shape], ...]] = {
    "in-domain": tuple((colour, shape) for colour in _FIRST for shape in ("box", "cylinder", "bar")),
    "open-world": (
        *((colour, shape) for colour in _SECOND for shape in ("box", "cylinder", "bar", "disc")),
        *((colour, "disc") for colour in _FIRST),
    ),
}
TRAYS: dict[Split, str] = {"in-domain": "white", "open-world": "teal"}
WORDINGS: dict[Split, tuple[str, ...]] = {
    "in-domain": (
        "Put the {target} {where} the {reference}.",
        "Pick up the {target} and put it {where} the {reference}.",
    ),
    "open-world": ("Move the {target} {where} the {reference}.", "Place the {target} {where} the {reference}."),
}
# Where toys lie, (x, y) in metres. The jitter is smaller than half the distance between any two layouts.
LAYOUTS: dict[Split, dict[str, tuple[tuple[float, float], ...]]] = {
    "in-domain": {
        "square": ((-0.105, 0.000), (0.105, 0.000), (-0.105, 0.135), (0.105, 0.135)),
        "diamond": ((0.000, -0.015), (-0.135, 0.065), (0.135, 0.065), (0.000, 0.150)),
        "row": ((-0.165, 0.045), (-0.055, 0.045), (0.055, 0.045), (0.165, 0.045)),
    },
    "open-world": {
        "slope": ((-0.150, 0.120), (-0.050, 0.065), (0.050, 0.015), (0.155, -0.030)),
        "fan": ((-0.050, -0.025), (0.060, -0.020), (-0.155, 0.095), (0.150, 0.105)),
        "kite": ((0.020, 0.050), (-0.140, 0.020), (0.150, 0.020), (0.040, 0.165)),
    },
}
_JITTER_XY_M, _JITTER_YAW_RAD = 0.008, 0.25
_GAP_M = (0.026, 0.042)  # between the target and the reference, once it is put beside it
_FREE_M = 0.034  # between any other two: a hand must fit
_BASES_M = {"left": (-0.24, -0.34), "right": (0.24, -0.34)}
_REACH_M = 0.53  # from an arm's base: further, a gripper can not point straight down with height to spare
_LEAST_REACH_M = 0.25
_LEAST_WAY_M = 0.06  # from where the target starts to where it belongs: less is nothing to show


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """One thing on the table: what it looks like and where it starts."""

    colour: str
    shape: Shape
    x_m: float
    y_m: float
    yaw_rad: float

    @property
    def noun(self) -> str:
        """What it is called: no two toys of a scene share it."""
        return f"{self.colour} {self.shape}"

    @property
    def half_m(self) -> tuple[float, float, float]:
        """Half sizes along its own axes."""
        return HALF_M[self.shape]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyScene:
    """Everything that differs between two set-ups of the table."""

    split: Split
    seed: int
    index: int
    toys: tuple[Toy, ...]
    target: int  # which toy is moved
    reference: int
    relation: Relation
    goal_xy_m: tuple[float, float]  # where the target's centre is to come to lie
    instruction: str
    layout: str

    def __post_init__(self) -> None:
        nouns = [toy.noun for toy in self.toys]
        if len(set(nouns)) != len(nouns) or self.target == self.reference:
            raise ValueError(f"Toys have a noun each, target and reference differ; got {nouns}.")

    @property
    def side(self) -> str:
        """The arm that reaches both the target and its goal with most to spare."""
        toy = self.toys[self.target]
        return min(_BASES_M, key=lambda side: _furthest_m(side, (toy.x_m, toy.y_m), self.goal_xy_m))


def layout_names(split: Split) -> tuple[str, ...]:
    """The toy layouts of a split."""
    return tuple(LAYOUTS[split])


def draw_toy_scene(*, split: Split, seed: int, index: int) -> ToyScene:
    """The set-up number `index` of a seeded series; relations come in shuffled rounds, so short series are balanced."""
    turn, place = divmod(index, len(RELATIONS))
    relation = RELATIONS[int(keyed_rng("toy relation", split, seed, turn).permutation(len(RELATIONS))[place])]
    rng = keyed_rng("toy scene", split, seed, index)
    while True:  # a few tries: most layouts leave room beside most toys
        scene = _try(split, seed, index, relation, rng)
        if scene is not None:
            return scene


def _try(split: Split, seed: int, index: int, relation: Relation, rng: np.random.Generator) -> ToyScene | None:
    layout = layout_names(split)[rng.integers(len(LAYOUTS[split]))]
    places = rng.permutation(np.array(LAYOUTS[split][layout]))
    count = int(rng.integers(3, 5))
    kinds = [TOYS[split][at] for at in rng.permutation(len(TOYS[split]))[:count]]
    if relation == "inside":
        kinds[1] = (TRAYS[split], "tray")
    if kinds[0][0] == kinds[1][0]:  # one colour on top of itself is one blob, to people too
        return None
    toys = tuple(
        Toy(
            colour=colour,
            shape=shape,
            x_m=float(x_m + rng.uniform(-_JITTER_XY_M, _JITTER_XY_M)),
            y_m=float(y_m + rng.uniform(-_JITTER_XY_M, _JITTER_XY_M)),
            yaw_rad=0.0 if shape == "tray" else float(rng.uniform(-_JITTER_YAW_RAD, _JITTER_YAW_RAD)),
        )
        for (colour, shape), (x_m, y_m) in zip(kinds, places, strict=False)
    )
    target, reference = toys[0], toys[1]
    goal = _goal(target, reference, relation, float(rng.uniform(*_GAP_M)))
    wording = WORDINGS[split][rng.integers(len(WORDINGS[split]))]
    instruction = wording.format(target=target.noun, where=RELATION_WORDS[relation], reference=reference.noun)
    order = rng.permutation(len(toys)).tolist()  # which number a toy has says nothing about its part
    scene = ToyScene(
        split=split,
        seed=seed,
        index=index,
        toys=tuple(toys[at] for at in order),
        target=order.index(0),
        reference=order.index(1),
        relation=relation,
        goal_xy_m=goal,
        instruction=instruction,
        layout=layout,
    )
    return scene if _can_be_played(scene) else None


def _goal(target: Toy, reference: Toy, relation: Relation, gap_m: float) -> tuple[float, float]:
    """Where the target's centre belongs: it is put down with its long side across."""
    beside_x = target.half_m[0] + max(reference.half_m[:2]) + gap_m
    beside_y = target.half_m[1] + max(reference.half_m[:2]) + gap_m
    step = {
        "left of": (-beside_x, 0.0),
        "right of": (beside_x, 0.0),
        "in front of": (0.0, -beside_y),
        "behind": (0.0, beside_y),
    }.get(relation, (0.0, 0.0))
    return (reference.x_m + step[0], reference.y_m + step[1])


def _can_be_played(scene: ToyScene) -> bool:
    target = scene.toys[scene.target]
    for one, other in combinations(scene.toys, 2):
        if _apart_m((one.x_m, one.y_m), (other.x_m, other.y_m)) < _round_m(one) + _round_m(other) + _FREE_M:
            return False
    others = [toy for number, toy in enumerate(scene.toys) if number not in (scene.target, scene.reference)]
    goal = scene.goal_xy_m
    if _apart_m(goal, (target.x_m, target.y_m)) < _LEAST_WAY_M:
        return False
    if any(_apart_m(goal, (toy.x_m, toy.y_m)) < _round_m(target) + _round_m(toy) + _FREE_M for toy in others):
        return False
    furthest_m = _furthest_m(scene.side, (target.x_m, target.y_m), goal)
    nearest_m = min(_apart_m(_BASES_M[side], spot) for side in _BASES_M for spot in (goal, (target.x_m, target.y_m)))
    return furthest_m <= _REACH_M and nearest_m >= _LEAST_REACH_M and goal[1] > -0.06


def _round_m(toy: Toy) -> float:
    """The radius of the circle that holds it, seen from above."""
    half_x, half_y, _ = toy.half_m
    return half_x if toy.shape in ("cylinder", "disc") else float(np.hypot(half_x, half_y))


def _furthest_m(side: str, *spots: tuple[float, float]) -> float:
    return max(_apart_m(_BASES_M[side], spot) for spot in spots)


def _apart_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    return float(np.hypot(one[0] - other[0], one[1] - other[1]))
