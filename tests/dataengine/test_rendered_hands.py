"""Hands drawn for training: each writes everything, none is one that is kept to ask about."""

from dataclasses import replace

import numpy as np
import pytest

from dataengine.rendered import FULL, render_item
from dataengine.rendered.doodles import WORDS
from dataengine.rendered.hands import drawn_hands, face_of, font_file, pen_of
from dataengine.rendered.handwriting import draw_glyph
from dataengine.rendered.related import render_exercise
from dataengine.rendered.sheets import render_sheet
from dataengine.rendered.styles import STYLES, draw_style
from dataengine.rendered.writing import can_write
from schemas.errors import UsageError

CHARS = "0123456789+-x()=?"
LETTERS = "".join(sorted({char for words in WORDS["train"] for char in words} - {" "} - set(CHARS)))


@pytest.mark.parametrize("hand", drawn_hands())
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


def test_hands_are_many_and_none_is_kept_to_ask_about() -> None:
    hands = drawn_hands()
    assert len(set(hands)) >= 150
    kept = set(STYLES["held-out"])
    assert not kept & set(hands)
    pens = {pen_of(hand) for hand in hands} - {None}
    assert len(pens) >= 60
    assert not pens & {pen_of(style) for style in kept}
    families = {face_of(style).typeface.split("-")[0].rstrip("0123456789") for style in kept if pen_of(style) is None}
    used = {face_of(hand).typeface for hand in hands if pen_of(hand) is None}
    # "DejaVuSerif" is kept, "DejaVuSans" is not: a family stays on one side
    assert not any(typeface.startswith(family) for typeface in used for family in ("STIX", "DejaVuSerif", "cmtt"))
    assert all(family.startswith(("STIX", "DejaVuSerif", "cmtt")) for family in families)


def test_a_face_bent_another_way_is_another_face_and_the_first_is_the_typeface_itself() -> None:
    ways = [face_of(f"Caladea-Regular {bend}") for bend in range(4)]
    assert ways[0].is_plain
    assert len(set(ways)) == 4
    drawn = [
        draw_glyph("5", style=f"Caladea-Regular {bend}", height_px=72, rng=np.random.default_rng(1))
        for bend in range(4)
    ]
    assert len({(mask.size, mask.tobytes()) for mask in drawn}) == 4


def test_what_is_held_out_is_never_written_in_a_drawn_hand() -> None:
    with pytest.raises(ValueError, match="for training alone"):
        draw_style("held-out", share=1.0, hands=0.5, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="for training alone"):
        render_exercise(split="held-out", seed=0, row=0, skill="cards", most=1, difficulty=replace(FULL, hands=1))
    with pytest.raises(ValueError, match="hands lies in"):
        replace(FULL, hands=1.5)


def test_a_share_of_pictures_is_in_drawn_hands() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_style("train", share=1.0, hands=0.6, rng=rng) for _ in range(400)]
    assert 0.5 < np.mean([style in drawn_hands() for style in drawn]) < 0.7
    assert {draw_style("train", share=1.0, hands=0.0, rng=rng) for _ in range(200)} == set(STYLES["train"])


def test_without_drawn_hands_pictures_are_what_they_were() -> None:
    plain = render_item(split="train", seed=1, row=0, skill="cards")
    same = render_item(split="train", seed=1, row=0, skill="cards", difficulty=replace(FULL, hands=0.0))
    other = render_item(split="train", seed=1, row=0, skill="cards", difficulty=replace(FULL, hands=1.0))
    assert np.array_equal(plain.picture, same.picture)
    assert not np.array_equal(plain.picture, other.picture)


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
    assert not can_write("round_pen")
    assert can_write("Caladea-Bold 2")
    assert can_write("cmr10")


def test_a_typeface_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"typeface Intuitive is not installed\. Install it: pip "):
        font_file("Intuitive")
