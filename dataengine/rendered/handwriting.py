"""Writing on the board and on the cards: synthetic pens, drawn typefaces and jittered ones.

A pen style draws each character as strokes through control points, which wobble from glyph to glyph, so
that two writings of one equation differ as two writings of one person do. A typeface style takes an installed
font (see `hands`) and shifts, turns and scales each glyph; a drawn one gives a pen's strokes thick and thin parts,
and feet.
"""

from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataengine.rendered.hands import Face, face_of, font_file, nib_of, pen_of
from dataengine.rendered.strokes import nib_mask, pen_mask

INK = (24, 32, 70)
_OVERSAMPLE = 2


def write(text: str, *, style: str, size: tuple[int, int], height: float, rng: np.random.Generator) -> Image.Image:
    """A white RGB sheet of `size` (width, height) with `text` centred; `height` is the share of it a digit takes."""
    width_px, height_px = size[0] * _OVERSAMPLE, size[1] * _OVERSAMPLE
    sheet = Image.new("RGB", (width_px, height_px), (250, 250, 248))
    glyphs = [draw_glyph(char, style=style, height_px=height * height_px, rng=rng) for char in text]
    gap_px = 0.16 * height * height_px
    total_px = sum(glyph.width for glyph in glyphs) + gap_px * (len(glyphs) - 1)
    shrink = min(1.0, 0.9 * width_px / total_px)
    left_px = (width_px - total_px * shrink) / 2
    for glyph in glyphs:
        small = glyph.resize((max(1, round(glyph.width * shrink)), max(1, round(glyph.height * shrink))))
        top_px = (height_px - small.height) / 2 + rng.uniform(-0.03, 0.03) * height * height_px
        sheet.paste(INK, (round(left_px), round(top_px)), small)
        left_px += small.width + gap_px * shrink
    return sheet.resize(size, Image.Resampling.LANCZOS)


def draw_glyph(char: str, *, style: str, height_px: float, rng: np.random.Generator) -> Image.Image:
    """An ink mask, cropped in x to the glyph; its height leaves room above and below for a turned glyph."""
    if (nib := nib_of(style)) is not None:
        mask = nib_mask(char, nib, height_px, rng)
    elif (pen := pen_of(style)) is not None:
        mask = pen_mask(char, pen, height_px, rng)
    else:
        mask = _typeface_mask(char, face_of(style), height_px)
    turn_deg = float(rng.uniform(-4.0, 4.0)) if char not in "+-=x" else float(rng.uniform(-2.0, 2.0))
    scale = float(rng.uniform(0.94, 1.04))
    mask = mask.rotate(turn_deg, resample=Image.Resampling.BICUBIC)
    mask = mask.resize((max(1, round(mask.width * scale)), max(1, round(mask.height * scale))))
    box = mask.getbbox()
    if box is None:
        raise ValueError(f"The style {style!r} has no glyph for {char!r}.")
    return mask.crop((box[0], 0, box[2], mask.height))


def _typeface_mask(char: str, face: Face, height_px: float) -> Image.Image:
    font = _font(face.typeface, round(height_px / 0.72))
    side_px = int(height_px * 1.7)
    mask = Image.new("L", (side_px, side_px), 0)
    # Digits of all these fonts stand on the baseline: anchoring there keeps - and + at their own height.
    ImageDraw.Draw(mask).text((side_px / 2, side_px / 2 + height_px / 2), char, fill=255, font=font, anchor="ms")
    return mask if face.is_plain else _bent(mask, face, height_px)


def _bent(mask: Image.Image, face: Face, height_px: float) -> Image.Image:
    """The same character stretched, slanted and waved, its strokes thicker or thinner."""
    side_px = mask.width
    row, column = np.mgrid[:side_px, :side_px].astype(np.float32) - side_px / 2
    wave_px = face.wave * height_px * np.sin(row / height_px * 2 * np.pi * face.waves + face.phase_rad)
    from_column = (column + face.slant * row - wave_px) / face.stretch + side_px / 2
    blurred = cv2.GaussianBlur(np.asarray(mask), (0, 0), sigmaX=face.softness * height_px)
    bent = cv2.remap(blurred, from_column.astype(np.float32), row + np.float32(side_px / 2), cv2.INTER_LINEAR)
    if not bent.any():
        return mask  # what the typeface does not have is found missing by the caller
    # Where a blurred stroke is called ink decides how thick it is; none is so thin that it is gone.
    threshold = min(face.threshold, 0.6 * float(bent.max()) / 255)
    ink = np.clip((bent.astype(np.float32) / 255 - threshold) * 8 + 0.5, 0, 1)
    return Image.fromarray((ink * 255).astype(np.uint8))


@cache
def _font(typeface: str, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_file(typeface), size_px)
