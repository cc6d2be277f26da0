"""The lead's page: who sees whose figures, who may accept a batch, and that no word on it is run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from free_ports import serve_somewhere
from ledger_rows import proposal, result
from test_review_access import EPISODES, PASSWORD, Served, answered, endpoints

from annotators.ledger import Ledger
from apps.review.app import build_app
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace

EVIL = '<img src=x onerror="window.evil=1">${window.evil=2}{{evil}}'
NUM_ITEMS = 24
FIGURES = ("on_dashboard", "on_count_again", "on_minute")


@pytest.fixture(scope="module")
def served(tiny: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Items of one episode by a model with a hostile name; bob and a hostile name accepted half of them each."""
    url = f"sqlite:///{tmp_path_factory.mktemp('dashboard') / 'ledger.db'}"
    with Ledger.open(url) as ledger:
        [episode_id] = EpisodeSet.open(tiny, EPISODES).ids()
        run_id = ledger.start_run(kind="annotate", recipe={})
        rows = [proposal(episode_id, model=EVIL).model_copy(update={"stamp_ns": number}) for number in range(NUM_ITEMS)]
        ledger.add_proposals(run_id, [(row, [result("pass")]) for row in rows])
        for name, role in (("bob", "reviewer"), ("ada", "adjudicator"), ("lea", "lead"), ("vic", "viewer")):
            ledger.accounts.add(name, role, PASSWORD)
        for number in range(14):
            name = ("bob", EVIL)[number % 2]
            item = ledger.claim(reviewer=name)
            assert item is not None
            wish = {"item_id": item.item_id, "base_proposal_id": item.head.proposal_id, "action": "accept"}
            ledger.decide(**wish, reviewer=name, payload=None, idem_key=str(number), lead_time_ms=2000)
        app = build_app(workspace=tiny, episodes=EPISODES, ledger_url=url, batch_bound=0.25)
        port = serve_somewhere(app)
        yield Served(app=app, url=f"http://127.0.0.1:{port}", ledger=ledger, video=Path())
        app.close()


def ask(served: Served, name: str, handler: str, event: Any = None) -> dict[str, Any]:
    """What a handler of the dashboard answers to a plain POST by somebody who logged in."""
    with served.session(name) as client:
        number = endpoints(served)[handler]
        body = {"data": ["somebody else"], "fn_index": number, "session_hash": "s", "event_data": event}
        return answered(client.post("/gradio_api/run/predict", json=body))


@pytest.mark.parametrize("handler", FIGURES)
def test_a_reviewer_sees_own_figures_and_an_adjudicator_everybodys(served: Served, handler: str) -> None:
    [own] = ask(served, "bob", handler)["output"]["data"]
    assert ">bob<" in own
    assert "onerror=" not in own.replace("&quot;", '"').split("Edits and rejects")[0]  # the other reviewer's name
    assert "Audited error" not in own
    assert "Agreement" not in own
    for name in ("ada", "lea"):
        [all_of_it] = ask(served, name, handler)["output"]["data"]
        assert ">bob<" in all_of_it
        assert "Audited error" in all_of_it
        assert ("<button" in all_of_it) == (name == "lea")
    [nobody] = ask(served, "vic", handler)["output"]["data"]
    assert "bob" not in nobody


def test_no_word_from_data_is_markup(served: Served) -> None:
    [page] = ask(served, "lea", "on_dashboard")["output"]["data"]
    assert "&lt;img src=x" in page
    for sign in ("<img", "${", "{{", 'onerror="'):
        assert sign not in page


STRATUM = ["math-matching@1", "trace", "sum with +", f"perception {EVIL}"]


@pytest.mark.parametrize("name", ["vic", "bob", "ada"])
def test_only_a_lead_accepts_a_batch(served: Served, name: str) -> None:
    before = len(served.ledger.decisions())
    family, field, stratum, annotator = STRATUM
    answer = ask(served, name, "on_batch", {"stratum": json.dumps([family, field, annotator, stratum])})
    assert not answer["success"]
    assert "it takes lead" in answer["output"]["error"]
    assert len(served.ledger.decisions()) == before


@pytest.mark.parametrize(
    "event",
    [None, {}, {"stratum": "x"}, {"stratum": "[1]"}, {"stratum": '["a", "b", "c", "d"]'}, {"stratum": "[" * 999}],
)
def test_a_click_that_names_no_stratum_accepts_nothing(served: Served, event: Any) -> None:
    before = len(served.ledger.decisions())
    answer = ask(served, "lea", "on_batch", event)
    assert len(served.ledger.decisions()) == before
    assert answer["success"] or "error" in answer["output"]


def test_a_lead_accepts_what_waits_in_the_own_name(served: Served) -> None:
    family, field, stratum, annotator = STRATUM
    answer = ask(served, "lea", "on_batch", {"stratum": json.dumps([family, field, annotator, stratum])})
    assert answer["success"], answer
    made = served.ledger.decisions()[14:]
    assert len(made) == NUM_ITEMS - 14
    assert {(row.reviewer, row.basis) for row in made} == {("lea", "batch")}
    assert served.ledger.audit().problems == ()


def test_the_dashboard_is_served_to_who_is_logged_in(served: Served) -> None:
    with served.client() as client:
        assert client.get("/dashboard").headers["location"] == "/login"
    with served.session("bob") as client:
        assert client.get("/dashboard").status_code == 200
