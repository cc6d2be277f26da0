"""Sums are counted out by a rule that ends at the answer, and no lesson in it names a held-out problem."""

import inspect
import re
from itertools import pairwise

import numpy as np
import pytest

from dataengine.rendered import questions
from dataengine.rendered.counting import counted_out
from dataengine.rendered.equations import SPLITS, Equation, equations, split_of
from dataengine.rendered.sums import draw_sum
from trainers.evaluate import evaluate
from trainers.policy import load_policy
from trainers.tokenizer import nano_tokenizer
from trainers.vlm.train import LONGEST_ANSWER

KINDS = ("plus", "minus", "times", "two-digit", "brackets")


@pytest.mark.parametrize(
    ("equation", "said"),
    [
        (Equation(left=7, operator="+", right=5), "7+5: 7,5 8,4 9,3 10,2 11,1 12,0."),
        (Equation(left=5, operator="+", right=7), "5+7: 5,7 6,6 7,5 8,4 9,3 10,2 11,1 12,0."),
        (Equation(left=7, operator="-", right=3), "7-3: 7,3 6,2 5,1 4,0."),
        (Equation(left=3, operator="x", right=4), "3x4: 0,3 4,2 8,1 12,0."),
        (Equation(left=12, operator="x", right=3), "12x3: 0,12 30,2 33,1 36,0."),
        (Equation(left=6, operator="+", right=0), "6+0: 6,0."),
        (Equation(left=13, operator="+", right=21), "13+21: 13,21 23,11 33,1 34,0."),
        (
            Equation(left=Equation(left=4, operator="+", right=1), operator="x", right=2),
            "4+1: 4,1 5,0. 5x2: 0,5 2,4 4,3 6,2 8,1 10,0.",
        ),
    ],
)
def test_a_sum_is_counted_out(equation: Equation, said: str) -> None:
    assert counted_out(equation) == said


@pytest.mark.parametrize("kind", KINDS)
def test_counting_ends_at_the_answer_and_each_pair_follows_from_the_one_before(kind: str) -> None:
    for split in SPLITS:
        for equation in equations(split, kind):  # type: ignore[arg-type]
            rows = re.findall(r"(\S+): ([\d, ]+)\.", counted_out(equation))
            assert int(rows[-1][1].split()[-1].split(",")[0]) == equation.answer
            for problem, pairs in rows:
                counted = [tuple(map(int, pair.split(","))) for pair in pairs.split()]
                left, sign, right = re.fullmatch(r"(\d+)([-+x])(\d+)", problem).groups()  # type: ignore[union-attr]
                step = {"+": 1, "-": -1, "x": int(right)}[sign]
                assert counted[0] == ((0, int(left)) if sign == "x" else (int(left), int(right)))
                assert counted[-1][1] == 0
                for (so_far, to_go), following in pairwise(counted):
                    stride = 10 if to_go >= 10 else 1
                    assert following == (so_far + stride * step, to_go - stride)
            assert questions.solved(equation).endswith(f",0. So {equation.answer}.")


def test_no_lesson_in_counting_names_a_held_out_problem() -> None:
    rng = np.random.default_rng(0)
    learned = [equation for kind in KINDS for equation in equations("train", kind)]  # type: ignore[arg-type]
    learned += [draw_sum(split="train", rng=rng) for _ in range(3000)]
    shown = {row for equation in learned for row in re.findall(r"(\d+)([-+x])(\d+): ", counted_out(equation))}
    assert len(shown) > 300
    assert {split_of(Equation(left=int(a), operator=sign, right=int(b))) for a, sign, b in shown} == {"train"}


def test_the_longest_trace_is_not_cut_short_by_who_speaks_it() -> None:
    limits = [
        inspect.signature(speaker).parameters[name].default
        for speaker, name in ((evaluate, "max_tokens"), (load_policy, "max_reasoning_tokens"))
    ]
    tokenizer = nano_tokenizer()
    traces = [
        questions.traced(equation, (equation.answer, 98, 99))
        for kind in KINDS
        for split in SPLITS
        for equation in equations(split, kind)  # type: ignore[arg-type]
    ]
    longest = max(len(tokenizer.encode(trace)) for trace in traces)
    assert 100 < longest < min(*limits, LONGEST_ANSWER)  # one more ends the turn
