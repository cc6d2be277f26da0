"""One recorded demonstration, and the file a lab would keep of it.

The file has the layout of ACT / DexVLA with compressed cameras: `/action`, `/observations/{qpos,qvel,effort}`,
`/observations/images/<camera>` with one zero-padded JPEG per row, `/compress_len` with one row per camera in
alphabetical order, `/language_raw`, and the attributes `sim` and `compress`. It holds no reasoning. The JPEGs are
encoded from RGB, so any standard decoder returns RGB (real ALOHA stations often store BGR).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from apps.sim.game import POSITIONS, TASK, Scene
from apps.sim.scripted_operator import Phase, ScriptedOperator
from apps.sim.tabletop import CAMERAS
from apps.sim.world import World
from schemas.errors import EpisodeError

JPEG_QUALITY = 80
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A successful demonstration: columns are (frames, 14) float32, cameras one JPEG per frame."""

    scene: Scene
    operator: str
    arm: str
    attempt: int
    num_grasps: int
    phases: tuple[Phase, ...]
    action: NDArray[np.float32]
    qpos: NDArray[np.float32]
    qvel: NDArray[np.float32]
    effort: NDArray[np.float32]
    jpegs: dict[str, list[bytes]]

    @property
    def num_frames(self) -> int:
        """Frames of every column and camera."""
        return len(self.action)

    def ground_truth(self) -> dict[str, object]:
        """What the scene was and what was done, for scoring only: no stage of the engine may read it."""
        scene = self.scene
        return {
            "split": scene.split,
            "seed": scene.seed,
            "index": scene.index,
            "equation": scene.equation.text,
            "answer": scene.equation.answer,
            "cards": [
                {"position": position, "number": card.number, "x_m": card.x_m, "y_m": card.y_m, "yaw_rad": card.yaw_rad}
                for position, card in zip(POSITIONS, scene.cards, strict=True)
            ],
            "chosen_position": POSITIONS[scene.correct_slot],
            "style": scene.style,
            "layout": scene.layout,
            "operator": self.operator,
            "arm": self.arm,
            "attempt": self.attempt,
            "num_grasps": self.num_grasps,
            "num_frames": self.num_frames,
            "phases": [{"name": phase.name, "start": phase.start, "stop": phase.stop} for phase in self.phases],
        }


def record(scene: Scene, *, image_size: tuple[int, int]) -> Recording:
    """Plays a scene until a demonstration succeeds; failed ones are dropped, as a lab would, and counted.

    Raises EpisodeError where none of `MAX_ATTEMPTS` succeeds.
    """
    with World(scene, image_size=image_size) as world:
        for attempt in range(MAX_ATTEMPTS):
            recording = _attempt(world, attempt)
            if world.outcome().success:
                return recording
            world.reset()
    raise EpisodeError(
        f"episode_{scene.index}: the scripted operator failed its scene (seed {scene.seed}) {MAX_ATTEMPTS} times. "
        f"Choose another --seed."
    )


def _attempt(world: World, attempt: int) -> Recording:
    operator = ScriptedOperator(world, attempt=attempt)
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
    return Recording(
        scene=world.scene,
        operator=operator.manner.operator,
        arm=operator.side,
        attempt=attempt,
        num_grasps=operator.num_grasps,
        phases=tuple(operator.phases),
        action=np.stack(rows["action"]),
        qpos=np.stack(rows["qpos"]),
        qvel=np.stack(rows["qvel"]),
        effort=np.stack(rows["effort"]),
        jpegs=jpegs,
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
            file.create_dataset("language_raw", data=[TASK.encode()], dtype=h5py.string_dtype())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
