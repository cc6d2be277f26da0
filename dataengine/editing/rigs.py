"""A rig after features were renamed and cameras dropped."""

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import UsageError, did_you_mean
from schemas.rigs import Arm, Rig, wrong_name


def edited_rig(rig: Rig, rename: Mapping[str, str], drop_cameras: Sequence[str]) -> Rig:
    """The same rig under other names; raw keys stay what they are.

    Raises UsageError for a feature or camera that is not there, and for a name that can not be taken.
    """
    for old, new in rename.items():
        if old not in rig.features:
            raise UsageError(f"no feature '{old}' to rename. {did_you_mean(old, rig.features)}")
        wrong = wrong_name(new)
        if wrong is not None:
            raise UsageError(f"'{old}' can not be renamed: {wrong}. Choose another.")
        if new in rig.features or list(rename.values()).count(new) > 1:
            raise UsageError(f"'{old}' can not be renamed to '{new}': the name is taken. Choose another.")
    for camera in drop_cameras:
        if camera not in rig.cameras:
            raise UsageError(f"no camera '{camera}' to drop. {did_you_mean(camera, rig.cameras)}")
    names = {key: rename.get(key, key) for key in rig.features}
    # the rows are there already: without the stream that gave them they are a grid at the rate of the rig
    reference = None if rig.clock.reference in drop_cameras else rig.clock.reference
    return Rig.model_validate(
        {
            **rig.model_dump(mode="json"),
            "features": {names[key]: row.model_dump(mode="json") for key, row in rig.features.items()},
            "cameras": {
                key: row.model_dump(mode="json") for key, row in rig.cameras.items() if key not in drop_cameras
            },
            "end_effectors": [
                end.model_dump(mode="json") | {"feature": names[end.feature]} for end in rig.end_effectors
            ],
            "arms": [_renamed(arm, names) for arm in rig.arms],
            "clock": rig.clock.model_dump(mode="json") | {"reference": names.get(reference or "", reference)},
        }
    )


def _renamed(arm: Arm, names: Mapping[str, str]) -> dict[str, Any]:
    said: dict[str, Any] = arm.model_dump(mode="json") | {"feature": names[arm.feature]}
    if arm.position is not None:
        feature = arm.position.feature  # a dataset may lack it
        said["position"] |= {"feature": names.get(feature, feature)}
    return said
