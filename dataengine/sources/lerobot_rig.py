"""Rigs of LeRobot datasets: derived from what the metadata says, or checked against it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from dataengine.sinks.depth import MAX_M, MIN_M, SHIFT_M
from dataengine.sources.lerobot_info import BOOKKEEPING, IMAGE_PREFIX, PICTURES, FeatureInfo, Info, Modality
from dataengine.sources.optional_parts import without
from schemas.errors import RigError, SourceError
from schemas.rigs import Arm, Camera, Feature, Rig, SourceKind


def camera_name(key: str) -> str:
    """Our short name of a camera key: "observation.images.cam_high" -> "cam_high"."""
    return key.removeprefix(IMAGE_PREFIX).removeprefix("observation.").replace("/", "_")


def derive_rig(kind: SourceKind, info: Info, stored: Mapping[str, FeatureInfo], modality: Modality) -> Rig:
    """What the metadata itself says, as a rig; which numbers are grippers it does not say.

    `stored` are the columns of numbers that the data holds, declared or not. Raises RigError where it makes no rig.
    """
    names = modality.camera_names()
    try:
        return Rig(
            name=info.robot_type or "unknown",  # never the folder's name: the same data would have another identity
            source=kind,
            robot_type=info.robot_type or "unknown",
            rate_hz=whole_rate(info),
            features={
                name: Feature(key=name, names=feature.labels() or modality.labels(name, feature.num_dims))
                for name, feature in stored.items()
            },
            cameras={
                names.get(key) or camera_name(key): Camera(
                    key=key, channel_order="rgb", depth_unit_m=info.features[key].depth_unit_m
                )
                for key in info.keys(*PICTURES)
            },
            arms=tuple(_arms(stored, modality)),
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise RigError(f"meta/info.json gives no usable rig ({reason}). Write one and pass --rig.") from None


def _arms(stored: Mapping[str, FeatureInfo], modality: Modality) -> list[Arm]:
    """Slices of the state that modality.json calls arms."""
    return [
        Arm(
            name=name.replace("_", " "),
            side="left" if "left" in name else "right" if "right" in name else "single",
            indices=tuple(dims),
        )
        for name, dims in modality.slices("observation.state").items()
        if "arm" in name.split("_") and "observation.state" in stored
    ]


def whole_rate(info: Info) -> int:
    """The rate. Raises RigError for one that is no whole number of hertz."""
    if info.whole_rate_hz is None:
        raise RigError(
            f"{info.said_in} says fps {info.fps:g}; only whole rates can be kept. Resample the dataset first."
        )
    return info.whole_rate_hz


def fitted(rig: Rig, info: Info, stored: Mapping[str, FeatureInfo], modality: Modality) -> Rig:
    """The rig without optional parts that the dataset lacks, and with the names that the dataset gives.

    Raises RigError where it contradicts what the metadata says.
    """
    where = f"in rig '{rig.name}'"
    if rig.rate_hz != whole_rate(info):
        raise RigError(
            f"rig '{rig.name}' says {rig.rate_hz} Hz, but {info.said_in} says {info.fps:g}. "
            f"Correct rate_hz: in the rig."
        )
    pictured = info.keys(*PICTURES)
    rig = without(
        rig,
        features={ours for ours, row in rig.features.items() if row.optional and row.key not in stored},
        cameras={ours for ours, row in rig.cameras.items() if row.optional and row.key not in pictured},
    )
    for ours, camera in rig.cameras.items():
        _check_camera(ours, camera, info, where)
    for ours, feature in rig.features.items():
        if feature.key not in stored:
            has = ", ".join(name for name in stored if name not in BOOKKEEPING)
            raise RigError(
                f"'{ours}' reads {feature.key}, not in meta/info.json and the parquet (has: {has}). "
                f"Correct its key under features: {where}"
            )
        _check_labels(ours, feature, stored[feature.key], where)
    named = {ours: _named(row, stored[row.key], modality) for ours, row in rig.features.items()}
    return rig.model_copy(update={"features": named})


def check_videos(rig: Rig, videos: Mapping[str, Iterable[Path]], root: Path) -> None:
    """Refuse a dataset of whose cameras no video at all is there: every episode would be rejected, one by one.

    `videos` are the files of each camera key. Raises SourceError that says how to keep the numbers alone.
    """
    firsts = []
    for camera in rig.cameras.values():
        for path in videos.get(camera.key, ()):
            if path.is_file():
                return
            firsts.append(path)
    if firsts:
        raise SourceError(
            f"no video of the dataset is there ({firsts[0].relative_to(root).as_posix()} first). Copy them, or pass a "
            f"rig without cameras, as `dataengine inspect` drafts it, to keep the numbers alone."
        )


def check_depth(rig: Rig, info: Info) -> None:
    """Depth needs its unit, and LeRobot's own code: packets are copied, and read back with its numbers."""
    code = {"depth_min": MIN_M, "depth_max": MAX_M, "shift": SHIFT_M, "use_log": True}
    for name, camera in rig.cameras.items():
        feature = info.features[camera.key]
        if feature.is_depth and camera.depth_unit_m is None:
            raise RigError(
                f"camera '{name}' is depth, and its unit is not declared. Pass a rig with depth_unit_m: (0.001 for "
                f"millimetres), or without the camera."
            )
        for word, value in code.items() if camera.depth_unit_m is not None and feature.dtype == "video" else ():
            said = feature.video.get(word, value)
            if said != value:
                raise RigError(
                    f"camera '{name}' is stored with {word} {said}, and only {value} is read, as LeRobot writes it by "
                    f"default. Record it again, or take the camera out of the rig."
                )


def _check_camera(ours: str, camera: Camera, info: Info, where: str) -> None:
    feature = info.features.get(camera.key)
    if feature is None or feature.dtype not in PICTURES:
        has = ", ".join(info.keys(*PICTURES)) or "none"
        raise RigError(
            f"camera '{ours}' reads {camera.key}, not in meta/info.json (has: {has}). "
            f"Correct its key under cameras: {where}"
        )
    if camera.channel_order == "bgr" and feature.dtype == "video":
        raise RigError(f"camera '{ours}' is a video, whose codec says RGB, not bgr. Write rgb {where}")


def _check_labels(ours: str, feature: Feature, found: FeatureInfo, where: str) -> None:
    if not feature.names or feature.columns is not None:
        return
    if len(feature.names) != found.num_dims:
        raise RigError(
            f"'{ours}' has {found.num_dims} dimensions in meta/info.json, but the rig names "
            f"{len(feature.names)}. Correct names: under features: {where}"
        )
    for index, (said, label) in enumerate(zip(feature.names, found.labels(), strict=False)):
        if said != label:
            raise RigError(
                f"'{ours}' dimension {index} is '{label}' in meta/info.json, but the rig names "
                f"'{said}'. Correct names: under features: {where}"
            )


def _named(feature: Feature, found: FeatureInfo, modality: Modality) -> Feature:
    """The feature with dimension names from the metadata where the rig gives none itself."""
    if feature.names or feature.columns is not None:
        return feature
    return feature.model_copy(update={"names": found.labels() or modality.labels(feature.key, found.num_dims)})
