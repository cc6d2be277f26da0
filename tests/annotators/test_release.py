"""Releases: which word goes out under which policy, and that a release is one frozen state."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledger_rows import proposal, result, segments, trace
from raw_files import write_aloha_episode

from annotators.ledger import Ledger
from annotators.release import ReleaseFilter, release
from dataengine.annotation_set import AnnotationSet
from dataengine.convert import convert
from dataengine.workspace import Workspace
from schemas.annotations import UNUSABLE, Action, BoxedIn, Proposal, ReasoningTrace, release_schema
from schemas.errors import ArtifactError, LedgerError, RefError, UsageError
from schemas.records import Record
from schemas.refs import Ref

EPISODES = Ref("tiny", "1")
NUM_EPISODES = 4
NUM_FRAMES = 20


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with four converted episodes of 20 frames at 50 Hz."""
    folder = tmp_path_factory.mktemp("release")
    for number in range(NUM_EPISODES):
        write_aloha_episode(folder / "raw" / f"episode_{number}.hdf5", num_frames=NUM_FRAMES, seed=number)
    workspace = Workspace.at(folder / "workspace")
    convert(source_path=folder / "raw", to=EPISODES, workspace=workspace, rig="aloha", sink="lerobot", workers=1)
    return workspace


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def ids(tiny: Workspace) -> tuple[str, ...]:
    from dataengine.episode_set import EpisodeSet

    return EpisodeSet.open(tiny, EPISODES).ids()


def fill(ledger: Ledger, ids: tuple[str, ...]) -> None:
    """Episode 0 is verified, 1 failed, 2 unknown; 3 is verified and has segments. A stranger's episode is there too."""
    run_id = ledger.start_run(kind="annotate", recipe={})
    rows = [
        (proposal(ids[0]), [result("pass"), result("unknown", "style", hard=False)]),
        (proposal(ids[1]), [result("fail"), result("pass", "picked_card")]),
        (proposal(ids[2]), [result("pass"), result("unknown", "picked_card")]),
        (proposal(ids[3]), [result("pass")]),
        (proposal(ids[3], segments(NUM_FRAMES * 20_000_000)), [result("pass", "coverage")]),
        (proposal("stranger-000000000000"), [result("pass")]),
    ]
    ledger.add_proposals(run_id, rows)


def decide(
    ledger: Ledger,
    episode_id: str,
    action: Action,
    payload: ReasoningTrace | None = None,
    note: str = "",
    reason: str | None = None,
) -> None:
    [row] = [row for row in ledger.queue() if row.episode_id == episode_id and row.field == "trace"]
    item = ledger.item(row.item_id)
    ledger.decide(
        item_id=row.item_id,
        base_proposal_id=item.head.proposal_id,
        action=action,
        reviewer="alice",
        payload=payload,
        idem_key=f"{episode_id} {action}",
        lead_time_ms=900,
        note=note,
        reason=reason,
    )


def freeze(ledger: Ledger, tiny: Workspace, to: str, policy: str, seq: int | None = None) -> Record:
    return release(episodes=EPISODES, to=Ref.parse(to), workspace=tiny, ledger=ledger, policy=policy, seq=seq)


def rows_of(tiny: Workspace, record: Record) -> list[dict[str, object]]:
    path = tiny.path("annotations", Ref(record.name, record.version)) / "annotations.parquet"
    table = pq.read_table(path)
    assert table.schema.names == release_schema().names
    assert table.schema.metadata[b"schema_version"] == b"2"
    return table.to_pylist()


def reasons(record: Record) -> dict[str, str]:
    return {row.episode: row.reason for row in record.rejected}


def test_an_unusable_episode_is_released_under_no_policy(ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]) -> None:
    fill(ledger, ids)
    decide(ledger, ids[3], "reject", note="the arm fell off", reason=UNUSABLE)
    for policy in ("human", "verified", "either"):
        record = freeze(ledger, tiny, f"unusable-{policy}@1", policy)
        assert ids[3] not in {row["episode_id"] for row in rows_of(tiny, record)}
        said = [row.reason for row in record.rejected if row.episode == ids[3]]
        assert said == [f"{UNUSABLE}, says alice: the arm fell off"] * 2  # its segments passed every verifier
        assert AnnotationSet.open(tiny, Ref(record.name, record.version)).unusable() == {ids[3]: said[0]}


