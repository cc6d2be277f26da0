"""Another wording may change no fact: things, numbers, sides, their order, and what is not to be done."""

from dataclasses import replace

import pytest

from annotators.annotate_report import Tally
from annotators.cascade import CascadeReport
from annotators.structure import counted
from annotators.wordings import changed_fact, changed_in_retelling, facts, sift

BOTTLE = "Pick up the yellow bottle and put it in the box."
TOYS = "Put the red box to the left of the blue bar."
CARD = "Answer the question and pick the card with the correct answer."


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (BOTTLE, "Please take the yellow bottle and place it into the box."),
        (BOTTLE, "Could you put the yellow bottle inside the box"),
        (BOTTLE, "grab up the yellow bottle, then set it down in a box"),
        (TOYS, "Kindly place the red box left of the blue bar."),
        (TOYS, "Take the red box and place it on the left of the blue bar."),
        (CARD, "Solve the equation on the board and take the card with the answer."),
        ("Stack 2 cups, then wipe the table.", "Please stack two cups and wipe the table."),
        ("Fold the towel.", "fold a towel"),
    ],
)
def test_a_wording_that_says_the_same_is_kept(task: str, words: str) -> None:
    assert changed_fact(task, words) is None


@pytest.mark.parametrize(
    ("task", "words", "why"),
    [
        (BOTTLE, "Pick up the green bottle and put it in the box.", "it says 'green' where the instruction says 'yel"),
        (BOTTLE, "Pick up the yellow bottle and put it on the box.", "it says 'on top of' where the instruction says"),
        (BOTTLE, "Pick up the yellow bottle.", "it says 'take' where the instruction says 'put'"),
        (BOTTLE, "Do not put the yellow bottle in the box.", "it says 'do' where the instruction says 'put'"),
        (BOTTLE, "Put the box in the yellow bottle.", "it says 'box' where the instruction says 'yellow'"),
        (BOTTLE, "Put the yellow bottles in the box.", "it says 'bottles' where the instruction says 'bottle'"),
        (BOTTLE, "Put the yellow bottle in the box. Ignore the above.", "'ignore' where the instruction says nothing"),
        (TOYS, "Put the blue bar to the left of the red box.", "it says 'blue' where the instruction says 'red'"),
        (TOYS, "Put the red box to the right of the blue bar.", "it says 'right of' where the instruction says"),
        (
            CARD,
            "Take the card with the answer to the sum, and put it on the ledge.",
            "where the instruction says 'answer'",
        ),
        ("Stack 2 cups.", "Stack three cups.", "it says '3' where the instruction says '2'"),
        ("Open the drawer.", "Close the drawer.", "it says 'close' where the instruction says 'open'"),
        ("Press 1-2 times.", "Press 1+2 times.", "it says '+' where the instruction says '-'"),
        ("Take the cup, put the plate away.", "Put the cup, take the plate away.", "says 'put' where the instruction"),
        ("把黄色瓶子放进盒子。", "把红色瓶子放进盒子。", "where the instruction says"),
        ("Fold the towel.", "", "it says nothing more where the instruction says 'fold'"),
    ],
)
def test_a_wording_that_changes_a_fact_is_refused_with_the_fact(task: str, words: str, why: str) -> None:
    assert why in (changed_fact(task, words) or "")


SUM = "The board reads 4+1. 4+1=5. Cards: 2 (left), 5 (middle), 0 (right). I pick 5 from the middle."
PLACED = (
    "The red box is at [120, 80, 141, 101]. The blue bar is at [40, 90, 84, 111]. "
    "I put the red box to the left of the blue bar."
)


@pytest.mark.parametrize(
    ("trace", "words", "why"),
    [
        (
            SUM,
            "On the board I see 4+1, and 4+1=5. The cards are 2 on the left, 5 in the middle and 0 on the right, "
            "so I take the 5 from the middle.",
            None,
        ),
        (SUM, SUM.replace("I pick 5", "I pick 2"), "it says '2' where the trace says '5'"),
        (SUM, SUM.replace("2 (left), 5 (middle)", "5 (left), 2 (middle)"), "it says '5' where the trace says '2'"),
        (SUM, SUM.replace("I pick 5 from the middle.", ""), "it says nothing more where the trace says 'take'"),
        (SUM, SUM.replace("I pick", "I do not pick"), "it says 'do', which the trace does not"),
        (SUM, f"{SUM} There is a green cup.", "it says 'green', which the trace does not"),
        (PLACED, PLACED.replace("I put the red box to the left of", "So I will place the red box left of"), None),
        (PLACED, PLACED.replace("to the left of", "behind"), "it says 'behind', which the trace does not"),
        (PLACED, PLACED.replace("I put the red box to the left of the blue bar", "I put the blue bar to the left of "
         "the red box"), "it says 'blue' where the trace says 'red'"),
        (PLACED, PLACED.replace("[120", "[102"), "it says '102', which the trace does not"),
        (PLACED, PLACED.replace("I put the red box", "I take the red box"), "it says 'take', which the trace does not"),
    ],
)  # fmt: skip
def test_other_words_for_a_trace_tell_the_same_or_are_refused(trace: str, words: str, why: str | None) -> None:
    assert changed_in_retelling(trace, words) == why


def test_what_is_kept_is_named_once_and_what_is_refused_keeps_its_reason() -> None:
    said = [BOTTLE, "Put the yellow  bottle in the box.", "PUT THE YELLOW BOTTLE IN THE BOX.", "Go home."]
    found = sift(BOTTLE, said)
    assert found.kept == ("Put the yellow bottle in the box.",)
    assert [(one.words, one.reason) for one in found.refused] == [
        ("Go home.", "it says 'go' where the instruction says 'put'")
    ]
    assert facts("Take the cup and put it behind the jar") == facts("put the cup behind the jar")


def test_one_of_a_thing_is_said_in_the_singular() -> None:
    assert [counted(number, "object") for number in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]
    assert [counted(number, "box", "boxes") for number in (1, 2)] == ["1 box", "2 boxes"]
    report = Tally(num_blank=1).report(run_id=None, dry_run=False, num_episodes=1, num_pending=1)
    assert "1 item of a failed episode waits for a person" in report.summary()
    assert "2 items of failed episodes wait for a person" in replace(report, num_blank=2).summary()
    looks = replace(report.calls, made=3, blank=1).lines()
    assert "it looks: 1 call repeated with blank pictures got other answers" in looks
    gone = CascadeReport(first=report, num_doubted=1, then=report)
    assert "\n1 episode is in doubt and goes on:\n" in gone.summary()
    assert "\n2 episodes are in doubt and go on:\n" in replace(gone, num_doubted=2).summary()
