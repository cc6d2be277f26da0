"""Whether episodes can stand in one dataset: what their rigs mean and how their columns and cameras are laid out."""

from collections.abc import Mapping
from typing import Any

from dataengine.sinks.kept import KeptArtifact, kept_dataset, kept_store
from dataengine.sinks.language_columns import language_names
from dataengine.sinks.staging import StagedEpisode
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, RigError
from schemas.records import canonical_json
from schemas.refs import Kind, Ref
from schemas.rigs import Rig

_KINEMATIC = {"joints", "tool", "position"}  # of an arm: what is known of its numbers, not what they are
_NOT_CONTENT = ("rig", "layout")  # of a recipe: compared by meaning, or a version of ours


def open_kept(workspace: Workspace, kind: Kind, ref: Ref) -> KeptArtifact:
    """An artifact to build on. Raises RefError where there is none, ArtifactError for an old or an exported one."""
    path = workspace.find(kind, ref)
    if kind == "episodes" and language_names(path):
        made_from = next((row.ref for row in workspace.record(kind, ref).inputs if row.kind == kind), "its source")
        raise ArtifactError(
            f"episodes '{ref}' hold language columns, which would not fit what an edit or an extension makes of them. "
            f"Change {made_from} instead, and export again."
        )
    return kept_dataset(path) if kind == "episodes" else kept_store(path)


def check_fits(base: KeptArtifact, rig: Rig, recipe: Mapping[str, Any], what: str) -> None:
    """Raises RigError that names the first thing in which `what`, made with `rig` and `recipe`, differs from `base`."""
    difference = rig_difference(base.rig, rig)
    if difference is None:
        then = {key: value for key, value in base.record.recipe.items() if key in recipe and key not in _NOT_CONTENT}
        key = next((key for key, value in then.items() if value != recipe[key]), None)
        difference = None if key is None else f"{key} is {_short(recipe[key])}, but {_short(then[key])}"
    if difference is not None:
        raise RigError(
            f"{what} does not fit {base.ref}: {difference} there. Use what {base.ref} was made with, or make a dataset "
            f"of its own under another name."
        )


def rig_difference(base: Rig, other: Rig) -> str | None:
    """The first thing that means something else in `other`, in words; None where both mean the same.

    Raw keys, the source's kind and where metadata comes from may differ: two formats can record one robot.
    """
    before, now = _meaning(base), _meaning(other)
    key = next((key for key in before | now if before.get(key) != now.get(key)), None)
    return None if key is None else f"{key} is {_short(now.get(key))}, but {_short(before.get(key))}"


def layout_difference(base: StagedEpisode, other: StagedEpisode) -> str | None:
    """The first column or camera that is laid out otherwise in `other`; None where nothing is."""
    before, now = base.layout(), other.layout()
    key = next((key for key in before | now if before.get(key) != now.get(key)), None)
    return None if key is None else f"{key} is {now.get(key, 'absent')}, but {before.get(key, 'absent')}"


def _meaning(rig: Rig) -> dict[str, Any]:
    return {
        "robot_type": rig.robot_type,
        "rate_hz": rig.rate_hz,
        **{f"the names of {key}": list(feature.names) for key, feature in rig.features.items()},
        **{f"the unit of {key}": feature.unit for key, feature in rig.features.items()},
        **{f"camera {key}": "colour" if row.depth_unit_m is None else "depth" for key, row in rig.cameras.items()},
        **{f"end effector {end.name}": end.model_dump(mode="json") for end in rig.end_effectors},
        **{f"arm {arm.name}": arm.model_dump(mode="json", exclude=_KINEMATIC) for arm in rig.arms},
        "action_shift_steps": rig.action_shift_steps,
    }


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = "absent" if value is None else value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= 120 else text[:117] + "..."
