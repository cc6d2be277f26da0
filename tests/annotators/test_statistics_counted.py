"""Every figure of the dashboard, over random ledgers, against the same figure counted slowly from raw rows."""

import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ledger_rows import proposal, result, segments, trace
from plain_figures import Book

from annotators.ledger import Ledger, QueueFilter, ReviewItem
from annotators.ledger.statistics import Statistics
from schemas.annotations import BoxedIn, ReasoningTrace, SegmentList
from schemas.errors import LedgerError

PEOPLE = ("alice", "bob", "carol", "dan")
MODELS = ("reader 1", "reader 2")
NUM_EPISODES = 22
RUNS = ((3, 25), (6, 60), (7, 90), (11, 60))  # seed, steps: from a queue that is hardly begun to one nearly empty
VERDICTS = ("pass",) * 6 + ("unknown", "fail")


class Crowd:
    """People and programs who work on one ledger, as a seed has it."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.ledger, self.chance = ledger, random.Random(seed)
        self.did: Counter[str] = Counter()
        self.touched: list[str] = []
        self.run_id = ledger.start_run(kind="annotate", recipe={})
        self.names = [f"episode {number}" for number in range(NUM_EPISODES)]
        for name in self.names:
            self.propose(name, "segments" if self.chance.random() < 0.35 else "trace", MODELS[0])
        for name in self.names[::4]:
            self.propose(name, "trace", MODELS[1])  # a second reading, or an item of its own
        self.ids = [row.item_id for row in ledger.queue()]

    def words(self, field: str) -> ReasoningTrace | SegmentList:
        """One of a few things to say, so that people often say the same."""
        if field == "segments":
            moved = segments(self.chance.choice((4, 4, 5, 8)) * 1_000_000_000)
            parts = [part.model_dump(mode="json") for part in moved.segments]
            by_ns = self.chance.choice((0, 0, 200, 300, 700)) * 1_000_000
            parts[0]["end_ns"] = parts[1]["start_ns"] = parts[1]["start_ns"] + by_ns
            parts[1]["label"] = self.chance.choice(("carry", "carry", "move"))
            return SegmentList.model_validate({"segments": parts[: self.chance.choice((2, 3, 3, 3))]})
        board = self.chance.choice(("4+1", "4+1", "4+2", "4-1"))
        return trace(board=board, solution=f"{board}=5", pick=self.chance.choice("557"))

    def propose(self, name: str, field: str, model: str) -> None:
        found = [result(self.chance.choice(VERDICTS))]
        payload = self.words(field)
        if isinstance(payload, ReasoningTrace) and name == self.names[0]:
            payload = payload.model_copy(update={"board": "4\u00d71"})  # the only one of its kind
        self.ledger.add_proposals(self.run_id, [(proposal(name, payload, model), found)])

    def edited(self, item: ReviewItem) -> ReasoningTrace | SegmentList:
        """Other words, or the same ones with the boxes seen to, or both."""
        said = self.words(item.field)
        if not isinstance(said, ReasoningTrace) or self.chance.random() < 0.5:
            return said
        if self.chance.random() < 0.7:
            said = item.head.proposal.payload
        box = (1, 2, 30, self.chance.choice((40, 41)))
        return said.model_copy(update={"board_box_xyxy": box, "boxed_in": BoxedIn(camera="cam_high", frame=0)})

    def decide(self, item: ReviewItem, who: str, track: str = "review") -> None:
        action = self.chance.choice(("accept",) * 5 + ("edit",) * 4 + ("reject", "skip"))
        self.ledger.decide(
            item_id=item.item_id,
            base_proposal_id=item.head.proposal_id,
            action=action,
            reviewer=who,
            payload=self.edited(item) if action == "edit" else None,
            idem_key=f"{who} {sum(self.did.values())}",
            lead_time_ms=self.chance.randrange(500, 900_000),
            track=track,
        )
        self.touched.append(item.item_id)

    def step(self) -> None:
        """One thing that happens; what the ledger refuses is no fault, and is counted."""
        who, item_id = self.chance.choice(PEOPLE), self.chance.choice(self.ids)
        what = self.chance.choice(
            ("claim",) * 9 + ("settle", "open", "undo", "share", "gold", "gold", "propose", "batch")
        )
        try:
            if what in ("claim", "settle"):
                track = "review" if what == "claim" else "adjudication"
                if item := self.ledger.claim(reviewer=who, gold_every=3, track=track):
                    self.decide(item, who, track)
            elif what == "open":
                self.decide(self.ledger.item(item_id), who)
            elif what == "undo":
                self.ledger.undo(reviewer=who, idem_key=f"undo {sum(self.did.values())}")
            elif what == "share":
                some = self.chance.sample(self.ids, 4)
                self.ledger.assign(some, overlap=self.chance.choice((1, 2, 2, 3)))
            elif what == "gold":
                self.ledger.assign([self.chance.choice(self.touched or self.ids)], gold=True)
            elif what == "propose":
                item = self.ledger.item(item_id)
                self.propose(item.episode_id, item.field, self.chance.choice(MODELS))
            else:
                self.ledger.accept_batch(reviewer=who, wanted=QueueFilter(stratum="sum with +"), bound=1.0)
        except LedgerError:
            what = f"{what}, refused"
        self.did[what] += 1


def spread_over_days(path: Path, seed: int) -> None:
    """As if the decisions had been made in some hours of three days: a ledger's own clock can not be set."""
    chance = random.Random(seed)
    with sqlite3.connect(path) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for (seq,) in connection.execute("SELECT seq FROM decisions").fetchall():
            created = f"2026-01-0{chance.randint(1, 3)}T{chance.randint(8, 11):02}:30:00.000+00:00"
            connection.execute("UPDATE decisions SET created = ? WHERE seq = ?", (created, seq))
    connection.close()


