"""Sources: one reader per raw format, all behind the same protocol."""

from pathlib import Path

from dataengine.sources.aloha_hdf5 import AlohaHdf5
from dataengine.sources.demo_pickle import DemoPickle
from dataengine.sources.detection import find_dataset
from dataengine.sources.diffusion_zarr import DiffusionZarr
from dataengine.sources.lerobot_v1 import LeRobotV1
from dataengine.sources.lerobot_v21 import LeRobotV21
from dataengine.sources.lerobot_v30 import LeRobotV30
from dataengine.sources.protocol import Source
from dataengine.sources.recorded_episodes import RecordedEpisodes
from dataengine.sources.rlds import Rlds
from dataengine.sources.robomimic_hdf5 import RobomimicHdf5
from schemas.errors import RigError, SourceError
from schemas.rigs import Rig, SourceKind

__all__ = ["Source", "detect", "open_source"]


def detect(path: Path) -> SourceKind:
    """The format of the one dataset in or below a folder. Raises SourceError for anything else."""
    return find_dataset(path).kind


def open_source(path: Path, rig: Rig | None) -> Source:
    """The dataset in or below `path`, read as the rig says.

    Without a rig, LeRobot describes itself; the other formats do not, and that is a RigError naming what is missing.
    """
    found = find_dataset(path)
    if rig is not None and rig.source != found.kind:
        raise RigError(f"rig '{rig.name}' is for {rig.source}, but '{path}' holds {found.kind}. Choose another rig.")
    match found.kind:
        case "lerobot_v21":
            return LeRobotV21.open(found.root, rig)
        case "lerobot_v30":
            return LeRobotV30.open(found.root, rig)
        case "lerobot_v1":
            return LeRobotV1.open(found.root, rig)
        case "aloha_hdf5":
            if rig is None:
                raise RigError(
                    "HDF5 episodes store no rate, units or colour order. Pass a rig: --rig aloha, --rig aloha_sim, "
                    "or your own file started from the draft of `dataengine inspect`."
                )
            return AlohaHdf5.open(found.root, rig)
        case "robomimic_hdf5":
            if rig is None:
                raise RigError(
                    "demonstrations in data/demo_N say no units, names or colour order. Pass a rig: --rig robomimic, "
                    "--rig libero, --rig robosuite_panda, or your own file started from the draft of "
                    "`dataengine inspect`."
                )
            return RobomimicHdf5.open(found.root, rig)
        case "demo_pickle":
            if rig is None:
                raise RigError(
                    "pickled demonstrations store no rate, names or instruction. Pass a rig: --rig dapg_door, "
                    "or your own file started from the draft of `dataengine inspect`."
                )
            return DemoPickle.open(found.root, rig)
        case "diffusion_zarr" | "umi_zarr":
            if rig is None:
                raise RigError(
                    f"a zarr replay buffer stores no rate. Pass a rig that states it: "
                    f"--rig {'umi' if found.kind == 'umi_zarr' else 'pusht'}, "
                    f"or your own file started from the draft of `dataengine inspect`."
                )
            return DiffusionZarr.open(found.root, rig, found.kind)
        case "rlds":
            if rig is None:
                raise RigError(
                    "RLDS stores no rate. Pass a rig that states it: --rig bridge, "
                    "or your own file started from the draft of `dataengine inspect`."
                )
            return Rlds.open(found.root, rig)
        case "mcap" | "ros1_bag" | "ros2_bag":
            return RecordedEpisodes.open(found.root, found.kind, rig)
        case other:
            raise SourceError(f"'{path}' holds {other}, which is not read.")
