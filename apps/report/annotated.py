"""Annotated filmstrips: frames of one episode, what was found drawn where it was seen, and what was cut below to scale.

Each picture stands over its own stretch of time. The one whose stretch holds the frame that boxes are given in shows
that very frame, with the boxes.
"""

import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from annotators.structure import LABELS
from apps.report.page import note, picture
from dataengine.episode_set import EpisodeSet
from schemas.annotations import Proposal, ReasoningTrace, Segment, SegmentList
from schemas.scenes import Box, PlacementTrace, SceneNotes
from schemas.spans import NS_PER_S

_HEIGHT, _GAP, _BAR = 200, 4, 36  # of a tile of the strip, which a page shows at about half that size
_WIDE = 760  # of the one picture with words in it, which a page shows at half that size
_STAMP, _WORDS = 26, 24  # pixels high, of tiles and of the one picture
_INK, _PAPER = (30, 34, 40), (255, 255, 255)
_BOX = (255, 0, 200)  # a colour that neither table nor toys have
_LONGEST = 28  # signs beside a box; the whole of it stands in the words below
STYLE = """<style>
.seen { max-width: 420px; margin: 8px 0 0; } .seen p { margin: 2px 0 6px; }
.strip { margin: 8px 0 4px; } .strip img { width: 100%; border-radius: 6px 6px 0 0; }
.cuts { position: relative; height: 30px; border-radius: 0 0 6px 6px; overflow: hidden; background: var(--ground); }
.cuts span { position: absolute; top: 0; bottom: 0; padding: 5px 0 5px 5px; font-size: 12.5px; line-height: 20px;
  color: #1c2430; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  border-left: 1px solid #ffffff; background: #d5d8dd; }
.cuts .reach { background: #b9d3ee; } .cuts .grasp { background: #f0cf92; } .cuts .carry { background: #b7ddbc; }
.cuts .release { background: #efbfbb; } .cuts .retreat { background: #d3c7ea; } .cuts .move { background: #c4dbe6; }
.cuts .hold { background: #d9d6c8; } .clock { display: flex; justify-content: space-between; color: var(--soft);
  font-size: 12.5px; margin: 0 0 6px; font-variant-numeric: tabular-nums; }
</style>"""