def test_verified_takes_what_every_hard_verifier_passed(ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]) -> None:
    fill(ledger, ids)
    record = freeze(ledger, tiny, "verified@1", "verified")
    rows = rows_of(tiny, record)
    traces = [row for row in rows if row["field"] == "trace"]
    assert [row["episode_id"] for row in traces] == [ids[0], ids[3]]
    assert {row["basis"] for row in rows} == {"verified"}
    assert {row["reviewer"] for row in rows} == {None}
    first = traces[0]
    assert (first["start_ns"], first["end_ns"]) == (0, NUM_FRAMES * 20_000_000)
    assert first["text"] == trace().render()
    assert first["call_keys"] == ["c" * 64]
    assert json.loads(first["verifiers_json"])[0]["evidence"] == "arithmetic says pass"
    cuts = [(row["start_ns"], row["end_ns"], row["text"]) for row in rows if row["field"] == "segment"]
    assert cuts == [
        (0, 100_000_000, "right gripper: reach"),
        (100_000_000, 200_000_000, "right gripper: carry"),
        (200_000_000, 400_000_000, "right gripper: retreat"),
    ]
    assert reasons(record) == {
        ids[1]: "trace: verifier arithmetic failed: arithmetic says fail",
        ids[2]: "trace: verifier picked_card unknown: picked_card says unknown",
    }
    assert record.inputs[0].fingerprint == tiny.record("episodes", EPISODES).fingerprint


def test_human_takes_what_people_accepted_or_edited(ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]) -> None:
    fill(ledger, ids)
    edited = trace(board="4+2", solution="4+2=6")
    decide(ledger, ids[1], "edit", edited)
    decide(ledger, ids[2], "accept")
    decide(ledger, ids[3], "skip")
    record = freeze(ledger, tiny, "human@1", "human")
    first, second = rows_of(tiny, record)
    assert (first["episode_id"], first["text"], first["decision_action"]) == (ids[1], edited.render(), "edit")
    assert json.loads(first["payload_json"]) == edited.model_dump(mode="json")
    assert (second["episode_id"], second["text"], second["decision_action"]) == (ids[2], trace().render(), "accept")
    for row in (first, second):
        assert (row["basis"], row["reviewer"]) == ("human", "alice")
        [decision] = [made for made in ledger.decisions() if made.decision_id == row["decision_id"]]
        assert row["decided_at"] == decision.created
        assert row["ledger_seq"] == decision.seq
    assert [(row.episode, row.reason) for row in record.rejected] == [
        (ids[0], "trace: no decision"),
        (ids[3], "segments: no decision"),
        (ids[3], "trace: no decision"),
    ]


def test_either_takes_a_persons_word_first(ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]) -> None:
    fill(ledger, ids)
    decide(ledger, ids[1], "accept")
    record = freeze(ledger, tiny, "either@1", "either")
    assert [(row["episode_id"], row["basis"]) for row in rows_of(tiny, record) if row["field"] == "trace"] == [
        (ids[0], "verified"),
        (ids[1], "human"),
        (ids[3], "verified"),
    ]
    assert reasons(record) == {ids[2]: "trace: no decision, and verifier picked_card unknown: picked_card says unknown"}
    assert (record.counts["human"], record.counts["verified"], record.counts["rejected"]) == (1, 3, 1)


@pytest.mark.parametrize("policy", ["human", "verified", "either"])
def test_a_persons_reject_leaves_it_out_under_every_policy(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...], policy: str
) -> None:
    fill(ledger, ids)
    decide(ledger, ids[0], "reject", note="blurred")
    record = freeze(ledger, tiny, f"reject-{policy}@1", policy)
    assert ids[0] not in {row["episode_id"] for row in rows_of(tiny, record)}
    assert reasons(record)[ids[0]] == "trace: rejected by alice: blurred"


