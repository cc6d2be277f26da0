"""Material for the tests of exports: four small converted episodes, two of them spoken about, one in part."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from mix_material import trace_row
from raw_files import write_aloha_episode

from dataengine.artifacts import begin
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Segment, release_schema
from schemas.records import InputRef, Record, sha256_of
from schemas.refs import Ref

EPISODES, RELEASE = Ref("tiny", "1"), Ref("said", "1")
LENGTHS = (30, 20, 24, 16)
MS = 1_000_000
FRAME_MS = 20  # at 50 Hz


def segment_row(episode_id: str, start_frame: float, end_frame: float, label: str, *moves: str) -> dict[str, Any]:
    """One released segment; frames may be fractions, as seconds that a person drags are."""
    start_ns, end_ns = int(start_frame * FRAME_MS * MS), int(end_frame * FRAME_MS * MS)
    part = Segment(start_ns=start_ns, end_ns=end_ns, label=label, end_effector="right gripper", moves=moves)
    row = trace_row(episode_id, part.render(), field="segment", start_ns=start_ns, end_ns=end_ns)
    return row | {"payload_json": json.dumps(part.model_dump(mode="json"))}


def release_rows(ids: tuple[str, ...]) -> list[dict[str, Any]]:
    """Episode 0: segments with a gap, one too short for a frame, and two traces; 1: a trace from 0.1 s on; 2: segments;
    3: nothing."""
    return [
        segment_row(ids[0], 0, 10, "reach", "right arm forward"),
        segment_row(ids[0], 10.2, 10.4, "grasp"),
        segment_row(ids[0], 12.5, 30, "carry", "right arm left", "right arm up"),
        trace_row(ids[0], "The board reads 4+1. I pick 5.", end_ns=15 * FRAME_MS * MS),
        trace_row(ids[0], "Already picked 5.", start_ns=15 * FRAME_MS * MS, end_ns=30 * FRAME_MS * MS, reviewer="ada"),
        trace_row(ids[1], "The board reads 2+5, ½ more. I pick 7.", start_ns=100 * MS, end_ns=400 * MS),
        segment_row(ids[2], 0, 12, "reach", "right arm forward"),
        segment_row(ids[2], 12, 24, "hold", "unknown"),
    ]


def write_release_of(workspace: Workspace, ref: Ref, rows: list[dict[str, Any]], episodes: Ref = EPISODES) -> None:
    """A release as a file of plain pyarrow, about the episodes it names."""
    found = workspace.record("episodes", episodes)
    inputs = [InputRef(kind="episodes", ref=str(episodes), fingerprint=found.fingerprint)]
    draft = begin(workspace, "annotations", ref, recipe={"rows": sha256_of(rows)}, inputs=inputs)
    assert not isinstance(draft, Record)
    with draft:
        pq.write_table(pa.Table.from_pylist(rows, schema=release_schema()), draft.path / "annotations.parquet")
        draft.publish(fingerprint=sha256_of(rows))


@cache
def spoken_workspace(folder: Path) -> Workspace:
    """tiny@1 with its frame store, and said@1 about it: nobody may change either."""
    for number, num_frames in enumerate(LENGTHS):
        path = folder / "raw" / f"episode_{number}.hdf5"
        write_aloha_episode(path, num_frames=num_frames, seed=number, height=32, width=48)
    workspace = Workspace.at(folder / "workspace")
    convert(source_path=folder / "raw", to=EPISODES, workspace=workspace, rig="aloha", workers=1)
    write_release_of(workspace, RELEASE, release_rows(EpisodeSet.open(workspace, EPISODES).ids()))
    return workspace