def annotated_strip(episodes: EpisodeSet, episode_id: str, proposals: Sequence[Proposal], *, num_frames: int) -> str:
    """Markup of one episode: `num_frames` pictures with stamps and boxes, and below them its segments to scale.

    A page that shows one needs `STYLE` once. All words are escaped.
    """
    row, rate_hz = episodes.row(episode_id), episodes.rate_hz
    seen = _seen(proposals)
    camera = next((name for name, *_ in seen if name in episodes.cameras), next(iter(episodes.cameras), None))
    if camera is None:
        shown = f'<div class="strip">{note("No camera: no pictures.")}'
    else:
        # Each picture is the middle of the stretch of time it stands over, or the frame in it that boxes are given in.
        places = ((np.arange(num_frames) + 0.5) / num_frames * row.num_frames).astype(int).tolist()
        boxes: dict[int, dict[Box, list[str]]] = {}
        for name, frame, words, box in seen:
            at = frame - row.start_frame
            if name == camera and 0 <= at < row.num_frames:
                said = boxes.setdefault(at, {}).setdefault(box, [])
                said += [words] if words not in said else []
        drawn = max(boxes, key=lambda at: len(boxes[at]), default=None)
        shown = ""
        if drawn is not None:
            places[drawn * num_frames // row.num_frames] = drawn
            told = f"{camera} at {drawn / rate_hz:.2f} s, with what was found in it"
            large = _labelled(episodes.frame(episode_id, camera, drawn), boxes[drawn])
            shown = f'<div class="seen">{picture(_jpeg(large), "jpeg", told)}{note(told)}</div>'
        tiles = []
        for at in places:
            outlines = list(boxes[at]) if at == drawn else []
            tiles.append(_tile(episodes.frame(episode_id, camera, at), f"{at / rate_hz:.2f} s", outlines))
        words = f"{num_frames} frames of {episode_id}, {camera}"
        shown += f'<div class="strip">{picture(_jpeg(_joined(tiles)), "jpeg", words)}'
    start_ns, end_ns = row.start_ns, episodes.end_ns(episode_id)
    payloads = (one.payload for one in proposals)
    segments = next((payload for payload in payloads if isinstance(payload, SegmentList)), None)
    cuts = "".join(_cut(one, start_ns, end_ns) for one in segments.segments) if segments else ""
    marks = [f"{share * row.num_frames / rate_hz:.1f} s" for share in (0, 0.25, 0.5, 0.75, 1)]
    clock = "".join(f"<span>{mark}</span>" for mark in marks)
    band = f'<div class="cuts">{cuts}</div>' if segments else ""
    return f'{shown}{band}</div><div class="clock">{clock}</div>'


def _seen(proposals: Sequence[Proposal]) -> list[tuple[str, int, str, Box]]:
    """(camera, frame of the recording, what it says beside it, box) of everything that was found in a picture."""
    found: list[tuple[str, int, str, Box | None]] = []
    # The reading of a card stands behind its noun, so what has nouns comes first.
    for proposal in sorted(proposals, key=lambda one: isinstance(one.payload, ReasoningTrace)):
        match proposal.payload:
            case ReasoningTrace() as trace:
                shown = proposal.images.get("card_left") or proposal.images.get("card_1") or {}
                if isinstance(shown, dict) and isinstance(frame := shown.get("frame"), int):
                    camera = str(shown.get("camera"))
                    found += [(camera, frame, card.text, card.box_xyxy) for card in trace.cards]
            case SceneNotes() as notes if notes.picture is not None:
                at = notes.picture
                found += [(at.camera, at.frame, one.noun, one.box_xyxy) for one in notes.objects]
            case PlacementTrace() as placed if placed.picture is not None:
                at = placed.picture
                things = (one for one in (placed.target, placed.reference) if one is not None)
                found += [(at.camera, at.frame, one.noun, one.box_xyxy) for one in things]
            case _:
                pass
    return [(camera, frame, words, box) for camera, frame, words, box in found if box is not None]


def _tile(frame: NDArray[np.uint8], stamp: str, boxes: Sequence[Box]) -> Image.Image:
    """One picture of the strip under its stamp; boxes without words, which would be too small to read."""
    image = Image.fromarray(frame)
    scale = _HEIGHT / image.height
    tile = image.resize((round(image.width * scale), _HEIGHT), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(tile)
    for box in boxes:
        draw.rectangle(_scaled(box, scale), outline=_BOX, width=3)
    stamped = Image.new("RGB", (tile.width, _BAR + tile.height), _INK)
    stamped.paste(tile, (0, _BAR))
    ImageDraw.Draw(stamped).text((8, 2), stamp, fill=_PAPER, font=ImageFont.load_default(size=_STAMP))
    return stamped


def _labelled(frame: NDArray[np.uint8], boxes: dict[Box, list[str]]) -> Image.Image:
    """One picture, large, with what is said about each box where it covers the fewest other words and boxes."""
    image = Image.fromarray(frame)
    scale = _WIDE / image.width
    large = image.resize((_WIDE, round(image.height * scale)), Image.Resampling.LANCZOS)
    draw, font = ImageDraw.Draw(large), ImageFont.load_default(size=_WORDS)
    placed = sorted(boxes.items())
    taken: list[tuple[float, ...]] = [_scaled(box, scale) for box, _ in placed]
    for around in taken:
        draw.rectangle(around, outline=_BOX, width=3)
    for (x0, y0, x1, y1), (_, said) in zip(taken[: len(placed)], placed, strict=True):
        text = ": ".join(said)
        words = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        width = draw.textlength(words, font=font)
        left = min(max(4, (x0 + x1 - width) / 2), large.width - width - 4)
        rows = (top for step in range(4) for top in (y1 + 4 + step * _WORDS, y0 - 8 - (step + 1) * _WORDS))
        places = [(left, top) for top in rows if 0 <= top <= large.height - _WORDS - 6] or [(left, 0.0)]
        spans = [draw.textbbox(place, words, font=font, stroke_width=4) for place in places]
        cost = [sum(_covers(span, other) for other in taken) for span in spans]
        best = cost.index(min(cost))
        taken.append(spans[best])
        draw.text(places[best], words, fill=_INK, font=font, stroke_width=4, stroke_fill=_PAPER)
    return large


def _scaled(box: Box, scale: float) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(side * scale) for side in box)
    return x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """How many pixels two boxes share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _joined(tiles: Sequence[Image.Image]) -> Image.Image:
    """Tiles side by side."""
    strip = Image.new("RGB", (sum(tile.width + _GAP for tile in tiles) - _GAP, _BAR + _HEIGHT), _PAPER)
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width + _GAP
    return strip


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    return out.getvalue()


def _cut(one: Segment, start_ns: int, end_ns: int) -> str:
    left, right = (100 * (at - start_ns) / (end_ns - start_ns) for at in (one.start_ns, one.end_ns))
    kind = one.phase if one.phase in LABELS else "unknown"
    words = f"{one.start_ns / NS_PER_S:.2f} to {one.end_ns / NS_PER_S:.2f} s: {one.render()}"
    place = f"left:{left:.3f}%;width:{right - left:.3f}%"
    return f'<span class="{kind}" style="{place}" title="{escape(words)}">{escape(one.label)}</span>'
