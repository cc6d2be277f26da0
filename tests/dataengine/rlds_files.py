"""Small RLDS folders as tests need them: struct, a table-driven CRC and hand-made protocol buffers, no TensorFlow."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from raw_files import jpeg, pictures, trajectory


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _crc_table()


def masked_crc(data: bytes) -> bytes:
    """CRC-32C, bit by bit from its polynomial, masked as TFRecord wants it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


def varint(value: int) -> bytes:
    out = bytearray()
    value &= 0xFFFFFFFFFFFFFFFF
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def block(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(lists: dict[str, Any]) -> bytes:
    """A tf.Example: bytes, float32 arrays or ints by name."""
    entries = b""
    for name, values in lists.items():
        if isinstance(values, np.ndarray):
            content = block(2, block(1, values.astype("<f4").tobytes()))
        elif values and isinstance(values[0], bytes):
            content = block(1, b"".join(block(1, value) for value in values))
        else:
            content = block(3, block(1, b"".join(varint(int(value)) for value in values)))
        entries += block(1, block(1, name.encode()) + block(2, content))
    return block(1, entries)


def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"tensor": {"shape": dimensions, "dtype": dtype, "encoding": encoding}}


def features(**more: Any) -> dict[str, Any]:
    """features.json of a small dataset; `more` are further features of a step."""
    picture = {"image": {"shape": {"dimensions": ["48", "64", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}}
    observation = {"image_0": picture, "state": tensor("float32", 7)}
    step = {
        "observation": {"featuresDict": {"features": observation}},
        "action": tensor("float32", 7),
        "is_first": tensor("bool"),
        "is_last": tensor("bool"),
        "count": tensor("int64", 2),
        "language_instruction": {"text": {}},
        **more,
    }
    metadata = {"featuresDict": {"features": {"file_path": {"text": {}}, "number": tensor("int32")}}}
    steps = {"sequence": {"feature": {"featuresDict": {"features": step}}, "length": "-1"}}
    return {"featuresDict": {"features": {"steps": steps, "episode_metadata": metadata}}}


def episode(seed: int, num_rows: int = 6, **more: Any) -> dict[str, Any]:
    return {
        "steps/observation/image_0": [jpeg(picture) for picture in pictures(num_rows, seed=seed)],
        "steps/observation/state": trajectory(num_rows, 7, seed=seed).ravel(),
        "steps/action": trajectory(num_rows, 7, seed=seed + 100).ravel(),
        "steps/is_first": [1] + [0] * (num_rows - 1),
        "steps/is_last": [0] * (num_rows - 1) + [1],
        "steps/count": [value for row in range(num_rows) for value in (row - 3, row * 1000)],
        "steps/language_instruction": [f"put cup {seed} away".encode()] * num_rows,
        "episode_metadata/file_path": [f"/lab/day_{seed}.npy".encode()],
        "episode_metadata/number": [seed],
        **more,
    }


def write_rlds(
    root: Path,
    splits: dict[str, Sequence[Sequence[dict[str, Any]]]],
    *,
    declared: dict[str, Sequence[int]] | None = None,
    more: dict[str, Any] | None = None,
) -> Path:
    """A TFDS folder: split -> shards -> episodes. `declared` are shardLengths where they differ."""
    root.mkdir(parents=True)
    (root / "features.json").write_text(json.dumps(features(**(more or {}))))
    rows = []
    for split, shards in splits.items():
        lengths = (declared or {}).get(split, [len(shard) for shard in shards])
        rows.append({"name": split, "shardLengths": [str(length) for length in lengths]})
        for number, shard in enumerate(shards):
            path = root / f"tiny-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
            path.write_bytes(b"".join(framed(example(each)) for each in shard))
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": "tfrecord", "splits": rows}
    (root / "dataset_info.json").write_text(json.dumps(info))
    return root
