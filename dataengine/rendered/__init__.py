"""Image-text data rendered on the fly: whiteboards and tables, questions about them, and their one right answer."""

from dataengine.rendered.equations import SPLITS, Split
from dataengine.rendered.items import EASY, FULL, SKILLS, Difficulty, Glyph, Item, Skill
from dataengine.rendered.llava import write_llava
from dataengine.rendered.render import held_out, plans_hash, render_item

__all__ = [
    "EASY",
    "FULL",
    "SKILLS",
    "SPLITS",
    "Difficulty",
    "Glyph",
    "Item",
    "Skill",
    "Split",
    "held_out",
    "plans_hash",
    "render_item",
    "write_llava",
]
