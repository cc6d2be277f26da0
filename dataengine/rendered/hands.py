"""Whose hands there are: pens, typefaces, and those drawn for the purpose, of which training can have any number.

A style is a name: of a pen, of a typeface, `pen 7` of a drawn pen, `nib 7` of a drawn typeface, `Caladea-Bold 3` of a
typeface bent the third way.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from dataengine.rendered.keyed import keyed_rng
from schemas.errors import UsageError

_NUM_PENS, _NUM_NIBS = 72, 144  # drawn for training alone
_BENDS = 4  # ways in which each typeface is bent


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """One person's hand: lengths in units of the glyph height."""

    stroke: float
    slant: float
    aspect: float
    wobble: float
    barred_seven: bool = False
    flagged_one: bool = True
    open_four: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Nib:
    """A typeface of nobody's: a pen's strokes, shaped anew, thick and thin by their direction, with feet and drops."""

    number: int  # what the shapes of its characters are drawn from
    pen: Pen
    thin: float  # of the thinnest stroke, as a share of the thickest; signs are as thick all over
    tilt_rad: float  # of the direction in which strokes are thinnest, from the horizontal
    reshaping: float  # how far the points of a character are moved, in units of its size
    foot: float  # length of serifs in units of the glyph height; 0: none
    drop: float  # radius where a curve ends, in half strokes; 0: nothing is added


