"""One recorded demonstration, and the file a lab would keep of it.

The file has the layout of ACT / DexVLA with compressed cameras: `/action`, `/observations/{qpos,qvel,effort}`,
`/observations/images/<camera>` with one zero-padded JPEG per row, `/compress_len` with one row per camera in
alphabetical order, `/language_raw`, and the attributes `sim` and `compress`. It holds no reasoning. The JPEGs are
encoded from RGB, so any standard decoder returns RGB (real ALOHA stations often store BGR).
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from apps.sim.game import POSITIONS, TASK, Scene
from apps.sim.scripted_operator import Phase, ScriptedOperator, ToyOperator
from apps.sim.tabletop import CAMERAS
from apps.sim.toy_world import ToyWorld
from apps.sim.toys import ToyScene
from apps.sim.world import World
from schemas.errors import EpisodeError

JPEG_QUALITY = 80
MAX_ATTEMPTS = 5
BOX_CAMERA = "cam_high"  # whose pixels the true boxes of toys are given in


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A successful demonstration: columns are (frames, 14) float32, cameras one JPEG per frame."""

    scene: Scene | ToyScene
    operator: str
    arm: str
    attempt: int
    num_grasps: int
    phases: tuple[Phase, ...]
    subtasks: tuple[Phase, ...]
    action: NDArray[np.float32]
    qpos: NDArray[np.float32]
    qvel: NDArray[np.float32]
    effort: NDArray[np.float32]
    jpegs: dict[str, list[bytes]]
    extra: dict[str, Any] = field(default_factory=dict)  # of the truth: what only the world knows

    @property
    def task(self) -> str:
        """The instruction."""
        return self.scene.instruction if isinstance(self.scene, ToyScene) else TASK

    @property
    def num_frames(self) -> int:
        """Frames of every column and camera."""
        return len(self.action)

    def ground_truth(self) -> dict[str, object]:
        """What the scene was and what was done, for scoring only: no stage of the engine may read it."""
        return {
            "split": self.scene.split,
            "seed": self.scene.seed,
            "index": self.scene.index,
            **(_toys(self.scene) if isinstance(self.scene, ToyScene) else _cards(self.scene)),
            "layout": self.scene.layout,
            "operator": self.operator,
            "arm": self.arm,
            "attempt": self.attempt,
            "num_grasps": self.num_grasps,
            "num_frames": self.num_frames,
            "phases": [{"name": phase.name, "start": phase.start, "stop": phase.stop} for phase in self.phases],
            "subtasks": [{"name": part.name, "start": part.start, "stop": part.stop} for part in self.subtasks],
            **self.extra,
        }


def _cards(scene: Scene) -> dict[str, object]:
    return {
        "equation": scene.equation.text,
        "answer": scene.equation.answer,
        "cards": [
            {"position": position, "number": card.number, "x_m": card.x_m, "y_m": card.y_m, "yaw_rad": card.yaw_rad}
            for position, card in zip(POSITIONS, scene.cards, strict=True)
        ],
        "chosen_position": POSITIONS[scene.correct_slot],
        "style": scene.style,
    }


def _toys(scene: ToyScene) -> dict[str, object]:
    return {
        "instruction": scene.instruction,
        "target": scene.toys[scene.target].noun,
        "relation": scene.relation,
        "reference": scene.toys[scene.reference].noun,
        "frame_of_reference": "robot",
        "objects": [{"noun": toy.noun, "x_m": toy.x_m, "y_m": toy.y_m, "yaw_rad": toy.yaw_rad} for toy in scene.toys],
    }


def record(scene: Scene | ToyScene, *, image_size: tuple[int, int]) -> Recording:
    """Plays a scene until a demonstration succeeds; failed ones are dropped, as a lab would, and counted.

    Raises EpisodeError where none of `MAX_ATTEMPTS` succeeds.
    """
    world: World | ToyWorld
    match scene:
        case ToyScene():
            world = ToyWorld(scene, image_size=image_size)
        case Scene():
            world = World(scene, image_size=image_size)
    with world:
        for attempt in range(MAX_ATTEMPTS):
            recording = _attempt(world, attempt)
            if world.outcome().success:
                return recording
            world.reset()
    raise EpisodeError(
        f"episode_{scene.index}: the scripted operator failed its scene (seed {scene.seed}) {MAX_ATTEMPTS} times. "
        f"Choose another --seed."
    )


def _attempt(world: World | ToyWorld, attempt: int) -> Recording:
    operator: ScriptedOperator | ToyOperator
    match world:
        case ToyWorld():
            operator = ToyOperator(world, attempt=attempt)
        case World():
            operator = ScriptedOperator(world, attempt=attempt)
    before = world.boxes(BOX_CAMERA) if isinstance(world, ToyWorld) else []
    rows: dict[str, list[NDArray[np.float32]]] = {"action": [], "qpos": [], "qvel": [], "effort": []}
    jpegs: dict[str, list[bytes]] = {camera: [] for camera in CAMERAS}
    for action in operator.actions():
        for camera in CAMERAS:
            jpegs[camera].append(encode_rgb(world.render(camera)))
        rows["qpos"].append(world.qpos)
        rows["qvel"].append(world.qvel)
        rows["effort"].append(world.effort)
        rows["action"].append(action)
        world.step(action)
    extra: dict[str, Any] = {}
    if isinstance(world, ToyWorld):
        width, height = world.image_size
        picture = {"camera": BOX_CAMERA, "width": width, "height": height}
        extra = {"picture": picture, "boxes_before": before, "boxes_after": world.boxes(BOX_CAMERA)}
    return Recording(
        scene=world.scene,
        operator=operator.manner.operator,
        arm=operator.side,
        attempt=attempt,
        num_grasps=operator.num_grasps,
        phases=tuple(operator.phases),
        subtasks=tuple(operator.subtasks),
        action=np.stack(rows["action"]),
        qpos=np.stack(rows["qpos"]),
        qvel=np.stack(rows["qvel"]),
        effort=np.stack(rows["effort"]),
        jpegs=jpegs,
        extra=extra,
    )


def encode_rgb(image: NDArray[np.uint8]) -> bytes:
    """One camera frame as a standard JPEG."""
    return bytes(simplejpeg.encode_jpeg(image, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"))


def write_episode(recording: Recording, path: Path) -> None:
    """Writes the HDF5 file beside its place, then renames it there: a file under its own name is whole."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    cameras = sorted(recording.jpegs)
    longest = max(len(jpeg) for camera in cameras for jpeg in recording.jpegs[camera])
    lengths = np.array([[len(jpeg) for jpeg in recording.jpegs[camera]] for camera in cameras], dtype=np.float32)
    try:
        with h5py.File(unfinished, "w") as file:
            file.attrs["sim"] = True
            file.attrs["compress"] = True
            file["action"] = recording.action
            file["observations/qpos"] = recording.qpos
            file["observations/qvel"] = recording.qvel
            file["observations/effort"] = recording.effort
            for camera in cameras:
                padded = np.zeros((recording.num_frames, longest), dtype=np.uint8)
                for row, jpeg in zip(padded, recording.jpegs[camera], strict=True):
                    row[: len(jpeg)] = np.frombuffer(jpeg, dtype=np.uint8)
                file.create_dataset(f"observations/images/{camera}", data=padded, chunks=(1, longest))
            file["compress_len"] = lengths
            file.create_dataset("language_raw", data=[recording.task.encode()], dtype=h5py.string_dtype())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