def test_verified_does_not_release_what_a_person_corrected(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    fill(ledger, ids)
    decide(ledger, ids[0], "edit", trace(board="4+2"))
    record = freeze(ledger, tiny, "corrected@1", "verified")
    assert ids[0] not in {row["episode_id"] for row in rows_of(tiny, record)}
    assert reasons(record)[ids[0]].startswith("trace: edited by alice")


def test_boxes_that_a_person_drew_or_deleted_are_released_as_they_left_them(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    fill(ledger, ids)
    left, middle, right = trace().cards
    boxes = {
        "cards": (left.model_copy(update={"box_xyxy": (1, 2, 9, 8)}), middle, right),
        "board_box_xyxy": (0, 0, 20, 10),
        "boxed_in": BoxedIn(camera="cam_high", frame=3),
    }
    decide(ledger, ids[0], "edit", trace().model_copy(update=boxes))
    [row] = rows_of(tiny, freeze(ledger, tiny, "boxed@1", "human"))
    released = ReasoningTrace.model_validate_json(str(row["payload_json"]))
    assert released == trace().model_copy(update=boxes)
    assert (row["text"], row["reviewer"]) == (trace().render(), "alice")  # boxes of cards are beside the words


def test_a_new_run_after_a_decision_changes_nothing_that_is_released(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    fill(ledger, ids)
    decide(ledger, ids[0], "accept")
    run_id = ledger.start_run(kind="annotate", recipe={})
    ledger.add_proposals(run_id, [(proposal(ids[0], trace(board="9+9"), "reader 2"), [result("pass")])])
    row = rows_of(tiny, freeze(ledger, tiny, "kept@1", "either"))[0]
    assert (row["text"], row["basis"], row["model"]) == (trace().render(), "human", "reader 1")


def test_a_release_is_the_state_at_its_seq_and_releases_again_to_the_same_fingerprint(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    fill(ledger, ids)
    seq = ledger.seq()
    first = freeze(ledger, tiny, "frozen@1", "either")
    assert first.notes["ledger_seq"] == seq
    decide(ledger, ids[0], "reject")
    assert freeze(ledger, tiny, "frozen@1", "either", seq) == first  # already there
    assert freeze(ledger, tiny, "frozen@2", "either", seq).fingerprint == first.fingerprint
    assert freeze(ledger, tiny, "frozen@3", "either").fingerprint != first.fingerprint
    with pytest.raises(ArtifactError, match="exists and was made differently"):
        freeze(ledger, tiny, "frozen@1", "either")


def test_what_is_said_about_other_episodes_does_not_change_a_release(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    fill(ledger, ids)
    first = freeze(ledger, tiny, "apart@1", "either")
    run_id = ledger.start_run(kind="annotate", recipe={})
    ledger.add_proposals(run_id, [(proposal("other-000000000000"), [result("pass")])])
    assert ledger.seq() > first.notes["ledger_seq"]
    assert freeze(ledger, tiny, "apart@1", "either") == first


def test_segments_that_were_cut_with_another_rig_are_not_verified(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    from annotators.inputs import numbers_hash
    from dataengine.episode_set import EpisodeSet

    now = numbers_hash(EpisodeSet.open(tiny, EPISODES).rig)

    def cut(episode_id: str, inputs_hash: str, end_ns: int) -> Proposal:
        made = proposal(episode_id, segments(end_ns))
        said_by = made.provenance.model_copy(update={"inputs_hash": inputs_hash})
        return made.model_copy(update={"provenance": said_by})

    run_id = ledger.start_run(kind="annotate", recipe={})
    old = [cut(ids[0], "old", 300_000_000), cut(ids[1], "old", 300_000_000)]
    fresh = [cut(ids[1], now, 400_000_000), cut(ids[2], now, 400_000_000), cut(ids[2], "old", 300_000_000)]
    ledger.add_proposals(run_id, [(one, [result("pass", "gripper_events")]) for one in (*old, *fresh)])
    record = freeze(ledger, tiny, "rigged@1", "verified")
    ends = {row["episode_id"]: row["end_ns"] for row in rows_of(tiny, record)}
    assert ends == {ids[1]: 400_000_000, ids[2]: 400_000_000}
    assert "another rig" in reasons(record)[ids[0]]


def test_the_order_in_which_proposals_arrived_does_not_change_the_fingerprint(
    tiny: Workspace, ids: tuple[str, ...], tmp_path: Path
) -> None:
    found = []
    for number, order in enumerate((ids, tuple(reversed(ids)))):
        with Ledger.open(f"sqlite:///{tmp_path / str(number)}.db") as ledger:
            run_id = ledger.start_run(kind="annotate", recipe={})
            for episode_id in order:
                ledger.add_proposals(run_id, [(proposal(episode_id), [result("pass")])])
            found.append(freeze(ledger, tiny, f"order{number}@1", "verified").fingerprint)
    assert found[0] == found[1]


def test_what_does_not_fit_its_episode_is_left_out_with_a_reason(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    run_id = ledger.start_run(kind="annotate", recipe={})
    long = proposal(ids[0], segments(9_000_000_000))
    ledger.add_proposals(run_id, [(long, [result("pass")]), (proposal(ids[1]), [])])
    record = freeze(ledger, tiny, "unfit@1", "verified")
    assert rows_of(tiny, record) == []
    assert "segment 1 [0, 2250000000) ns is not between 0 and 400000000" in reasons(record)[ids[0]]
    assert reasons(record)[ids[1]] == "trace: no hard verifier looked at it"
    assert reasons(record)[ids[2]] == "no proposal"


def test_bad_input_gets_one_sentence(ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no release policy"):
        freeze(ledger, tiny, "bad@1", "maybe")
    with pytest.raises(LedgerError, match="no state at 99"):
        freeze(ledger, tiny, "bad@1", "either", 99)
    with pytest.raises(RefError, match="Did you mean 'tiny@1'"):
        release(episodes=Ref("tinu", "1"), to=Ref("a", "1"), workspace=tiny, ledger=ledger, policy="human")


def test_the_mix_reads_back_what_was_released(ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]) -> None:
    from dataengine.annotation_set import AnnotationSet

    fill(ledger, ids)
    decide(ledger, ids[1], "edit", trace(board="4+2"))
    freeze(ledger, tiny, "read@1", "either")
    found = AnnotationSet.open(tiny, Ref("read", "1")).trace_at(ids[1], 0)
    assert found is not None
    assert (found.text, found.reviewer) == (trace(board="4+2").render(), "alice")


def test_the_same_seq_policy_and_filter_give_the_same_bytes_whatever_is_decided_later(
    ledger: Ledger, tiny: Workspace, ids: tuple[str, ...]
) -> None:
    fill(ledger, ids)
    decide(ledger, ids[0], "accept")
    seq = ledger.seq()

    def frozen(to: str, **wanted: str) -> tuple[bytes, Record]:
        only = ReleaseFilter(**wanted)
        place = {"episodes": EPISODES, "to": Ref.parse(to), "workspace": tiny, "ledger": ledger}
        record = release(**place, policy="either", seq=seq, wanted=only)
        return (tiny.path("annotations", Ref.parse(to)) / "annotations.parquet").read_bytes(), record

    first, record = frozen("same@1", field="trace", family="math-matching@1")
    assert {row["field"] for row in rows_of(tiny, record)} == {"trace"}
    assert record.recipe["filter"] == {"field": "trace", "family": "math-matching@1"}
    decide(ledger, ids[3], "reject")
    run_id = ledger.start_run(kind="annotate", recipe={})
    ledger.add_proposals(run_id, [(proposal(ids[1], trace(board="9+9")), [result("pass")])])
    again, other = frozen("same@2", field="trace", family="math-matching@1")
    assert again == first
    assert other.fingerprint == record.fingerprint
    everything, whole = frozen("same-whole@1")
    assert everything != first
    assert "filter" not in whole.recipe
    assert frozen("same-none@1", stratum="sum with -")[1].counts["rows"] == 0
    with pytest.raises(ArtifactError):
        frozen("same@1", field="segments")
