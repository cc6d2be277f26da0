"""What a rollout counts: success with its interval, and who is to blame for a failure."""

from dataclasses import replace

import pytest

from apps.robot.scoring import ReasoningScore, score_reasoning
from apps.rollout.report import RolloutReport, TrialRow
from apps.sim.game import POSITIONS, Scene, draw_scene
from schemas.intervals import wilson_interval


@pytest.fixture
def scene() -> Scene:
    return draw_scene(split="in-domain", seed=3, index=0)


def _text(scene: Scene, *, left: int = 0, answer: int = 0, position: str | None = None) -> str:
    """The trace of a scene, with deliberate slips added to the operand and the answer."""
    equation = scene.equation
    stated = f"{equation.left + left}{equation.operator}{equation.right}"
    place = position or POSITIONS[scene.correct_slot]
    result = equation.answer + answer
    return f"The board reads {stated}. {stated}={result}. Cards: 1 (left). I pick {result} from the {place}."


def test_a_right_trace_is_right_in_every_part(scene: Scene) -> None:
    assert score_reasoning(_text(scene), scene) == ReasoningScore(read_right=True, math_right=True, plan_right=True)


def test_a_result_may_be_counted_out(scene: Scene) -> None:
    text = (
        "The board reads 4+3. 4+3: 4,3 5,2 6,1 7,0. Cards: 1 (left), 7 (middle), 5 (right). I pick 7 from the middle."
    )
    assert score_reasoning(text, scene).math_right is True
    assert score_reasoning(text.replace("7,0.", "8,0."), scene).math_right is False


def test_misreading_miscounting_and_mispicking_are_told_apart(scene: Scene) -> None:
    misread = score_reasoning(_text(scene, left=1), scene)
    assert misread.read_right is False
    miscounted = score_reasoning(_text(scene, answer=1), scene)
    assert (miscounted.read_right, miscounted.math_right, miscounted.plan_right) == (True, False, False)
    elsewhere = POSITIONS[(scene.correct_slot + 1) % 3]
    assert score_reasoning(_text(scene, position=elsewhere), scene).plan_right is False


def test_a_text_that_claims_nothing_scores_nothing(scene: Scene) -> None:
    for text in ("", "blah = = pick", "Replays episode_0 from step 0 of 229."):
        assert score_reasoning(text, scene) == ReasoningScore(read_right=None, math_right=None, plan_right=None)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # From the closed form, worked by hand: z = 1.959964.
    [(20, 20, 0.8389, 1.0), (0, 20, 0.0, 0.1611), (10, 20, 0.2993, 0.7007), (19, 20, 0.7639, 0.9911), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


ROW = TrialRow(
    policy="p",
    trial=0,
    split="open-world",
    seed=1,
    index=0,
    episode_id="",
    end="time limit",
    success=False,
    equation="4+1",
    answer=5,
    picked_number=None,
    picked_position=None,
    picked_right=False,
    placed=False,
    on_ledge=False,
    read_right=True,
    math_right=None,
    plan_right=False,
    num_steps=500,
    num_chunks=20,
    gate_rejects=2,
    wall_s=3.0,
    infer_ms=1.0,
    round_trip_ms=2.0,
    reasoning=("", "The board\nreads 4+1.", "later"),
    refusals=("a", "b"),
    frames=(),
)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "no grasp"),
        ({"picked_number": 7}, "wrong card"),
        ({"picked_number": 5, "picked_right": True}, "not let go"),
        ({"picked_number": 5, "picked_right": True, "placed": True}, "not on the ledge"),
        ({"end": "aborted by gate", "picked_number": 7}, "aborted by gate"),
        ({"end": "success", "success": True}, ""),
    ],
)
def test_a_failure_has_one_word(changes: dict[str, object], word: str) -> None:
    assert replace(ROW, **changes).failure == word


def test_a_summary_counts_by_policy_and_split_and_ignores_time(tmp_path: "object") -> None:
    won = replace(ROW, success=True, end="success", split="in-domain", picked_number=5, picked_right=True)
    report = RolloutReport(path=tmp_path, rows=(ROW, replace(ROW, trial=1, math_right=True), won))
    lost, first = report.summaries()
    assert (lost.trials, lost.successes, lost.read_right, lost.math_right) == (2, 0, (2, 2), (1, 1))
    assert (lost.failures, lost.gate_rejects) == ({"no grasp": 2}, 4)
    assert first.line() == ("p in-domain: 1/1 (95 % interval 21%-100%); 1 grasped, 1 the right card; 2 chunks rejected")
    slower = RolloutReport(path=tmp_path, rows=tuple(replace(row, wall_s=9.0) for row in report.rows))
    assert slower.fingerprint() == report.fingerprint()
    assert ROW.reasoning_line == "The board reads 4+1."
    report.write(tmp_path)
    assert RolloutReport.read(tmp_path).rows == report.rows
