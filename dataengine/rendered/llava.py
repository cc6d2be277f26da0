"""Questions about pictures as a LLaVA-style folder: `images/*` and `conversations.json`."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from dataengine.artifacts import write_atomic
from dataengine.rendered.items import Item, Skill

LISTING, IMAGES = "conversations.json", "images"


def write_llava(out: Path, items: Iterable[Item]) -> Path:
    """Write every picture, then the listing; returns the listing.

    A folder with its listing is whole: one that was interrupted has none.
    """
    (out / IMAGES).mkdir(parents=True, exist_ok=True)
    return write_listing(out, [write_item(out, item) for item in items])


def write_item(out: Path, item: Item) -> dict[str, object]:
    """Write the picture of one item into `out/images`; returns its row of the listing."""
    name = f"{IMAGES}/{item.row_id}.png"
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(item.picture[..., ::-1]))
    (out / name).write_bytes(encoded.tobytes())
    return llava_row(
        item.row_id,
        image=name,
        skill=item.skill,
        question=item.question,
        answer=item.answer,
        point_px=item.point_px,
    )


def llava_row(
    row_id: str, *, image: str, skill: Skill, question: str, answer: str, point_px: tuple[float, float] | None
) -> dict[str, object]:
    """One row of the listing; `skill` and `point_px` stand beside what LLaVA's layout asks for."""
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": row_id, "image": image, "skill": skill, "point_px": point_px, "conversations": turns}


def with_cards(row: dict[str, object], cards: Sequence[tuple[int | None, float, float]]) -> dict[str, object]:
    """The same row that also tells a learner where all cards lie, in the order in which they were laid from left to
    right; a hidden one has no number."""
    return row | {"cards_px": [list(card) for card in cards]}


def write_listing(out: Path, rows: Iterable[dict[str, object]]) -> Path:
    """Write the listing that makes a folder of pictures whole."""
    listing = out / LISTING
    write_atomic(listing, json.dumps(list(rows), indent=1).encode())
    return listing
