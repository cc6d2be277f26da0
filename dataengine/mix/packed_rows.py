"""Image-text rows inside a mix: one table of chats and one file of picture bytes, so the mix stands alone.

`image_text/NN.parquet` holds a row per (row_id, split): the chat as JSON, its supervised tokens, and where each of its
pictures lies in `image_text/NN.pictures`, in which equal pictures are kept once, byte for byte as they came.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataengine.mix.image_text import ImageTextRow, RawImageText, messages_from_json, messages_to_json
from dataengine.mix.splits import Split
from schemas.chat import Message
from schemas.errors import MixError

FOLDER = "image_text"
_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("messages_json", pa.string(), nullable=False),
        pa.field("supervised_tokens", pa.int64(), nullable=False),
        pa.field("sha256", pa.list_(pa.string()), nullable=False),
        pa.field("offset", pa.list_(pa.int64()), nullable=False),
        pa.field("num_bytes", pa.list_(pa.int64()), nullable=False),
    ]
)


def write_packed(
    folder: Path,
    number: int,
    rows: Sequence[ImageTextRow],
    raw: RawImageText,
    *,
    splits: Sequence[Split],
    tokens: Sequence[int],
) -> None:
    """Write the rows of source `number` of a mix. Raises MixError when a picture changed since it was checked."""
    (folder / FOLDER).mkdir(exist_ok=True)
    places: dict[str, tuple[int, int]] = {}
    with (folder / FOLDER / f"{number:02d}.pictures").open("wb") as file:
        for row in rows:
            for pointer, digest in zip(row.pictures, row.sha256, strict=True):
                if digest in places:
                    continue
                content = raw.picture(pointer)
                if hashlib.sha256(content).hexdigest() != digest:
                    raise MixError(f"image '{pointer}' changed while the mix was built. Build it again.")
                places[digest] = (file.tell(), len(content))
                file.write(content)
    values = [
        {
            "row_id": row.row_id,
            "split": split,
            "messages_json": json.dumps(messages_to_json(row.messages), ensure_ascii=False),
            "supervised_tokens": count,
            "sha256": list(row.sha256),
            "offset": [places[digest][0] for digest in row.sha256],
            "num_bytes": [places[digest][1] for digest in row.sha256],
        }
        for row, split, count in zip(rows, splits, tokens, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(values, schema=_SCHEMA), folder / FOLDER / f"{number:02d}.parquet")


class PackedRows:
    """Reads the rows of one source and one split; pictures come from a memory map."""

    def __init__(self, folder: Path, number: int, split: Split) -> None:
        table = pq.read_table(folder / FOLDER / f"{number:02d}.parquet", filters=[("split", "=", split)])
        self._table = table.combine_chunks()
        self.tokens: NDArray[np.int64] = self._table.column("supervised_tokens").to_numpy()
        with (folder / FOLDER / f"{number:02d}.pictures").open("rb") as file:
            self._pictures = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self.tokens)

    def row_id(self, item: int) -> str:
        """The id of a row, as its source gave it."""
        return str(self._table.column("row_id")[item].as_py())

    def messages(self, item: int) -> tuple[Message, ...]:
        """The chat of a row."""
        return messages_from_json(json.loads(self._table.column("messages_json")[item].as_py()))

    def digests(self, item: int) -> tuple[str, ...]:
        """sha256 of each picture's file bytes."""
        return tuple(self._table.column("sha256")[item].as_py())

    def pictures(self, item: int) -> list[bytes]:
        """The file bytes of a row's pictures, in order."""
        starts = self._table.column("offset")[item].as_py()
        sizes = self._table.column("num_bytes")[item].as_py()
        return [self._pictures[start : start + size] for start, size in zip(starts, sizes, strict=True)]
