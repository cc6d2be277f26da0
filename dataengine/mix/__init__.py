"""Mixing: robot episodes and image-text data in stated ratios, locked, in an order anyone can compute again."""

from dataengine.mix.build import build_mix
from dataengine.mix.lineage import LineageNode, first_draw_of, lineage
from dataengine.mix.mix import Mix
from dataengine.mix.reader import MixReader
from dataengine.mix.sample_page import sample_html
from dataengine.mix.showing import MixTree, mix_tree, tree
from dataengine.mix.spec import load_spec

__all__ = [
    "LineageNode",
    "Mix",
    "MixReader",
    "MixTree",
    "build_mix",
    "first_draw_of",
    "lineage",
    "load_spec",
    "mix_tree",
    "sample_html",
    "tree",
]
