"""From a converted dataset of the simulated tabletop to judged proposals in the ledger, through each backend."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oracle import NUM_EPISODES, SIM, Oracle, equation, numbers
from typer.testing import CliRunner
from vlm_server import Reply, said, serving

from annotators.annotate import annotate
from annotators.annotate_report import AnnotateReport
from annotators.calls import CallStore
from annotators.families import load_family
from annotators.ledger import Ledger
from annotators.ledger.rows import RANK_DISAGREEMENT
from annotators.observe import Failed, Observation, Observer, model_crops
from annotators.papers import find_papers, lay_out
from annotators.vlm.backends import Endpoint, Perception, Replay
from annotators.vlm.costs import Prices
from annotators.vlm.protocol import Speaker
from annotators.vlm.replay import record
from apps.cli.main import app
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.rig_files import RIG_FOLDER
from dataengine.workspace import Workspace
from schemas.annotations import ReasoningTrace
from schemas.errors import BackendError, FamilyError, RefError
from schemas.refs import Ref
from schemas.scenes import SceneNotes


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as opened:
        yield opened


def endpoint(url: str) -> Endpoint:
    return Endpoint(urls=(url,), model="oracle", longest_wait_s=0.01, max_attempts=2)


def test_perception_reads_what_the_simulator_wrote_and_every_verifier_passes(
    home: Path, ledger: Ledger, truth: dict[str, dict[str, Any]]
) -> None:
    place = Workspace.at(home)
    report = annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    assert (report.num_proposed, report.num_new_proposals, report.failures) == (NUM_EPISODES, 3 * NUM_EPISODES, ())
    passed = {name: {"pass": NUM_EPISODES} for name in load_family("math-matching").file.verifiers}
    assert report.verifiers == {**passed, "stamps": {"pass": 3 * NUM_EPISODES}}  # of all three fields
    for stored in ledger.proposals(field="trace"):
        trace, row = stored.proposal.payload, truth[stored.proposal.episode_id]
        assert isinstance(trace, ReasoningTrace)
        assert trace.board == equation(row)
        assert [card.text for card in trace.cards] == [str(number) for number in numbers(row)]
        assert trace.pick_position == row["chosen_position"]
        assert stored.proposal.provenance.backend == "perception"
        assert {"board", "board_again", "card_left", "card_middle", "card_right", "after"} <= set(
            stored.proposal.images
        )
        board = stored.proposal.images["board"]
        assert isinstance(board, dict)
        assert board["camera"] == "cam_high"
    for stored in ledger.proposals(field="scene"):
        notes, row = stored.proposal.payload, truth[stored.proposal.episode_id]
        assert isinstance(notes, SceneNotes)
        assert [one.noun for one in notes.objects] == ["board", "left card", "middle card", "right card"]
        assert (notes.outcome, notes.worded_by, len(notes.paraphrases)) == ("success", "templates", 4)
        said = {one.question: one.answer for one in notes.questions}
        assert said["What is written on the board?"] == f"{equation(row)}."
        assert said["Which card has the answer?"] == f"The {row['chosen_position']} card."
        assert [one.subject for one in notes.relations] == [f"{row['chosen_position']} card"]


def test_running_again_proposes_only_what_is_missing(home: Path, ledger: Ledger) -> None:
    place = Workspace.at(home)
    first, *_ = EpisodeSet.open(place, SIM).ids()
    one = annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0, episode_ids=[first])
    rest = annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    none = annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    assert [(run.num_proposed, run.num_skipped) for run in (one, rest, none)] == [
        (1, 0),
        (NUM_EPISODES - 1, 1),
        (0, NUM_EPISODES),
    ]
    assert none.run_id is None


@pytest.mark.slow
def test_another_rig_is_annotated_again_and_what_a_person_said_becomes_a_conflict(
    home: Path, ledger: Ledger, tmp_path: Path
) -> None:
    place = Workspace.at(home)
    annotate(episodes=SIM, workspace=place, family="generic", backend=Perception(), ledger=ledger, workers=0)
    [item_id, *_] = [row.item_id for row in ledger.queue() if row.field == "segments"]
    head = ledger.item(item_id).head
    ledger.decide(
        item_id=item_id,
        base_proposal_id=head.proposal_id,
        action="accept",
        reviewer="alice",
        payload=None,
        idem_key="one",
        lead_time_ms=1,
    )
    mended = tmp_path / "mended.yaml"
    words = (RIG_FOLDER / "aloha_sim.yaml").read_text()
    mended.write_text(words.replace("name: left gripper", "name: left claw").replace("right gripper", "right claw"))
    for ref, rig in (("sim@again", "aloha_sim"), ("sim@mended", str(mended))):
        convert(source_path=home / "raw", to=Ref.parse(ref), workspace=place, rig=rig, workers=1)
    same = annotate(
        episodes=Ref("sim", "again"), workspace=place, family="generic", backend=Perception(), ledger=ledger, workers=0
    )
    assert (same.num_skipped, same.run_id) == (NUM_EPISODES, None)
    assert not ledger.item(item_id).conflict
    other = annotate(
        episodes=Ref("sim", "mended"), workspace=place, family="generic", backend=Perception(), ledger=ledger, workers=0
    )
    assert (other.num_proposed, other.num_new_proposals) == (NUM_EPISODES, NUM_EPISODES)
    item = ledger.item(item_id)
    assert item.conflict
    assert item.head.proposal.provenance.inputs_hash != head.proposal.provenance.inputs_hash


@pytest.mark.slow
def test_other_pictures_are_looked_at_again(home: Path, ledger: Ledger) -> None:
    place = Workspace.at(home)
    annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    small = Ref("sim", "small")
    convert(source_path=home / "raw", to=small, workspace=place, rig="aloha_sim", workers=1, frame_size=(640, 480))
    other = annotate(episodes=small, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    assert other.num_new_proposals == 2 * NUM_EPISODES  # traces and scenes; the numbers are the same


def test_where_no_board_is_seen_no_crop_of_it_is_made(home: Path) -> None:
    opened = EpisodeSet.open(Workspace.at(home), SIM)
    frame = opened.frame(opened.ids()[0], "cam_high", 0).copy()
    layout = lay_out(find_papers(frame))
    assert layout.board is not None
    assert set(model_crops(frame, frame, layout, layout.board)) == {"cards", "board_first", "board_second"}
    x0, y0, x1, y1 = layout.board.box(frame.shape, 0.1)
    frame[y0:y1, x0:x1] = 40
    hidden = lay_out(find_papers(frame))
    assert hidden.board is None
    assert set(model_crops(frame, frame, hidden, None)) == {"cards"}


def test_ray_workers_say_the_same_as_one_process(home: Path, ledger: Ledger, tmp_path: Path) -> None:
    place = Workspace.at(home)
    annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    done = []
    with Ledger.open(f"sqlite:///{tmp_path}/other.db") as other:
        annotate(
            episodes=SIM,
            workspace=place,
            backend=Perception(),
            ledger=other,
            workers=2,
            on_progress=lambda now, total: done.append((now, total)),
        )
        ids = {stored.proposal_id for stored in other.proposals()}
    assert ids == {stored.proposal_id for stored in ledger.proposals()}
    assert done[-1] == (NUM_EPISODES, NUM_EPISODES)


def test_the_generic_family_cuts_segments_without_looking_at_pixels(home: Path, ledger: Ledger) -> None:
    report = annotate(
        episodes=SIM, workspace=Workspace.at(home), family="generic", backend=Perception(), ledger=ledger, workers=0
    )
    assert report.fields == {"segments": NUM_EPISODES}
    names = ("gripper_events", "coverage", "vocabulary", "moves", "stamps", "held_object")
    assert report.verifiers == {name: {"pass": NUM_EPISODES} for name in names}


def test_an_endpoint_is_asked_three_times_per_episode_and_never_again(
    home: Path, ledger: Ledger, tmp_path: Path, truth: dict[str, dict[str, Any]]
) -> None:
    place = Workspace.at(home)
    with serving(Oracle(home, truth)) as server:
        backend = endpoint(server.url)
        planned = annotate(
            episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=0, blank_share=0.0, dry_run=True
        )
        assert planned.planned is not None
        assert (planned.planned.calls, planned.run_id, len(server.bodies)) == (3 * NUM_EPISODES, None, 0)
        report = annotate(episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=0, blank_share=0.0)
        assert (report.calls.made, report.calls.cached, report.answers_invalid) == (3 * NUM_EPISODES, 0, 0)
        assert report.verdicts["trace"] == {"pass": NUM_EPISODES}
        with Ledger.open(f"sqlite:///{tmp_path}/other.db") as other:
            again = annotate(episodes=SIM, workspace=place, backend=backend, ledger=other, workers=0, blank_share=0.0)
        assert (again.calls.made, again.calls.cached) == (0, 3 * NUM_EPISODES)
        assert len(server.bodies) == 3 * NUM_EPISODES
    (stored, *_) = ledger.proposals(field="trace")
    provenance = stored.proposal.provenance
    assert (provenance.backend, provenance.model, len(provenance.call_keys)) == ("endpoint", "oracle", 3)
    assert provenance.prompt_hash is not None
    with CallStore.open(place.calls_url) as calls:
        assert all(calls.get(key) is not None for key in provenance.call_keys)


def test_a_dry_run_says_what_a_run_would_cost_and_asks_nothing(home: Path, truth: dict[str, dict[str, Any]]) -> None:
    with serving(Oracle(home, truth)) as server:
        words = ["annotate", "sim@1", "--backend", "endpoint", "--url", server.url, "--model", "planned", "--dry-run"]
        words += ["--price-in", "1", "--price-out", "1000", "--workspace", str(home)]
        plan = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["planned"]
        assert "per hour of video" in CliRunner().invoke(app, words).stdout
    # One of them is the call with blank pictures.
    assert (plan["calls"], plan["output_tokens"], plan["num_looked_at"]) == (7, 7 * 256, 2)
    assert plan["cost"] == pytest.approx((plan["input_tokens"] + 1000 * plan["output_tokens"]) / 1e6)
    assert server.bodies == []


def test_a_budget_ends_a_run_and_another_run_goes_on_with_what_was_answered(
    home: Path, ledger: Ledger, truth: dict[str, dict[str, Any]]
) -> None:
    def run(budget: float | None) -> AnnotateReport:
        prices = Prices(input_per_million=0.0, output_per_million=1000.0)  # a call is 0.256 at most, and costs 0.007
        backend = Endpoint(urls=(server.url,), model="paid", in_flight=1, prices=prices, budget=budget)
        return annotate(
            episodes=SIM, workspace=Workspace.at(home), backend=backend, ledger=ledger, workers=0, blank_share=0.0
        )

    with serving(Oracle(home, truth)) as server:
        with pytest.raises(BackendError, match="Not one call was made"):
            run(0.2)
        assert server.bodies == []
        first = run(0.265)
        assert (first.num_proposed, first.failures, first.num_left) == (0, (), NUM_EPISODES)
        assert first.calls.cost == pytest.approx(2 * 0.007)
        assert "stopped: the budget of 0.265 is used up" in first.summary()
        rest = run(None)
    assert (rest.num_proposed, rest.calls.made, rest.calls.cached) == (NUM_EPISODES, 4, 2)
    assert len(server.bodies) == 6


def test_one_named_episode_is_asked_about_and_the_words_about_others_stay(
    home: Path, ledger: Ledger, truth: dict[str, dict[str, Any]]
) -> None:
    place = Workspace.at(home)
    first, other = EpisodeSet.open(place, SIM).ids()
    annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, workers=0)
    before = [row for row in ledger.proposals() if row.proposal.episode_id == other]
    with serving(Oracle(home, truth)) as server:
        backend = Endpoint(urls=(server.url,), model="one episode's")
        report = annotate(
            episodes=SIM,
            workspace=place,
            backend=backend,
            ledger=ledger,
            workers=0,
            episode_ids=[first],
            blank_share=0.0,
        )
    assert (report.num_proposed, len(server.bodies)) == (1, 3)
    assert [row for row in ledger.proposals() if row.proposal.episode_id == other] == before


def test_a_model_that_misreads_once_is_caught_by_the_second_reading(
    home: Path, ledger: Ledger, tmp_path: Path, truth: dict[str, dict[str, Any]]
) -> None:
    with serving(Oracle(home, truth, wrong="board_second")) as server:
        backend = Endpoint(urls=(server.url,), model="misreader")
        report = annotate(episodes=SIM, workspace=Workspace.at(home), backend=backend, ledger=ledger, workers=0)
    assert report.verifiers["double_reading"] == {"fail": NUM_EPISODES}


def test_prose_from_a_model_leaves_the_trace_unread_and_unknown(home: Path, ledger: Ledger) -> None:
    with serving(lambda body, number: said("I see a lovely board.")) as server:
        backend = Endpoint(urls=(server.url,), model="poet")
        report = annotate(episodes=SIM, workspace=Workspace.at(home), backend=backend, ledger=ledger, workers=0)
    assert report.answers_invalid == 3 * NUM_EPISODES
    assert report.verdicts["trace"] == {"unknown": NUM_EPISODES}
    (stored, *_) = ledger.proposals(field="trace")
    assert stored.proposal.text.startswith("The board can not be read.")


def test_a_server_that_is_down_ends_in_one_sentence_and_the_next_run_asks_again(
    home: Path, ledger: Ledger, truth: dict[str, dict[str, Any]]
) -> None:
    place = Workspace.at(home)
    down = [True]
    oracle = Oracle(home, truth)
    with serving(lambda body, n: Reply({"error": "x"}, status=503) if down[0] else oracle(body, n)) as server:
        backend = Endpoint(urls=(server.url,), model="sleeper", longest_wait_s=0.01, max_attempts=2)
        with pytest.raises(BackendError, match="no call was answered"):
            annotate(episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=0)
        assert ledger.proposals(field="trace") == []
        down[0] = False
        report = annotate(episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=0)
    assert report.num_proposed == NUM_EPISODES
    assert len(ledger.proposals(field="trace")) == NUM_EPISODES


def test_a_recording_of_some_answers_proposes_those_and_names_the_rest(
    home: Path, ledger: Ledger, tmp_path: Path, truth: dict[str, dict[str, Any]]
) -> None:
    from annotators.vlm.endpoint import EndpointClient
    from annotators.vlm.questions import questions

    place = Workspace.at(home)
    opened = EpisodeSet.open(place, SIM)
    seen = Observer(opened, "cam_high", wants_crops=True).observe(opened.ids()[0])
    assert isinstance(seen, Observation)
    speaker = Speaker(model="recorded")
    asked = list(questions(load_family("math-matching"), speaker, seen.crops).values())
    with serving(Oracle(home, truth)) as server:
        lots = EndpointClient(Endpoint(urls=(server.url,), model="recorded")).ask(asked)
        answers = [pair for lot in lots for pair in lot]
    record(tmp_path / "answers.jsonl", speaker, answers)
    backend = Replay(path=tmp_path / "answers.jsonl")
    report = annotate(episodes=SIM, workspace=place, backend=backend, ledger=ledger, workers=0)
    assert report.num_proposed == 1
    assert [row.episode for row in report.failures] == [opened.ids()[1]]
    assert "not in the recording" in report.failures[0].reason
    assert "failed:" in report.summary()
    # what nobody could say is left to people, and is no second opinion once a model does say it
    assert "2 items of failed episodes wait for a person" in report.summary()
    assert "1 item of a failed episode waits for a person" in replace(report, num_blank=1).summary()
    blank = next(row for row in ledger.queue() if (row.episode_id, row.field) == (opened.ids()[1], "trace"))
    with serving(Oracle(home, truth)) as server:
        later = Endpoint(urls=(server.url,), model="recorded")
        again = annotate(episodes=SIM, workspace=place, backend=later, ledger=ledger, workers=0)
    assert (again.num_proposed, again.num_blank) == (NUM_EPISODES, 0)
    item = next(row for row in ledger.queue() if row.item_id == blank.item_id)
    assert item.rank > RANK_DISAGREEMENT
    assert ledger.audit().problems == ()


def test_a_bad_episode_is_a_row_and_unknown_names_are_refused(home: Path, ledger: Ledger) -> None:
    place = Workspace.at(home)
    seen = Observer(EpisodeSet.open(place, SIM), "cam_high", wants_crops=False).observe("episode_99-0123456789ab")
    assert isinstance(seen, Failed)
    assert "episode_99" in seen.reason
    with pytest.raises(RefError, match="no episode 'nope'"):
        annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, episode_ids=["nope"])
    with pytest.raises(FamilyError, match="Did you mean"):
        annotate(episodes=SIM, workspace=place, backend=Perception(), ledger=ledger, family="math-maching")
