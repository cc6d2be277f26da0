"""Writers of robomimic, LIBERO and robosuite files, for tests: plain h5py calls that follow the published layouts and
share nothing with our readers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from raw_files import pictures, trajectory


def env_args(*, control_freq: float | None = 20, robots: Any = ("Panda",), name: str = "Lift") -> str:
    """robomimic's JSON about the environment."""
    settings: dict[str, Any] = {"robots": robots, "camera_names": ["agentview"]}
    if control_freq is not None:
        settings["control_freq"] = control_freq
    return json.dumps({"env_name": name, "type": 1, "env_kwargs": settings})


def write_robomimic(
    path: Path,
    *,
    lengths: Sequence[int] = (12, 9, 15),
    first: int = 0,
    seed: int = 0,
    images: bool = True,
    compression: str | None = None,
    args: str | None = None,
    masks: Mapping[str, Sequence[str]] | None = None,
    frames: NDArray[np.uint8] | None = None,
    attrs: dict[str, Any] | None = None,
) -> Path:
    """One robomimic file: data/demo_N with actions, states, rewards, dones, obs/ and next_obs/."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = env_args() if args is None else args
        for number, length in enumerate(lengths, start=first):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
            for key, value in (attrs or {}).items():
                demo.attrs[key] = value
            own = seed * 100 + number
            demo["actions"] = trajectory(length, 7, seed=own).astype(np.float64)
            demo["states"] = np.column_stack([np.arange(length) * 0.05, trajectory(length, 31, seed=own + 1)])
            demo["rewards"] = np.eye(1, length, length - 1)[0]
            demo["dones"] = np.eye(1, length, length - 1, dtype=np.int64)[0]
            low = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "robot0_joint_pos": 7}
            for shift, group in enumerate(("obs", "next_obs")):
                for key, dims in low.items():
                    demo[f"{group}/{key}"] = trajectory(length + 1, dims, seed=own + dims)[shift : length + shift]
                if images:
                    shown = pictures(length + 1, seed=own) if frames is None else frames[: length + 1]
                    demo.create_dataset(
                        f"{group}/agentview_image", data=shown[shift : length + shift], compression=compression
                    )
        for name, demos in (masks or {}).items():
            file[f"mask/{name}"] = [demo.encode() for demo in demos]
    return path


def write_libero(
    path: Path,
    *,
    lengths: Sequence[int] = (10, 8),
    language: Any = "put the bowl on the plate",
    frames: NDArray[np.uint8] | None = None,
) -> Path:
    """One LIBERO file: pictures of 128x128 or of `frames`, stored upside down as OpenGL gives them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = "libero_spatial/put_the_bowl_on_the_plate.bddl"
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["problem_info"] = json.dumps({"problem_name": "tabletop", "language_instruction": language})
        data.attrs["env_args"] = env_args(name="Libero_Tabletop_Manipulation")
        for number, length in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo["actions"] = np.column_stack(
                [trajectory(length, 6, seed=number), np.where(np.arange(length) < length // 2, -1.0, 1.0)]
            )
            demo["states"] = trajectory(length, 40, seed=number)
            demo["robot_states"] = trajectory(length, 9, seed=number)
            demo["rewards"] = np.eye(1, length, length - 1, dtype=np.uint8)[0]
            demo["dones"] = np.eye(1, length, length - 1, dtype=np.uint8)[0]
            for key, dims in {"ee_states": 6, "gripper_states": 2, "joint_states": 7, "ee_pos": 3, "ee_ori": 3}.items():
                demo[f"obs/{key}"] = trajectory(length, dims, seed=number + dims).astype(np.float64)
            for place, camera in enumerate(("agentview_rgb", "eye_in_hand_rgb")):
                made = pictures(length, height=128, width=128, seed=number + place)
                upright = made if frames is None else frames[place : place + length]
                demo[f"obs/{camera}"] = upright[:, ::-1]
    return path


def write_robosuite(
    path: Path, *, lengths: Sequence[int] = (20, 14), robots: str = "Panda", env: str = "Lift", states: int = 32
) -> Path:
    """What robosuite's collector writes: demos from 1 on, states and actions, the environment in `env_info`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"env": env, "date": "9-4-2020", "time": "14:11:9", "repository_version": "1.0.0"})
        data.attrs["env_info"] = json.dumps({"env_name": env, "robots": robots})
        for number, length in enumerate(lengths, start=1):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["model_file"] = f"model_{number}.xml"
            demo["actions"] = trajectory(length, 7, seed=number).astype(np.float64)
            clock = 0.002 + np.arange(length) * 0.05
            demo["states"] = np.column_stack([clock, trajectory(length, states - 1, seed=number).astype(np.float64)])
            demo["joint_torques"] = trajectory(length, 7, seed=number + 9).astype(np.float64)
            demo["left_dpos"] = np.zeros((length, 0))
    return path
