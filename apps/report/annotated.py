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

_HEIGHT, _GAP = 200, 4
_INK, _PAPER = (30, 34, 40), (255, 255, 255)
_BOX = (255, 0, 200)  # a colour that neither table nor toys have
_WORDS = 17  # pixels high, of the strip as it is stored
_LONGEST = 24  # signs beside a box; the whole of it stands in the words below
STYLE = """<style>
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
    camera = next((name for name, _, _, _ in seen if name in episodes.cameras), next(iter(episodes.cameras), None))
    if camera is None:
        shown = note("No camera: no pictures.")
    else:
        # Each picture is the middle of the stretch of time it stands over, or the frame in it that boxes are given in.
        places = ((np.arange(num_frames) + 0.5) / num_frames * row.num_frames).astype(int).tolist()
        boxes: dict[int, dict[str, Box]] = {}
        for name, frame, words, box in seen:
            at = frame - row.start_frame
            if name == camera and 0 <= at < row.num_frames:
                boxes.setdefault(at, {})[words] = box
        drawn = max(boxes, key=lambda at: len(boxes[at]), default=None)
        if drawn is not None:
            places[drawn * num_frames // row.num_frames] = drawn
        tiles = [
            _tile(episodes.frame(episode_id, camera, at), f"{at / rate_hz:.2f} s", boxes[at] if at == drawn else {})
            for at in places
        ]
        shown = picture(_joined(tiles), "jpeg", f"{num_frames} frames of {episode_id}, {camera}")
    start_ns, end_ns = row.start_ns, episodes.end_ns(episode_id)
    payloads = (one.payload for one in proposals)
    segments = next((payload for payload in payloads if isinstance(payload, SegmentList)), None)
    cuts = "".join(_cut(one, start_ns, end_ns) for one in segments.segments) if segments else ""
    marks = [f"{share * row.num_frames / rate_hz:.1f} s" for share in (0, 0.25, 0.5, 0.75, 1)]
    clock = "".join(f"<span>{mark}</span>" for mark in marks)
    band = f'<div class="cuts">{cuts}</div>' if segments else ""
    return f'<div class="strip">{shown}{band}</div><div class="clock">{clock}</div>'


def _seen(proposals: Sequence[Proposal]) -> list[tuple[str, int, str, Box]]:
    """(camera, frame of the recording, what it says beside it, box) of everything that was found in a picture."""
    found: list[tuple[str, int, str, Box | None]] = []
    for proposal in proposals:
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


def _tile(frame: NDArray[np.uint8], stamp: str, boxes: dict[str, Box]) -> Image.Image:
    """One picture with its stamp, and the words of each box where they cover no other words."""
    image = Image.fromarray(frame)
    scale = _HEIGHT / image.height
    tile = image.resize((round(image.width * scale), _HEIGHT), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(size=_WORDS)
    taken = [draw.textbbox((5, 3), stamp, font=font, stroke_width=3)]
    draw.text((5, 3), stamp, fill=_INK, font=font, stroke_width=3, stroke_fill=_PAPER)
    placed = sorted(boxes.items(), key=lambda each: each[1])
    for _, box in placed:
        x0, y0, x1, y1 = (round(side * scale) for side in box)
        draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_BOX, width=2)
    for text, box in placed:
        words = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
        x0, y0, x1, y1 = (round(side * scale) for side in box)
        width = draw.textlength(words, font=font)
        left = min(max(2, (x0 + x1 - width) / 2), tile.width - width - 3)
        places = [(left, top) for step in range(3) for top in (y1 + 2 + step * _WORDS, y0 - (step + 1) * _WORDS - 6)]
        fits = [place for place in places if 0 <= place[1] <= _HEIGHT - _WORDS - 4]
        spans = {place: draw.textbbox(place, words, font=font, stroke_width=3) for place in fits or places[:1]}
        best = min(spans, key=lambda place: sum(_covers(spans[place], other) for other in taken))
        taken.append(spans[best])
        draw.text(best, words, fill=_INK, font=font, stroke_width=3, stroke_fill=_PAPER)
    return tile


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """How many pixels two boxes share."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def _joined(tiles: Sequence[Image.Image]) -> bytes:
    """One JPEG, tiles side by side."""
    strip = Image.new("RGB", (sum(tile.width + _GAP for tile in tiles) - _GAP, _HEIGHT), _PAPER)
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width + _GAP
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=88)
    return out.getvalue()


def _cut(one: Segment, start_ns: int, end_ns: int) -> str:
    left, right = (100 * (at - start_ns) / (end_ns - start_ns) for at in (one.start_ns, one.end_ns))
    kind = one.phase if one.phase in LABELS else "unknown"
    words = f"{one.start_ns / NS_PER_S:.2f} to {one.end_ns / NS_PER_S:.2f} s: {one.render()}"
    place = f"left:{left:.3f}%;width:{right - left:.3f}%"
    return f'<span class="{kind}" style="{place}" title="{escape(words)}">{escape(one.label)}</span>'
