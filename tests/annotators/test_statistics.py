"""What a lead reads about a review, counted from decisions that were really made."""

import json
from pathlib import Path

import pytest
from ledger_rows import claimed, decide, fill, proposal, result, segments, trace
from typer.testing import CliRunner

from annotators.ledger import Ledger, QueueFilter
from annotators.ledger.rows import RANK_RARE, RANK_REST
from annotators.ledger.statistics import ANY
from apps.cli.main import app

OTHER = trace(board="4+2", solution="4+2=6")
NEVER = 10**9  # no gold by chance


def accept(ledger: Ledger, count: int, reviewer: str = "alice") -> None:
    for _ in range(count):
        item = claimed(ledger, reviewer, gold_every=NEVER)
        decide(ledger, item, "accept", f"{reviewer} {item.item_id}", reviewer)


def test_an_empty_ledger_has_figures_too(ledger: Ledger) -> None:
    found = ledger.statistics()
    assert (found.num_items, found.people, found.agreement, found.strata, found.hours_left) == (0, (), (), (), None)
    assert [row.f1 for row in found.boundaries] == [None, None]


def test_pace_edits_and_hours_left_are_counted_from_what_stands(ledger: Ledger) -> None:
    fill(ledger, 6)
    accept(ledger, 2)
    decide(ledger, claimed(ledger, "bob"), "edit", "e", "bob", payload=OTHER)
    decide(ledger, claimed(ledger, "bob"), "reject", "r", "bob")
    decide(ledger, claimed(ledger, "bob"), "skip", "s", "bob")
    decide(ledger, claimed(ledger, "bob"), "accept", "a", "bob")
    ledger.undo(reviewer="bob", idem_key="u")
    found = ledger.statistics()
    people = {row.reviewer: row for row in found.people}
    assert (people["alice"].num_decisions, people["alice"].median_s) == (2, 1.2)
    bob = people["bob"]
    assert (bob.num_decisions, bob.num_skipped, bob.num_undone) == (2, 1, 1)
    assert (found.num_done, found.num_decisions_left) == (4, 2)
    assert found.hours_left == pytest.approx(2 * 1.2 / 3600)
    assert found.waiting == {"audit": 2}
    assert sum(count for _, count in found.hourly) == 5  # as many were made; one of them was taken back later
    rates = {row.field: (row.changed.num, row.changed.of) for row in found.edit_rates}
    assert rates[f"trace: {ANY}"] == rates["trace: board"] == rates["trace: solution"] == (1, 3)
    assert rates["trace: pick_text"] == rates["trace: cards"] == (0, 3)
    [speaker] = found.speakers
    assert (speaker.speaker.model, speaker.speaker.prompt_hash) == ("reader 1", "p" * 64)
    assert (speaker.edited.num, speaker.rejected.num, speaker.edited.of) == (1, 1, 4)


def test_agreement_counts_blind_votes_and_not_the_settlement(ledger: Ledger) -> None:
    fill(ledger, 4)
    ledger.assign([row.item_id for row in ledger.queue()], overlap=2)
    assert ledger.statistics().num_decisions_left == 8
    accept(ledger, 4)
    for number in range(4):
        item = claimed(ledger, "bob")
        decide(ledger, item, "edit" if number else "accept", f"b {number}", "bob", payload=OTHER if number else None)
    found = ledger.statistics()
    assert found.waiting == {"reviewers disagree": 3}
    assert found.num_decisions_left == 3
    board = next(row for row in found.agreement if row.field == "trace.board")
    assert board.num_items == 4
    before = board.alpha
    assert before == pytest.approx(1 - 7 * 6 / (2 * 5 * 3))  # 3 of 4 pairs apart; five said 4+1, three 4+2
    decide(ledger, claimed(ledger, "carol", track="adjudication"), "accept", "c", "carol", track="adjudication")
    again = ledger.statistics()
    assert next(row for row in again.agreement if row.field == "trace.board").alpha == before
    pair = next(row for row in again.pairs if row.field == "trace.board")
    assert (pair.first, pair.second, pair.num_items, pair.num_same) == ("alice", "bob", 4, 1)
    assert pair.kappa == pytest.approx(0.0)


