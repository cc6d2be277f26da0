"""One picture of each camera of raw data, before anybody has answered the questions of its draft rig."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from dataengine.inspected import InspectedPicture, Inspection
from dataengine.sinks.pictures import pictures
from dataengine.sources import Source, open_source
from schemas.episodes import CameraStream, Episode
from schemas.errors import EngineError, EpisodeError, SourceError
from schemas.rigs import RIG_SCHEMA, Rig

_WIDTH = 480  # pixels of a shown picture at most
_TRIED = 200  # episodes, until one can be read: of a partly copied dataset most may lack their video
_UNKNOWN_RATE_HZ = 10  # stands in where the data says none; one picture does not depend on it


def inspection_pictures(path: Path, inspection: Inspection) -> tuple[InspectedPicture, ...]:
    """The first picture of each camera in the first readable episode, upright as far as known.

    A camera whose colour order the data does not tell is shown in both, for a person to choose. Raises SourceError
    with the reason where no episode can be read as the draft rig says.
    """
    rig, asked = _provisional(inspection)
    try:
        source = open_source(path, rig)
    except EngineError as error:
        raise SourceError(f"no picture can be shown before the draft rig is answered ({error})") from None
    episode = _first_readable(source)
    found: list[InspectedPicture] = []
    for name, stream in episode.cameras.items():
        found += _shown(name, stream, asked=name in asked)
    return tuple(found)


def _provisional(inspection: Inspection) -> tuple[Rig, frozenset[str]]:
    """The draft with something in place of each unanswered question, and the cameras whose colour order is one."""
    draft: dict[str, Any] = yaml.safe_load(inspection.draft_rig_yaml)
    cameras: dict[str, dict[str, Any]] = draft.get("cameras") or {}
    asked = frozenset(
        name
        for name, camera in cameras.items()
        if camera.get("channel_order") in (None, "unknown") and camera.get("depth_unit_m") is None
    )
    filled = _without_nulls(draft) | {
        "schema_version": RIG_SCHEMA,
        "rate_hz": draft.get("rate_hz") or _UNKNOWN_RATE_HZ,
        "cameras": {
            name: {**_without_nulls(camera), **({"channel_order": "rgb"} if name in asked else {})}
            for name, camera in cameras.items()
        },
    }
    if not draft.get("task_key") and not draft.get("task"):
        filled["task"] = "unknown"
    try:
        return Rig.model_validate(filled), asked
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SourceError(
            f"no picture can be shown before the draft rig is answered ({where}: {first['msg']})"
        ) from None


def _without_nulls(value: Any) -> Any:  # noqa: ANN401 - a YAML value
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _first_readable(source: Source) -> Episode:
    reason = "it holds no episode"
    for name in source.names()[:_TRIED]:
        try:
            return source.read(name)
        except EpisodeError as error:
            reason = str(error)
    raise SourceError(f"no picture can be shown: {reason}")


def _shown(name: str, stream: CameraStream, *, asked: bool) -> Iterator[InspectedPicture]:
    spec = stream.spec
    size = f"{spec.width}x{spec.height} {spec.encoding}"
    try:
        if hasattr(stream, "depths"):
            depth = np.asarray(next(iter(stream.depths())), dtype=np.float64)
            words = f"{size}, depth: dark is near, black is unmeasured"
            yield InspectedPicture(camera=name, words=words, png=_png(_gray(depth)))
            return
        rgb = next(iter(pictures(stream))).rgb()
    except (EpisodeError, StopIteration) as error:
        yield InspectedPicture(camera=name, words=f"{size}: no picture ({error})", png=b"")
        return
    if not asked:
        yield InspectedPicture(camera=name, words=size, png=_png(rgb))
        return
    for order, array in (("rgb", rgb), ("bgr", rgb[:, :, ::-1])):
        words = f"{size}, if the rig says channel_order: {order}"
        yield InspectedPicture(camera=name, words=words, png=_png(array), channel_order=order)


def _gray(depth: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Depth as gray: near is dark, unmeasured black."""
    measured = np.isfinite(depth) & (depth > 0)
    low, high = np.percentile(depth[measured], (1, 99)) if measured.any() else (0.0, 1.0)
    scaled = 40 + 215 * np.clip((np.where(measured, depth, low) - low) / max(high - low, 1e-9), 0, 1)
    gray = np.where(measured, scaled, 0).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _png(rgb: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(rgb))
    image.thumbnail((_WIDTH, _WIDTH))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
