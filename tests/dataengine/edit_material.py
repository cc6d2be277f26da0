"""Material for the tests of edits: three small datasets, and how their files are looked at."""

import hashlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import raw_files
from numpy.typing import NDArray

from dataengine.convert import convert
from dataengine.edit import Changes, EditReport, edit
from dataengine.workspace import Workspace
from schemas.refs import Ref

ONE, MORE, PART = Ref("tiny", "1"), Ref("more", "1"), Ref("part", "1")
LENGTHS = (30, 41, 24, 35)
SMALL = {"height": 32, "width": 48}
TASKS = ("Stack.", "Stack.", "Sort.", "Stack.")


def write_raw(folder: Path, indices: tuple[int, ...], **more: Any) -> Path:
    for index in indices:
        raw_files.write_aloha_episode(
            folder / f"episode_{index}.hdf5",
            num_frames=LENGTHS[index],
            seed=index,
            language=TASKS[index],
            **(SMALL | more),
        )
    rows = [{"file": f"episode_{index}.hdf5", "operator": ("ada", "bo")[index % 2]} for index in indices]
    raw_files.write_metadata_csv(folder, rows)
    return folder


def three_datasets(folder: Path) -> Workspace:
    """tiny@1 of three episodes, more@1 of another, and part@1: the second one alone, as a conversion makes it."""
    workspace = Workspace.at(folder / "workspace")
    for ref, indices in ((ONE, (0, 1, 2)), (MORE, (3,)), (PART, (1,))):
        convert(source_path=write_raw(folder / ref.name, indices), to=ref, workspace=workspace, rig="aloha_sim")
    return workspace


def run(made: Workspace, to: str, *refs: Ref, table: Path | None = None, **changes: Any) -> EditReport:
    return edit(refs=refs or (ONE,), to=Ref(to, "1"), workspace=made, changes=Changes(**changes), table=table)


def packets(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.sha256(bytes(one)).hexdigest() for one in container.demux(container.streams.video[0]) if one.size
        ]


def shard(made: Workspace, ref: Ref, camera: str = "cam_high") -> Path:
    return made.path("episodes", ref) / f"videos/observation.images.{camera}/chunk-000/file-000.mp4"


def picture(index: int, frame: int, camera: int = 0) -> NDArray[np.uint8]:
    return raw_files.pictures(frame + 1, seed=index * 10 + camera, **SMALL)[frame]


def lerobot(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    return LeRobotDataset("local/tiny", root=root, video_backend="pyav", **options)


def hidden_pictures(path: Path) -> int:
    """AV1 pictures that are decoded without being shown, less those shown later (specification, 5.3 and 5.9.2)."""
    hidden = 0
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            content, position = bytes(packet), 0
            while position < len(content):
                head, position = content[position], position + 1 + (content[position] >> 2 & 1)
                size = shift = 0
                while True:
                    byte, position = content[position], position + 1
                    size, shift = size | (byte & 127) << shift, shift + 7
                    if byte < 128:
                        break
                if head >> 3 & 15 in (3, 6):  # a frame header, a frame
                    existing, shown = content[position] >> 7, content[position] >> 4 & 1
                    hidden += -1 if existing else 1 - shown
                position += size
    return hidden
