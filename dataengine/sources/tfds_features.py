"""What TFDS says about an RLDS dataset: features.json (names, shapes, types) and dataset_info.json (splits)."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.content import natural_key
from dataengine.sources.tfrecords import Values
from schemas.errors import EpisodeError, SourceError

STEPS = "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class TfdsFeature:
    """One leaf of features.json. In `shape`, None is a length that differs from step to step."""

    kind: Literal["image", "text", "tensor", "other"]
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    encoding: str = "none"  # of tensors: "none" | "bytes" | "zlib"

    @property
    def num_values(self) -> int | None:
        """Values of one step; None where it may differ."""
        return None if None in self.shape else int(np.prod([size or 0 for size in self.shape]))


@dataclass(frozen=True, slots=True, kw_only=True)
class TfdsInfo:
    """A dataset's name, features and declared splits."""

    name: str
    steps: dict[str, TfdsFeature]  # "observation/state" -> what it is, one value per step
    episode: dict[str, TfdsFeature]  # "episode_metadata/file_path" -> what it is, one value per episode
    declared: dict[str, tuple[int, ...]] = field(default_factory=dict)  # split -> records of each shard

    @classmethod
    def read(cls, root: Path) -> "TfdsInfo":
        """Read both files. Raises SourceError where features.json is absent or has no steps."""
        features = _json(root / "features.json")
        if features is None:
            raise SourceError(
                f"{root.name} holds TFRecords but no features.json, which says what they are. Copy it from the dataset."
            )
        leaves = dict(sorted(_leaves(features, ""), key=lambda leaf: natural_key(leaf[0])))
        steps = {name.removeprefix(f"{STEPS}/"): leaf for name, leaf in leaves.items() if name.startswith(f"{STEPS}/")}
        if not steps:
            raise SourceError(f"{root.name}/features.json has no steps, so it is no RLDS dataset. Check the path.")
        info = _json(root / "dataset_info.json") or {}
        form = str(info.get("fileFormat", "tfrecord"))
        if form != "tfrecord":
            raise SourceError(f"{root.name} is stored as {form}; only tfrecord is read. Export it as TFRecord.")
        splits = info.get("splits", [])
        return cls(
            name=str(info.get("name") or root.parent.name),
            steps=steps,
            episode={name: leaf for name, leaf in leaves.items() if not name.startswith(f"{STEPS}/")},
            declared={
                str(split["name"]): tuple(int(length) for length in split.get("shardLengths", ())) for split in splits
            },
        )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise SourceError(f"{path.parent.name}/{path.name} is no JSON object. Copy it again.")
    return found


def _leaves(node: Mapping[str, Any], name: str) -> Iterator[tuple[str, TfdsFeature]]:
    """Every leaf with its name as tf.Example writes it, levels joined by "/"."""
    if "featuresDict" in node:
        for key, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{name}/{key}" if name else key)
    elif name == STEPS and "sequence" in node:
        yield from _leaves(node["sequence"]["feature"], name)
    else:
        yield name, _leaf(node)


def _leaf(node: Mapping[str, Any]) -> TfdsFeature:
    if "image" in node:
        image = node["image"]
        return TfdsFeature(kind="image", shape=_shape(image), dtype=str(image.get("dtype", "uint8")))
    if "text" in node:
        return TfdsFeature(kind="text")
    if "tensor" in node:
        tensor = node["tensor"]
        kind: Literal["text", "tensor"] = "text" if tensor.get("dtype") in ("string", "object") else "tensor"
        return TfdsFeature(
            kind=kind, shape=_shape(tensor), dtype=str(tensor["dtype"]), encoding=str(tensor.get("encoding", "none"))
        )
    if "classLabel" in node:
        return TfdsFeature(kind="tensor", dtype="int64")
    return TfdsFeature(kind="other")  # a video, a ragged sequence: known by name, not read


def _shape(node: Mapping[str, Any]) -> tuple[int | None, ...]:
    sizes = [int(size) for size in node.get("shape", {}).get("dimensions", ())]
    return tuple(None if size < 0 else size for size in sizes)


def column_of(name: str, key: str, feature: TfdsFeature, values: Values) -> NDArray[Any]:
    """One tensor of all steps as (steps, values of one step), in the declared type where the file can hold it.

    A tf.Example knows float32 and int64 alone: float64 was narrowed when the file was written and stays float32.
    Raises EpisodeError where the numbers do not fill whole steps.
    """
    size = feature.num_values or 1
    if isinstance(values, list):
        whole = size * np.dtype(feature.dtype).itemsize
        raw = [_inflated(name, key, value, whole) if feature.encoding == "zlib" else bytes(value) for value in values]
        flat = np.frombuffer(b"".join(raw), dtype=np.dtype(feature.dtype).newbyteorder("<"))
    elif values.dtype == np.int64:
        flat = values.astype(np.dtype(feature.dtype)) if np.dtype(feature.dtype).kind in "iub" else values
    else:
        flat = values
    if not len(flat) or len(flat) % size:
        raise EpisodeError(
            f"{name}: {key} has {len(flat)} numbers, no whole steps of {size}. Export the dataset again."
        )
    return flat.reshape(-1, size)


def _inflated(name: str, key: str, value: memoryview, num_bytes: int) -> bytes:
    """One step's zlib stream, of which no more is unpacked than the declared shape holds: 1 MB can unpack to 1 GB."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(value, num_bytes + 1)
    except zlib.error:
        raise EpisodeError(f"{name}: {key} holds no zlib stream. Export the dataset again.") from None
    if len(found) != num_bytes or not stream.eof:
        raise EpisodeError(
            f"{name}: {key} does not unpack to the {num_bytes} bytes that features.json declares. "
            f"Export the dataset again."
        )
    return found


def texts_of(values: Values) -> list[str]:
    """The text of each step."""
    return [bytes(value).decode("utf-8", "replace").strip() for value in values] if isinstance(values, list) else []
