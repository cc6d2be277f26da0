"""Hands drawn for training: each writes everything, none is one that is kept to ask about."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageFont

from dataengine.rendered import FULL, SKILLS, Difficulty
from dataengine.rendered.doodles import WORDS
from dataengine.rendered.hands import drawn_hands, face_of, font_file, nib_of, pen_of
from dataengine.rendered.handwriting import draw_glyph
from dataengine.rendered.related import render_exercise
from dataengine.rendered.render import draw_item
from dataengine.rendered.sheets import render_sheet
from dataengine.rendered.styles import STYLES, draw_style
from dataengine.rendered.writing import can_write
from schemas.errors import UsageError

CHARS = "0123456789+-x()=?"
LETTERS = "".join(sorted({char for words in WORDS["train"] for char in words} - {" "} - set(CHARS)))


PEN_STYLES, NIBS, FACES = drawn_hands()


@pytest.mark.parametrize("hand", [*PEN_STYLES, *NIBS, *FACES])
def test_every_drawn_hand_writes_every_character_of_a_board_unlike_each_other(hand: str) -> None:
    masks = {}
    for char in CHARS:
        mask = np.asarray(draw_glyph(char, style=hand, height_px=72, rng=np.random.default_rng(0)).resize((40, 72)))
        assert 0.01 < (mask > 127).mean() < 0.9, char
        masks[char] = mask.astype(int)
    for letter in LETTERS if can_write(hand) else "":
        assert (np.asarray(draw_glyph(letter, style=hand, height_px=72, rng=np.random.default_rng(0))) > 127).any()
    apart = {(one, other): np.abs(masks[one] - masks[other]).mean() for one in CHARS for other in CHARS if one < other}
    assert min(apart.values()) > 2, min(apart, key=lambda pair: apart[pair])


def test_hands_are_many_and_no_family_is_on_both_sides() -> None:
    kept = {face_of(style).typeface for style in STYLES["held-out"] if pen_of(style) is None}
    used = {face_of(hand).typeface for hand in (*FACES, *STYLES["train"]) if pen_of(hand) is None}
    assert len(set(PEN_STYLES)) == len({pen_of(hand) for hand in PEN_STYLES}) == 72
    assert len(set(NIBS)) == len({nib_of(hand) for hand in NIBS}) == 144
    assert len(set(FACES)) == len({face_of(hand) for hand in FACES}) >= 100
    assert {face_of(style).typeface for style in STYLES["train"] if pen_of(style) is None} <= used
    assert not {_family(typeface) for typeface in kept} & {_family(typeface) for typeface in used}


def _family(typeface: str) -> str:
    """What the font file itself says: `DejaVu Serif` and `DejaVu Sans` are two, `STIXGeneral` bold and italic one."""
    return str(ImageFont.truetype(font_file(typeface), 20).getname()[0]).replace("STIXGeneral", "STIX")


def test_a_face_bent_another_way_is_another_face_and_the_first_is_the_typeface_itself() -> None:
    ways = [face_of(f"Caladea-Regular {bend}") for bend in range(4)]
    assert ways[0].is_plain
    assert len(set(ways)) == 4
    drawn = [
        draw_glyph("5", style=f"Caladea-Regular {bend}", height_px=72, rng=np.random.default_rng(1))
        for bend in range(4)
    ]
    assert len({(mask.size, mask.tobytes()) for mask in drawn}) == 4


def test_a_drawn_typeface_keeps_its_forms_and_every_drawn_one_has_its_own() -> None:
    def ink(style: str, seed: int) -> NDArray[np.bool_]:
        glyph = draw_glyph("2", style=style, height_px=72, rng=np.random.default_rng(seed))
        return np.asarray(glyph.resize((48, 72))) > 127

    same = np.mean([(ink(nib, 1) != ink(nib, 2)).mean() for nib in NIBS[:20]])
    others = np.mean([(ink(nib, 1) != ink(other, 1)).mean() for nib, other in pairwise(NIBS[:20])])
    assert others > 2 * same


def test_what_is_held_out_is_never_written_in_a_drawn_hand() -> None:
    with pytest.raises(ValueError, match="for training alone"):
        draw_style("held-out", share=1.0, hands=0.5, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="for training alone"):
        render_exercise(split="held-out", seed=0, row=0, skill="cards", most=1, difficulty=replace(FULL, hands=1))
    with pytest.raises(ValueError, match="hands lies in"):
        replace(FULL, hands=1.5)


def test_a_share_of_pictures_is_in_drawn_hands_a_third_of_them_each_of_pens_and_typefaces() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_style("train", share=1.0, hands=0.6, rng=rng) for _ in range(600)]
    for pool in drawn_hands():
        assert 0.15 < np.mean([style in pool for style in drawn]) < 0.25
    assert {draw_style("train", share=1.0, hands=0.0, rng=rng) for _ in range(200)} == set(STYLES["train"])


def test_pictures_of_recipes_without_drawn_hands_are_what_they_were() -> None:
    """Frozen before hands were drawn, by what is planned: pixels are not the same on every processor.

    But for boards with brackets, of which training has fewer since sums are counted out, and for answers that count.
    """
    assert _planned(FULL) == "e742"
    assert _planned(replace(FULL, hands=1.0)) != _planned(FULL)


def _planned(difficulty: Difficulty) -> str:
    digest = hashlib.sha256()
    for skill in SKILLS:
        for row in range(6):
            drawn = draw_item(split="train", seed=1, row=row, skill=skill, difficulty=difficulty)
            board = drawn.plan.view.board
            text = "" if board is None or board.equation is None else board.equation.text
            answer = "" if skill in ("solve", "choice", "trace") else drawn.plan.answer
            if "(" not in text:
                digest.update(repr((drawn.plan.question, text, answer, drawn.plan.view.style)).encode())
    return digest.hexdigest()[:4]


def test_sheets_and_boards_are_written_in_drawn_hands_and_characters_stay_where_they_are_said_to_be() -> None:
    calm = replace(FULL, hands=1.0, weather=0.0, geometry=0.0)
    inked = []
    for row in range(8):
        sheet = render_sheet(split="train", seed=1, row=row, difficulty=calm)
        grey = sheet.picture.min(axis=-1).astype(int)
        inked += [
            grey[max(0, round(g.y_px) - 6) : round(g.y_px) + 7, max(0, round(g.x_px) - 6) : round(g.x_px) + 7]
            for g in sheet.glyphs
        ]
    assert len(inked) > 100
    assert np.mean([np.ptp(part) > 60 for part in inked]) > 0.95


def test_only_typefaces_have_letters() -> None:
    assert not can_write("pen 3")
    assert not can_write("nib 3")
    assert not can_write("round_pen")
    assert can_write("Caladea-Bold 2")
    assert can_write("cmr10")


def test_a_typeface_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"typeface Intuitive is not installed\. Install it: pip "):
        font_file("Intuitive")
