"""Crops of boards and cards with the prompts and the JSON answers of `annotate`, for the small VLM to learn from.

Cut by the annotator's own rules out of rendered tables and simulator frames: what the model is asked when it annotates
is what it was taught.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from annotators.families import Family, load_family
from annotators.observe import model_crops
from annotators.papers import POSITIONS, Layout, cards_box, find_papers, lay_out
from annotators.vlm.questions import CROPS
from apps.sim.simulate import start_worker
from dataengine.mix.pixels import decode_picture
from dataengine.rendered import Difficulty, Skill, Split
from dataengine.rendered.keyed import keyed_rng
from dataengine.rendered.llava import LISTING, with_cards, write_listing
from dataengine.rendered.render import draw_item
from dataengine.rendered.views import TableView
from schemas.errors import UsageError

FAMILY = "math-matching"
_SKILLS: tuple[Skill, ...] = ("trace", "trace", "transcribe", "cards", "refusal")  # whose tables are cut up


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """A picture whose writing is known; None where a part can not be seen or is no equation and no blank."""

    name: str
    picture: NDArray[np.uint8]
    board: str | None  # "" for a board without writing
    cards: tuple[int, ...] | None


def write_crops(
    out: Path,
    *,
    frames: Path,
    split: Split,
    num_rendered: int,
    seed: int,
    hands: float = 0.0,
    tells_cards: bool = False,
    workers: int = 1,
) -> Path:
    """Write the crops of `num_rendered` rendered tables and of all `frames`; returns the listing.

    `frames` is a folder that `apps.sim.questions` wrote; `hands` the share of tables in a hand drawn for training.
    `tells_cards`: rows also say where each card lies. The content depends on the arguments alone, not on `workers`.
    Raises UsageError for hands that no split has.
    """
    if not 0 <= hands <= (1 if split == "train" else 0):
        raise UsageError(f"hands is a share of training's tables, 0 to 1; got {hands} of {split}.")
    (out / "images").mkdir(parents=True, exist_ok=True)
    listed = json.loads((frames / LISTING).read_bytes())
    asked: dict[str, dict[str, str]] = {}
    for row in listed:
        asked.setdefault(row["image"], {})[row["skill"]] = row["conversations"][1]["value"]
    jobs: list[tuple[str, dict[str, str]] | int] = [*range(num_rendered), *asked.items()]
    cut = partial(_cut, out, frames, split, seed, hands, tells_cards)
    if workers == 1:
        return write_listing(out, [row for job in jobs for row in cut(job)])
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_worker) as pool:
        return write_listing(out, [row for rows in pool.map(cut, jobs, chunksize=64) for row in rows])


def _cut(
    out: Path,
    frames: Path,
    split: Split,
    seed: int,
    hands: float,
    tells_cards: bool,
    job: tuple[str, dict[str, str]] | int,
) -> list[dict[str, object]]:
    seen = _rendered(split, seed, hands, job) if isinstance(job, int) else _simulated(frames, *job)
    return [] if seen is None else list(_rows(out, seen, _family(), tells_cards=tells_cards))


@cache
def _family() -> Family:
    return load_family(FAMILY)


def _rendered(split: Split, seed: int, hands: float, row: int) -> _Seen | None:
    rng = keyed_rng("crops", split, seed, row)
    styles, equations, geometry, weather = (float(share) for share in rng.uniform(0.3, 1, 4))
    difficulty = Difficulty(styles=styles, equations=equations, geometry=geometry, weather=weather, hands=hands)
    skill = _SKILLS[int(rng.integers(len(_SKILLS)))]
    drawn = draw_item(split=split, seed=seed + 1, row=row, skill=skill, difficulty=difficulty)
    view, table = drawn.plan.view, drawn.table
    if table is None or not isinstance(view, TableView):
        return None
    board, cards = None, None
    if view.board is not None and table.board_seen and (view.board.equation is not None or not view.board.text):
        board = view.board.text
    if view.cards and all(table.card_seen) and all(pose.holds is None for pose in view.arms):
        cards = tuple(card.number for card in view.cards)
    return _Seen(name=f"r{row}", picture=drawn.item.picture, board=board, cards=cards)


def _simulated(frames: Path, image: str, said: dict[str, str]) -> _Seen:
    """The frame's other answers say what it shows, `The board reads 4+1.` where the game wrote 4+1=?, and the cards."""
    board = said["transcribe"].removeprefix("The board reads ")[:-1] + "=?" if "transcribe" in said else None
    cards = None
    if "cards" in said:
        cards = tuple(int(card.split()[0]) for card in said["cards"].removeprefix("Cards: ").split(", "))
    picture = decode_picture((frames / image).read_bytes())
    return _Seen(name=Path(image).stem, picture=picture, board=board, cards=cards)


def _rows(out: Path, seen: _Seen, family: Family, *, tells_cards: bool) -> Iterator[dict[str, object]]:
    layout = lay_out(find_papers(seen.picture))
    for crop, data in model_crops(seen.picture, seen.picture, layout, layout.board).items():
        answer: object = None
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None  # we have just written it
        places: list[tuple[int | None, float, float]] = []
        if crop != "cards" and seen.board is not None:
            answer = {"writing": seen.board or None}
        if crop == "cards" and seen.cards is not None and len(layout.cards) == len(seen.cards):
            known = len(seen.cards) == len(POSITIONS)
            answer = {
                "cards": [
                    {"text": str(number), "position": POSITIONS[place] if known else "unknown"}
                    for place, number in enumerate(seen.cards)
                ]
            }
            places = list(_card_places(seen, layout, picture.shape[0]))
        if answer is None:
            continue
        name = f"{seen.name}-{crop}"
        encoded = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, 95))[1]
        (out / f"images/{name}.jpg").write_bytes(encoded.tobytes())
        row: dict[str, object] = {
            "id": name,
            "image": f"images/{name}.jpg",
            "skill": f"{CROPS[crop]} in JSON",
            "conversations": [
                {"from": "system", "value": family.prompts[CROPS[crop]]},
                {"from": "human", "value": "<image>"},
                {"from": "gpt", "value": json.dumps(answer)},
            ],
        }
        yield with_cards(row, places) if places and tells_cards else row


def _card_places(seen: _Seen, layout: Layout, height_px: int) -> Iterator[tuple[int, float, float]]:
    """The middle of each card in the crop of all of them, which is `height_px` high."""
    assert seen.cards is not None
    left, top, _, bottom = cards_box(seen.picture.shape, layout.cards)
    scale = height_px / (bottom - top)
    for number, card in zip(seen.cards, layout.cards, strict=True):
        yield number, (card.x - left) * scale, (card.y - top) * scale