def test_gold_measures_everybody_but_who_said_the_truth(ledger: Ledger) -> None:
    fill(ledger, 2)
    truth = decide(ledger, claimed(ledger, "lead"), "edit", "t", "lead", payload=OTHER)
    ledger.assign([truth.item_id], gold=True)
    decide(ledger, claimed(ledger, gold_every=1), "accept", "wrong")
    decide(ledger, claimed(ledger, "bob", gold_every=1), "edit", "right", "bob", payload=OTHER)
    gold = {row.reviewer: (row.gold.num, row.gold.of) for row in ledger.statistics().people}
    assert gold == {"alice": (0, 1), "bob": (1, 1), "lead": (0, 0)}


def test_a_reviewer_gets_own_figures_alone(ledger: Ledger) -> None:
    fill(ledger, 4)
    ledger.assign([row.item_id for row in ledger.queue()][:1], overlap=2)
    accept(ledger, 2)
    accept(ledger, 2, "bob")
    found = ledger.statistics(reviewer="alice")
    assert [row.reviewer for row in found.people] == ["alice"]
    assert (found.agreement, found.pairs, found.boundaries, found.strata) == ((), (), (), ())
    assert "bob" not in json.dumps(found.to_json())
    assert found.edit_rates[0].changed.of == 2


def test_audits_stand_for_a_stratum_as_far_as_they_go_without_a_gap(ledger: Ledger) -> None:
    fill(ledger, 6)
    ids = [row.item_id for row in ledger.queue()]
    decide(ledger, ledger.item(ids[4]), "reject", "picked out of order")
    [stratum] = ledger.statistics().strata
    assert (stratum.num_items, stratum.error.of, stratum.num_waiting) == (6, 0, 5)
    for number, item_id in enumerate(ids[:3]):
        payload = OTHER if number == 1 else None
        decide(ledger, ledger.item(item_id), "edit" if payload else "accept", f"k {number}", payload=payload)
    [stratum] = ledger.statistics().strata
    assert (stratum.error.num, stratum.error.of) == (1, 3)
    decide(ledger, ledger.item(ids[3]), "accept", "the gap closes")
    [stratum] = ledger.statistics().strata
    assert (stratum.error.num, stratum.error.of, stratum.num_waiting) == (2, 5, 1)


def test_what_a_verifier_doubts_is_no_audit(ledger: Ledger) -> None:
    run_id = ledger.start_run(kind="annotate", recipe={})
    verdicts = ("fail", "unknown", "pass")
    ledger.add_proposals(run_id, [(proposal(f"e{n}"), [result(verdict)]) for n, verdict in enumerate(verdicts)])
    accept(ledger, 3)
    assert [row.error.of for row in ledger.statistics().strata] == [1]


def test_rare_scenes_come_before_the_rest_and_after_every_doubt(ledger: Ledger) -> None:
    run_id = ledger.start_run(kind="annotate", recipe={})
    common = [(proposal(f"common {number}"), [result("pass")]) for number in range(30)]
    rare = [(proposal("rare", trace(board="4\u00d71", solution="4\u00d71=4")), [result("pass")])]
    ledger.add_proposals(run_id, [*common, *rare])
    ledger.add_proposals(run_id, [(proposal("doubt", trace(board="5+2")), [result("unknown")])])
    assert [row.episode_id for row in ledger.queue()][:2] == ["doubt", "rare"]
    assert [row.rank for row in ledger.queue()][2:] == [RANK_REST] * 30
    first = claimed(ledger)
    assert first.episode_id == "doubt"
    decide(ledger, first, "accept", "1")
    assert claimed(ledger).episode_id == "rare"
    row = next(row for row in ledger.queue() if row.episode_id == "rare")
    assert row.rank == RANK_RARE
    assert ledger.audit().problems == ()
    more = [(proposal(f"m{number}", trace(board=f"{number}\u00d71")), [result("pass")]) for number in range(9)]
    ledger.add_proposals(run_id, more)  # ten of 41: no longer rare
    assert {row.rank for row in ledger.queue(QueueFilter(stratum="sum with \u00d7"))} == {RANK_REST}
    assert ledger.audit().problems == ()
    ledger.rebuild()
    assert ledger.audit().problems == ()


