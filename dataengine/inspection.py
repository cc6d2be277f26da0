"""What lies in a folder of raw data, before anybody has written a rig for it."""

from pathlib import Path

from dataengine.inspected import Inspection
from dataengine.sources.detection import find_dataset
from schemas.errors import SourceError

__all__ = ["Inspection", "inspect_path"]


def inspect_path(path: Path) -> Inspection:
    """Look into the one dataset in or below `path`, without a rig. Raises SourceError where there is none."""
    found = find_dataset(path)
    folder = found.root.relative_to(path).as_posix()
    match found.kind:  # a survey imports what its format needs
        case "aloha_hdf5":
            from dataengine.surveys import aloha_hdf5

            return aloha_hdf5.survey(found, folder)
        case "demo_pickle":
            from dataengine.surveys import demo_pickle

            return demo_pickle.survey(found, folder)
        case "robomimic_hdf5":
            from dataengine.surveys import robomimic_hdf5

            return robomimic_hdf5.survey(found, folder)
        case "lerobot_v21":
            from dataengine.surveys import lerobot_v21

            return lerobot_v21.survey(found, folder)
        case "lerobot_v30":
            from dataengine.surveys import lerobot_v30

            return lerobot_v30.survey(found, folder)
        case "lerobot_v1":
            from dataengine.surveys import lerobot_v1

            return lerobot_v1.survey(found, folder)
        case "rlds":
            from dataengine.surveys import rlds

            return rlds.survey(found, folder)
        case "diffusion_zarr" | "umi_zarr":
            from dataengine.surveys import diffusion_zarr

            return diffusion_zarr.survey(found, folder)
        case "mcap" | "ros1_bag" | "ros2_bag":
            from dataengine.surveys import recordings

            return recordings.survey(found, folder)
        case other:
            raise SourceError(f"'{path}' holds {other}, which is not read.")
