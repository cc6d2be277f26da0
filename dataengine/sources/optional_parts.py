"""What is left of a rig where raw data lacks optional features and cameras: nothing that reads what is not there."""

from collections.abc import Collection, Mapping

from schemas.rigs import Arm, Feature, Rig


def without(rig: Rig, *, features: Collection[str], cameras: Collection[str]) -> Rig:
    """The rig without these features and cameras, and without end effectors and arms that read such a feature.

    An arm whose joints are not there stays where its tool's position is: then that is what its numbers are.
    """
    kept = {ours: feature for ours, feature in rig.features.items() if ours not in features}
    return rig.model_copy(
        update={
            "features": kept,
            "cameras": {ours: camera for ours, camera in rig.cameras.items() if ours not in cameras},
            "end_effectors": tuple(end for end in rig.end_effectors if end.feature in kept),
            "arms": tuple(arm for each in rig.arms if (arm := _arm(each, kept)) is not None),
        }
    )


def _arm(arm: Arm, features: Mapping[str, Feature]) -> Arm | None:
    """What `features` say about an arm: all, its tool's position alone, or nothing (None)."""
    if arm.feature in features:
        return arm
    tool = arm.position
    if tool is None or tool.feature not in features:
        return None
    # without joints and tool, or metres would be followed through the robot file as radians
    return arm.model_copy(update={"feature": tool.feature, "indices": tool.indices, "joints": (), "tool": None})