PENS: dict[str, Pen] = {
    "round_pen": Pen(stroke=0.105, slant=0.04, aspect=0.62, wobble=0.016),
    "quick_pen": Pen(stroke=0.090, slant=0.14, aspect=0.58, wobble=0.022, flagged_one=False),
    "tall_pen": Pen(stroke=0.100, slant=0.00, aspect=0.54, wobble=0.016, open_four=False),
    "slanted_pen": Pen(stroke=0.095, slant=0.15, aspect=0.60, wobble=0.018, flagged_one=False, open_four=False),
    "wide_pen": Pen(stroke=0.100, slant=-0.04, aspect=0.72, wobble=0.020),
    "thick_pen": Pen(stroke=0.135, slant=0.07, aspect=0.64, wobble=0.014, barred_seven=True),
    "hand_fine": Pen(stroke=0.075, slant=0.06, aspect=0.66, wobble=0.020, barred_seven=True, flagged_one=False),
    "hand_upright": Pen(stroke=0.110, slant=-0.02, aspect=0.58, wobble=0.018, open_four=False),
    "hand_narrow": Pen(stroke=0.085, slant=0.10, aspect=0.50, wobble=0.016, barred_seven=True),
    "hand_broad": Pen(stroke=0.120, slant=0.02, aspect=0.66, wobble=0.022, flagged_one=False, open_four=False),
    "hand_hasty": Pen(stroke=0.100, slant=0.10, aspect=0.64, wobble=0.028),
    "hand_stiff": Pen(stroke=0.125, slant=0.00, aspect=0.56, wobble=0.010, barred_seven=True, open_four=False),
    "hand_backward": Pen(stroke=0.090, slant=-0.10, aspect=0.60, wobble=0.018, flagged_one=False),
    "hand_round_slant": Pen(stroke=0.110, slant=0.20, aspect=0.66, wobble=0.016, barred_seven=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A typeface, and how it is bent: lengths in units of the glyph height."""

    typeface: str
    stretch: float = 1.0  # of widths
    slant: float = 0.0  # to the right, per height
    wave: float = 0.0  # how far strokes sway sideways
    waves: float = 1.0  # how often, per height
    phase_rad: float = 0.0
    softness: float = 0.015  # how far ink is blurred before
    threshold: float = 0.5  # ... it is ink again: lower is thicker

    @property
    def is_plain(self) -> bool:
        """As the typeface is."""
        return self == Face(typeface=self.typeface)


# What packages of fonts bring, and the families of matplotlib's that are in training; STIX, DejaVu Serif and Computer
# Modern Typewriter are kept to ask about.
_PACKAGED = {
    "AmaticSC": ("font_amatic_sc", ("AmaticSC-Bold.ttf",)),
    "Caladea": (
        "font_caladea",
        ("Caladea-Regular.ttf", "Caladea-Bold.ttf", "Caladea-Italic.ttf", "Caladea-BoldItalic.ttf"),
    ),
    "FredokaOne": ("font_fredoka_one", ("FredokaOne-Regular.ttf",)),
    "HankenGrotesk": (
        "font_hanken_grotesk",
        ("HankenGrotesk-Regular.otf", "HankenGrotesk-Bold.otf", "HankenGrotesk-LightItalic.otf"),
    ),
    "Intuitive": ("font_intuitive", ("Intuitive.ttf",)),
    "Manrope": ("font_manrope", ("Manrope-Regular.ttf", "Manrope-Bold.ttf", "Manrope-Light.ttf")),
    "SourceSerifPro": (
        "font_source_serif_pro",
        (
            "SourceSerifPro-Regular.otf",
            "SourceSerifPro-Semibold.otf",
            "SourceSerifPro-Bold.otf",
            "SourceSerifPro-Light.otf",
            "SourceSerifPro-It.otf",
            "SourceSerifPro-BoldIt.otf",
        ),
    ),
}
_MATPLOTLIBS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "cmss10",
    "cmr10",
    "cmb10",
)
_FILES = {Path(file).stem: (package, file) for package, files in _PACKAGED.values() for file in files}


@cache
def drawn_hands() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Pens, drawn typefaces and bent typefaces, for training alone; in a fixed order."""
    pens = tuple(f"pen {number}" for number in range(_NUM_PENS))
    nibs = tuple(f"nib {number}" for number in range(_NUM_NIBS))
    faces = tuple(f"{typeface} {bend}" for typeface in (*_FILES, *_MATPLOTLIBS) for bend in range(_BENDS))
    return pens, nibs, faces


@cache
def pen_of(style: str) -> Pen | None:
    """The pen of a style; None for a typeface, drawn or not."""
    name, _, number = style.partition(" ")
    if name != "pen":
        return PENS.get(style)
    rng = keyed_rng("drawn pen", int(number))
    return Pen(
        stroke=float(rng.uniform(0.07, 0.14)),
        slant=float(rng.uniform(-0.12, 0.22)),
        aspect=float(rng.uniform(0.48, 0.74)),
        wobble=float(rng.uniform(0.01, 0.028)),
        barred_seven=bool(rng.random() < 0.4),
        flagged_one=bool(rng.random() < 0.5),
        open_four=bool(rng.random() < 0.5),
    )


@cache
def nib_of(style: str) -> Nib | None:
    """The drawn typeface of a style; None for others."""
    name, _, number = style.partition(" ")
    if name != "nib":
        return None
    rng = keyed_rng("drawn nib", int(number))
    is_upright = rng.random() < 0.55
    thin = float(np.exp(rng.uniform(np.log(0.18), 0.0)))
    return Nib(
        number=int(number),
        pen=Pen(
            stroke=float(rng.uniform(0.07, 0.11) if rng.random() < 0.6 else rng.uniform(0.11, 0.19)),
            slant=float(rng.uniform(-0.02, 0.02) if is_upright else rng.uniform(0.1, 0.26)),
            aspect=float(rng.uniform(0.44, 0.7)),
            wobble=0.004,
            barred_seven=bool(rng.random() < 0.05),
            flagged_one=bool(rng.random() < 0.9),
            open_four=bool(rng.random() < 0.1),
        ),
        thin=thin,
        tilt_rad=float(rng.uniform(-0.1, 0.4)),
        reshaping=float(rng.uniform(0.01, 0.045)),
        foot=float(rng.uniform(0.3, 0.55) if rng.random() < 0.8 else 0.0),
        drop=float(rng.uniform(1.0, 1.5) if rng.random() < 0.5 else 0.0),
    )


@cache
def face_of(style: str) -> Face:
    """The typeface of a style, bent or as it is."""
    typeface, _, bend = style.partition(" ")
    if not bend or bend == "0":
        return Face(typeface=typeface)
    rng = keyed_rng("bent face", typeface, int(bend))
    return Face(
        typeface=typeface,
        stretch=float(rng.uniform(0.8, 1.25)),
        slant=float(rng.uniform(-0.12, 0.2)),
        wave=float(rng.uniform(0, 0.025)),
        waves=float(rng.uniform(0.5, 1.5)),
        phase_rad=float(rng.uniform(0, 6.28)),
        softness=float(rng.uniform(0.01, 0.025)),
        threshold=float(rng.uniform(0.2, 0.5)),
    )


def font_file(typeface: str) -> Path:
    """Where a typeface lies. Raises UsageError where its package is not installed."""
    package, file = _FILES.get(typeface, ("", f"{typeface}.ttf"))
    if not package:
        import matplotlib

        return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / file
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"typeface {typeface} is not installed. Install it: pip install {package.replace('_', '-')}.")
    return Path(spec.submodule_search_locations[0]) / "files" / file