def test_segments_have_boundary_agreement_and_edits_of_boundaries(ledger: Ledger) -> None:
    run_id = ledger.start_run(kind="annotate", recipe={})
    ledger.add_proposals(run_id, [(proposal("one", segments()), [result("pass")])])
    ledger.assign([row.item_id for row in ledger.queue()], overlap=2)
    accept(ledger, 1)
    parts = [part.model_dump(mode="json") for part in segments().segments]
    parts[0]["end_ns"] = parts[1]["start_ns"] = parts[1]["start_ns"] + 300_000_000
    moved = segments().model_copy(update={"segments": segments().model_validate({"segments": parts}).segments})
    decide(ledger, claimed(ledger, "bob"), "edit", "b", "bob", payload=moved)
    found = ledger.statistics()
    assert [row.f1 for row in found.boundaries] == [0.5, 1.0]
    rates = {row.field: row.changed.num for row in found.edit_rates}
    assert (rates["segments: boundaries"], rates["segments: labels"]) == (1, 0)


def test_figures_that_grow_with_the_ledger_are_those_of_a_first_count(ledger: Ledger, url: str) -> None:
    """After each kind of decision; what was read before is not read again."""
    fill(ledger, 8)
    ids = [row.item_id for row in ledger.queue()]

    def counted() -> None:
        with Ledger.open(url) as fresh:
            for reviewer in (None, "alice"):
                assert ledger.statistics(reviewer=reviewer) == fresh.statistics(reviewer=reviewer)
            only = QueueFilter(scope=fresh.scope([fresh.item(ids[0]).episode_id, fresh.item(ids[2]).episode_id]))
            assert ledger.statistics(only) == fresh.statistics(only)

    counted()
    accept(ledger, 2)
    counted()
    decide(ledger, claimed(ledger, "bob", gold_every=NEVER), "edit", "e", "bob", payload=OTHER)
    decide(ledger, claimed(ledger, "bob", gold_every=NEVER), "reject", "r", "bob")
    decide(ledger, claimed(ledger, "bob", gold_every=NEVER), "skip", "s", "bob")
    counted()
    ledger.undo(reviewer="alice", idem_key="u")
    counted()
    ledger.assign(ids[:2], overlap=2)  # decisions that were read long ago are votes now
    counted()
    decide(ledger, claimed(ledger, "bob", gold_every=NEVER), "edit", "b", "bob", payload=OTHER)
    counted()
    settled = claimed(ledger, "carol", track="adjudication")
    decide(ledger, settled, "accept", "adj", "carol", track="adjudication")
    counted()
    overruled = ledger.item(ids[2])
    decide(ledger, overruled, "reject", "over", "lead")
    ledger.assign(ids[2:3], gold=True)
    counted()
    decide(ledger, claimed(ledger, "carol", gold_every=1), "accept", "g", "carol")
    run_id = ledger.start_run(kind="annotate", recipe={})
    ledger.add_proposals(run_id, [(proposal("late", segments()), [result("pass")])])
    counted()


def test_a_backup_put_in_its_place_is_counted_anew(tmp_path: Path) -> None:
    """The same number of decisions, of another history."""
    ledgers = []
    for name in ("one", "other"):
        opened = Ledger.open(f"sqlite:///{tmp_path / name}.db")
        fill(opened, 3)
        accept(opened, 2, f"alice of {name}")
        ledgers.append(opened)
    one, other = ledgers
    assert [row.reviewer for row in one.statistics().people] == ["alice of one"]
    other.close()
    one._engine.dispose()  # as a lead does it: the page holds no connection while files are exchanged
    for path in tmp_path.glob("one.db*"):
        path.unlink()
    (tmp_path / "other.db").rename(tmp_path / "one.db")
    assert [row.reviewer for row in one.statistics().people] == ["alice of other"]
    one.close()


def test_the_command_line_prints_the_same_facts(url: str) -> None:
    with Ledger.open(url) as ledger:
        fill(ledger, 3)
        accept(ledger, 2)
        wanted = json.loads(json.dumps(ledger.statistics().to_json()))
    done = CliRunner().invoke(app, ["review", "stats", "--json", "--db", url])
    assert json.loads(done.output) == wanted
    words = CliRunner().invoke(app, ["review", "stats", "--db", url]).output
    assert "2 of 3 items done; 1 decisions left" in words
    assert "alice: 2 decisions, median 1.2 s" in words
    assert "audited error of trace, sum with +, perception reader 1, math-matching@1: 0.0% of 2" in words