def shown(found: Statistics) -> dict[str, Any]:
    """The figures of the ledger in the shape of the plain ones."""
    figures: dict[str, Any] = {
        "items": found.num_items,
        "done": found.num_done,
        "waiting": dict(found.waiting),
        "left": found.num_decisions_left,
        "hours": pytest.approx(found.hours_left),
        "hourly": dict(found.hourly),
        "people": {
            row.reviewer: (
                *(row.num_decisions, row.num_batch, row.num_skipped, row.num_undone),
                *(row.median_s, (row.gold.num, row.gold.of)),
            )
            for row in found.people
        },
        "edit rates": {row.field: (row.changed.num, row.changed.of) for row in found.edit_rates},
        "speakers": {
            (row.speaker.backend, row.speaker.model, row.speaker.prompt_hash, row.field): (
                *(row.edited.num, row.rejected.num, row.edited.of),
            )
            for row in found.speakers
        },
    }
    if found.reviewer is None:
        figures["agreement"] = {row.field: (row.num_items, near(row.alpha)) for row in found.agreement}
        figures["pairs"] = {
            (row.first, row.second, row.field): (row.num_items, row.num_same, near(row.kappa)) for row in found.pairs
        }
        figures["boundaries"] = {
            row.tolerance_s: (row.num_pairs, row.num_boundaries, near(row.f1)) for row in found.boundaries
        }
        figures["strata"] = {
            row.key: (row.num_items, row.num_audited, row.num_wrong, row.num_waiting, row.num_batch)
            for row in found.strata
        }
    return figures


def near(value: float | None) -> Any:
    return None if value is None else pytest.approx(value)


def test_every_figure_is_what_a_slow_count_of_the_raw_rows_gives(tmp_path: Path) -> None:
    met: Counter[str] = Counter()
    for seed, num_steps in RUNS:
        path = tmp_path / f"{seed}.db"
        with Ledger.open(f"sqlite:///{path}") as ledger:
            crowd = Crowd(ledger, seed)
            for _ in range(num_steps):
                crowd.step()
            spread_over_days(path, seed)
            book = Book.read(path)
            some = sorted({item.episode_id for item in book.items})[::2]
            for reviewer in (None, "alice"):
                assert book.figures(reviewer) == shown(ledger.statistics(reviewer=reviewer)), seed
                among = QueueFilter(among=some)
                assert book.only(some).figures(reviewer) == shown(ledger.statistics(among, reviewer=reviewer)), seed
        whole = book.figures()
        met.update({f"waiting: {reason}": count for reason, count in whole["waiting"].items()})
        met["gold"] += sum(row[5][1] for row in whole["people"].values())
        met["batch"] += sum(row[1] for row in whole["people"].values())
        met["audited"] += sum(row[1] for row in whole["strata"].values())
        met["alpha"] += sum(one not in (None, 1.0) for _, one in whole["agreement"].values())
        met["kappa"] += sum(one not in (None, 1.0) for *_, one in whole["pairs"].values())
        met["boundaries"] += whole["boundaries"][0.25][2] != whole["boundaries"][0.5][2]
    reasons = ("reviewers disagree", "differs from what a person said", "a verifier failed", "models disagree")
    wanted = {f"waiting: {reason}" for reason in (*reasons, "a verifier could not tell", "audit")}
    assert {name for name, count in met.items() if count} >= wanted | {"gold", "batch", "audited", "alpha", "kappa"}
    assert met["boundaries"], met
