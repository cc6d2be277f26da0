"""Annotated filmstrips: frames of one episode with the boxes that were proposed, and its segments to scale below."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dataengine.episode_set import EpisodeSet
from schemas.annotations import AnyPayload, ReasoningTrace, SegmentList
from schemas.scenes import Box, PlacementTrace, SceneNotes
from schemas.spans import NS_PER_S

_HEIGHT, _GAP, _BAND = 150, 4, 22
_INK, _PAPER = (30, 34, 40), (255, 255, 255)
_BOX = (255, 0, 200)  # a colour that neither table nor toys have
# As in the review page, so that a label looks the same everywhere.
_BANDS: dict[str, tuple[int, int, int]] = {
    "reach": (158, 192, 235),
    "grasp": (244, 190, 120),
    "carry": (160, 214, 160),
    "release": (238, 160, 160),
    "retreat": (205, 190, 235),
    "move": (190, 215, 215),
    "hold": (222, 222, 222),
}


def annotated_strip(episodes: EpisodeSet, episode_id: str, payloads: Sequence[AnyPayload], *, num_frames: int) -> bytes:
    """One JPEG: `num_frames` frames evenly over an episode, boxes drawn on the first, a band of segments below.

    Boxes are given in a frame from before the robot moves anything, which the first one is where nothing was trimmed.
    """
    camera = _camera(payloads) or episodes.cameras[0]
    last = episodes.row(episode_id).num_frames - 1
    picks = [round(last * step / (num_frames - 1)) for step in range(num_frames)]
    frames = [episodes.frame(episode_id, camera, index) for index in picks]
    drawn = [_with_boxes(frames[0], _boxes(payloads)), *frames[1:]]
    tiles = [_tile(frame, f"{index / episodes.rate_hz:.2f} s") for frame, index in zip(drawn, picks, strict=True)]
    width = sum(tile.width + _GAP for tile in tiles) - _GAP
    segments = next((payload for payload in payloads if isinstance(payload, SegmentList)), None)
    strip = Image.new("RGB", (width, _HEIGHT + (_GAP + _BAND if segments else 0)), _PAPER)
    left = 0
    for tile in tiles:
        strip.paste(tile, (left, 0))
        left += tile.width + _GAP
    if segments is not None:
        start_ns, end_ns = episodes.row(episode_id).start_ns, episodes.end_ns(episode_id)
        _draw_band(ImageDraw.Draw(strip), segments, start_ns, end_ns, width)
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=88)
    return out.getvalue()


def _camera(payloads: Sequence[AnyPayload]) -> str | None:
    named = (payload.picture for payload in payloads if isinstance(payload, PlacementTrace | SceneNotes))
    return next((picture.camera for picture in named if picture is not None), None)


def _boxes(payloads: Sequence[AnyPayload]) -> list[tuple[str, Box]]:
    """(what it says beside it, box) of everything that has one."""
    found: dict[str, Box | None] = {}
    for payload in payloads:
        match payload:
            case ReasoningTrace():
                found |= {card.text: card.box_xyxy for card in payload.cards}
            case SceneNotes():
                found |= {one.noun: one.box_xyxy for one in payload.objects}
            case PlacementTrace():
                found |= {one.noun: one.box_xyxy for one in (payload.target, payload.reference) if one is not None}
            case SegmentList():
                pass
    return [(words, box) for words, box in found.items() if box is not None]


def _with_boxes(frame: NDArray[np.uint8], boxes: Sequence[tuple[str, Box]]) -> NDArray[np.uint8]:
    """Drawn on a picture of at least 480 rows, so that words beside small boxes can be read."""
    grown = max(1, -(-480 // frame.shape[0]))
    picture = Image.fromarray(frame).resize((frame.shape[1] * grown, frame.shape[0] * grown))
    draw = ImageDraw.Draw(picture)
    size = 8 * grown + 12
    font = ImageFont.load_default(size=size)
    for number, (words, (x0, y0, x1, y1)) in enumerate(sorted(boxes, key=lambda each: each[1])):
        draw.rectangle((x0 * grown, y0 * grown, x1 * grown - 1, y1 * grown - 1), outline=_BOX, width=2 * grown)
        # Below and above by turns: neighbours in a row would write over each other.
        top = y0 * grown - size - 8 if number % 2 else y1 * grown + 2
        draw.text((x0 * grown, top), words, fill=_INK, font=font, stroke_width=3, stroke_fill=_PAPER)
    return np.asarray(picture)


def _tile(frame: NDArray[np.uint8], stamp: str) -> Image.Image:
    image = Image.fromarray(frame)
    tile = image.resize((round(image.width * _HEIGHT / image.height), _HEIGHT), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(tile)
    draw.text((4, 3), stamp, fill=_INK, font=ImageFont.load_default(size=13), stroke_width=2, stroke_fill=_PAPER)
    return tile


def _draw_band(draw: ImageDraw.ImageDraw, segments: SegmentList, start_ns: int, end_ns: int, width: int) -> None:
    font = ImageFont.load_default(size=12)
    top = _HEIGHT + _GAP
    for part in segments.segments:
        x0, x1 = (
            round(width * (min(max(edge, start_ns), end_ns) - start_ns) / (end_ns - start_ns))
            for edge in (part.start_ns, part.end_ns)
        )
        if x0 >= x1:
            continue
        draw.rectangle((x0, top, x1 - 1, top + _BAND - 1), fill=_BANDS.get(part.label, _PAPER), outline=_PAPER)
        words = f"{part.label} {(part.end_ns - part.start_ns) / NS_PER_S:.1f} s"
        shown = next((text for text in (words, part.label) if draw.textlength(text, font=font) < x1 - x0 - 6), "")
        draw.text((x0 + 4, top + 4), shown, fill=_INK, font=font)
