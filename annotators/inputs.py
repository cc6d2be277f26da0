"""What a proposal was computed from beside the raw data: an episode_id names bytes, these hashes their reading.

A corrected rig or another conversion of the same recording gives other numbers or other pictures. The hash of that is
in the provenance, so that such an episode is annotated again. Nothing of it depends on which other episodes there are.
"""

from annotators.kinematics import COMMAND
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Proposal, SegmentList
from schemas.records import sha256_of
from schemas.rigs import Arm, EndEffector, Rig

_SHORT = 16
_KEPT_AS = (
    "layout",
    "encoding",
    "frame_size",
    "jpeg_quality",
)  # of a recipe: an edit of other episodes is no part of it


def numbers_hash(rig: Rig) -> str:
    """Of all that segments and gripper events depend on: rate, end effectors, arms, robot file, columns they read."""
    parts: tuple[EndEffector | Arm, ...] = (*rig.end_effectors, *rig.arms)
    stated = (arm.position.feature for arm in rig.arms if arm.position is not None)
    columns = sorted({COMMAND, *(part.feature for part in parts), *stated} & rig.features.keys())
    kinematics = {} if rig.kinematics is None else {"kinematics": rig.kinematics.model_dump(mode="json")}
    return sha256_of(
        {
            "rate_hz": rig.rate_hz,
            "end_effectors": [end.model_dump(mode="json") for end in rig.end_effectors],
            "arms": [arm.model_dump(mode="json") for arm in rig.arms],
            "features": {name: rig.features[name].model_dump(mode="json") for name in columns},
            **kinematics,
        }
    )[:_SHORT]


def pictures_hash(workspace: Workspace, opened: EpisodeSet, camera: str | None) -> str:
    """Of everything a trace depends on: how the camera is read, how its pictures are kept, and which frames are taken.

    The last is why the numbers are part of it: the frames that are looked at lie around the gripper events.
    """
    kept = workspace.record("frames", opened.ref) if opened.has_frame_store else opened.record
    seen = opened.rig.cameras.get(camera) if camera else None
    return sha256_of(
        {
            "numbers": numbers_hash(opened.rig),
            "camera": camera,
            "read_as": seen.model_dump(mode="json") if seen else None,
            "kept_as": {"kind": kept.kind, **{key: kept.recipe[key] for key in _KEPT_AS if key in kept.recipe}},
        }
    )[:_SHORT]


def covers(proposal: Proposal, opened: EpisodeSet) -> bool:
    """Whether a proposal speaks of every row its episode has here.

    No hash tells: a trim changes none, so that what was said stays. But segments that were cut from a trimmed version
    say nothing about the rows before and after; segments of the whole cover any part of it.
    """
    if not isinstance(proposal.payload, SegmentList):
        return True
    stamps_ns, segments = opened.stamps_ns(proposal.episode_id), proposal.payload.segments
    return bool(segments) and segments[0].start_ns <= stamps_ns[0] and segments[-1].end_ns > stamps_ns[-1]
