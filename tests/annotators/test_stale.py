"""Decisions about pixels or clocks that later changed are marked stale: shown, held back, never lost."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from ledger_rows import claimed, decide, fill, hashes, proposal, result, segments, trace
from raw_files import write_aloha_episode, write_metadata_csv

from annotators.annotate import annotate
from annotators.inputs import numbers_hash, pictures_hash
from annotators.ledger import Ledger, QueueFilter
from annotators.release import release
from annotators.review import TraceForm
from annotators.vlm.backends import Perception
from apps.review.desk import Desk, Typed
from apps.review.panels import progress_panel, queue_panel, words_panel
from dataengine.convert import convert
from dataengine.edit import Changes, Trim, edit
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Proposal, ReleasePolicy
from schemas.content_hashes import ContentHashes
from schemas.records import Record
from schemas.refs import Ref

ONE, OTHER = Ref("tiny", "1"), Ref("other", "1")
BGR, NAMED, SLOW = Ref("tiny", "2"), Ref("tiny", "3"), Ref("tiny", "4")
CUT = Ref("tiny", "5")
NUM_FRAMES = 60
END_NS = NUM_FRAMES * 20_000_000
SHIPPED = Path(__file__).resolve().parents[2] / "dataengine/rigs/aloha_sim.yaml"


def write_rig(path: Path, *changes: tuple[str, str]) -> str:
    words = SHIPPED.read_text()
    for before, after in changes:
        assert before in words
        words = words.replace(before, after, 1)
    path.write_text(words)
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One recording converted with four rigs: as shipped, colours corrected, names corrected, another rate; and cut."""
    folder = tmp_path_factory.mktemp("stale")
    for number in range(2):
        write_aloha_episode(folder / "raw" / f"episode_{number}.hdf5", num_frames=NUM_FRAMES, seed=number)
    write_aloha_episode(folder / "other" / "episode_7.hdf5", num_frames=NUM_FRAMES, seed=7)
    for name, rows in (("raw", (0, 1)), ("other", (7,))):
        write_metadata_csv(folder / name, [{"file": f"episode_{number}.hdf5"} for number in rows])
    workspace = Workspace.at(folder / "workspace")
    rigs = {
        ONE: "aloha_sim",
        BGR: write_rig(folder / "bgr.yaml", ("cam_high, channel_order: rgb", "cam_high, channel_order: bgr")),
        NAMED: write_rig(folder / "named.yaml", ("unit: ", "unit: corrected "), ("left_waist", "left_hip")),
        SLOW: write_rig(folder / "slow.yaml", ("rate_hz: 50", "rate_hz: 25")),
    }
    for ref, rig in rigs.items():
        convert(source_path=folder / "raw", to=ref, workspace=workspace, rig=rig, sink="lerobot", workers=1)
    convert(source_path=folder / "other", to=OTHER, workspace=workspace, rig="aloha_sim", sink="lerobot", workers=1)
    ids = EpisodeSet.open(workspace, ONE).ids()
    trim = Trim(episodes=ids[0], start_s=0.4, end_s=0.8)
    edit(refs=(ONE,), to=CUT, workspace=workspace, changes=Changes(trims=(trim,)))
    return workspace


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def now(made: Workspace, ref: Ref) -> dict[str, ContentHashes]:
    episodes = EpisodeSet.open(made, ref)
    return {name: found for name in episodes.ids() if (found := episodes.row(name).hashes)}


def seen_trace(episode_id: str) -> Proposal:
    images = {"board": {"camera": "cam_high", "frame": 3, "box_xyxy": None}}
    return proposal(episode_id).model_copy(update={"images": images})


def say_and_accept(ledger: Ledger, made: Workspace, *refs: Ref) -> None:
    """A trace and segments for every episode of `refs`, verified, and the traces accepted by a person."""
    run_id = ledger.start_run(kind="annotate", recipe={})
    for ref in refs:
        states = now(made, ref)
        for name, state in states.items():
            cut = proposal(name, segments(END_NS))
            numbers = numbers_hash(EpisodeSet.open(made, ref).rig)
            provenance = cut.provenance.model_copy(update={"inputs_hash": numbers})
            rows = [
                (seen_trace(name), [result("pass")]),
                (cut.model_copy(update={"provenance": provenance}), [result("pass", "coverage")]),
            ]
            ledger.add_proposals(run_id, rows, seen={name: state})
            [item] = [row for row in ledger.queue() if (row.episode_id, row.field) == (name, "trace")]
            decide(ledger, ledger.item(item.item_id), "accept", f"{name} trace", seen=state)


def stale(ledger: Ledger) -> dict[tuple[str, str], str]:
    return {(row.episode_id, row.field): row.stale for row in ledger.queue() if row.stale}


def freeze(
    ledger: Ledger, made: Workspace, ref: Ref, to: str, policy: ReleasePolicy
) -> tuple[Record, list[dict[str, object]]]:
    record = release(episodes=ref, to=Ref.parse(to), workspace=made, ledger=ledger, policy=policy)
    path = made.path("annotations", Ref(record.name, record.version)) / "annotations.parquet"
    return record, pq.read_table(path).to_pylist()


def test_a_corrected_colour_order_makes_decisions_about_those_pixels_stale(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE, OTHER)
        ids, [other] = now(made, ONE), now(made, OTHER)
        assert list(now(made, BGR)) == list(ids)  # a corrected rig keeps every id
        assert ledger.refit(now(made, BGR)) == 2
        assert stale(ledger) == {(name, "trace"): "what cam_high shows changed" for name in ids}
        record, rows = freeze(ledger, made, BGR, "bgr@1", "human")
        assert rows == []
        reasons = {row.reason for row in record.rejected if row.reason.startswith("trace")}
        assert reasons == {"trace: stale: alice decided (accept), and what cam_high shows changed since; decide again"}
        _, rows = freeze(ledger, made, BGR, "bgr@2", "either")
        assert {(row["field"], row["basis"]) for row in rows} == {("segment", "verified")}  # numbers have no colour
        _, rows = freeze(ledger, made, ONE, "one@1", "human")  # the old version is what was decided about
        assert [row["episode_id"] for row in rows] == list(ids)
        _, rows = freeze(ledger, made, OTHER, "others@1", "human")
        assert [row["episode_id"] for row in rows] == [other]
        assert len(ledger.decisions()) == 3  # nothing was deleted
        ledger.check_chain()
        ledger.check_items()


def test_a_stale_decision_comes_back_to_the_queue_until_someone_decides_again(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE)
        fresh = now(made, BGR)
        among = QueueFilter(among=tuple(fresh))
        done = ledger.progress(among)
        assert (done.by_status, done.num_done) == ({"accepted": 2, "open": 2}, 2)
        ledger.refit(fresh)
        assert ledger.progress(among).by_status == {"stale": 2, "open": 2}
        assert ledger.progress(among).num_done == 0
        wanted = QueueFilter(stale=True)
        item = claimed(ledger, wanted=wanted)
        assert (item.status, item.stale) == ("accepted", "what cam_high shows changed")
        decide(ledger, item, "accept", "again", seen=fresh[item.episode_id])
        assert ledger.item(item.item_id).stale == ""
        assert ledger.progress(among).by_status == {"accepted": 1, "stale": 1, "open": 2}
        assert ledger.undo(reviewer="alice", idem_key="back") is not None
        assert ledger.item(item.item_id).stale == "what cam_high shows changed"  # the older decision stands again
        ledger.check_items()
        assert ledger.refit(now(made, ONE)) == 0  # of the old version nothing is stale


def test_corrected_names_and_units_make_nothing_stale(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE)
        assert EpisodeSet.open(made, NAMED).rig != EpisodeSet.open(made, ONE).rig
        assert ledger.refit(now(made, NAMED)) == 0
        _, rows = freeze(ledger, made, NAMED, "named@1", "human")
        assert [row["episode_id"] for row in rows] == list(now(made, NAMED))


def test_another_rate_makes_everything_stale(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE)
        assert ledger.refit(now(made, SLOW)) == 4
        assert set(stale(ledger).values()) == {"its clock changed (rate, rows or stamps)"}
        record, rows = freeze(ledger, made, SLOW, "slow@1", "either")
        assert rows == []
        assert "a stale decision, and stale: its clock changed" in record.rejected[1].reason
        assert record.rejected[1].reason.endswith("since it was proposed; annotate again")


def test_a_stale_reject_still_keeps_the_item_out(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE)
        name, state = next(iter(now(made, ONE).items()))
        [row] = [row for row in ledger.queue() if (row.episode_id, row.field) == (name, "trace")]
        decide(ledger, ledger.item(row.item_id), "reject", "no", seen=state, note="blurred")
        record, _ = freeze(ledger, made, BGR, "rejected@1", "either")
        [reason] = [row.reason for row in record.rejected if row.episode == name and row.reason.startswith("trace")]
        assert reason == "trace: rejected by alice: blurred; stale since: what cam_high shows changed, decide again"


def test_a_trim_keeps_decisions_and_releases_what_is_left_of_them(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE)
        cut, whole = now(made, CUT)
        assert ledger.refit(now(made, CUT)) == 0
        _, rows = freeze(ledger, made, CUT, "cut@1", "either")
        spans = [
            (row["field"], row["start_ns"], row["end_ns"], row["text"]) for row in rows if row["episode_id"] == cut
        ]
        first, last = 400_000_000, 800_000_000
        assert spans == [  # segments 0..0.3, 0.3..0.6 and 0.6..1.2 s of the recording
            ("segment", first, 600_000_000, "right gripper: carry"),
            ("segment", 600_000_000, last, "right gripper: retreat"),
            ("trace", first, last, trace().render()),
        ]
        assert json.loads(str(rows[1]["payload_json"]))["end_ns"] == last
        assert [row["end_ns"] for row in rows if row["episode_id"] == whole and row["field"] == "trace"] == [END_NS]
        from dataengine.annotation_set import AnnotationSet

        released, episodes = AnnotationSet.open(made, Ref("cut", "1")), EpisodeSet.open(made, CUT)
        stamps = episodes.stamps_ns(cut)
        at = [released.segment_at(cut, int(stamp)) for stamp in stamps]
        assert [row.text.split(": ")[1] for row in at if row] == ["carry"] * 10 + ["retreat"] * 10


def test_annotate_speaks_again_only_where_what_it_saw_changed(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        asked = {"workspace": made, "backend": Perception(), "ledger": ledger, "workers": 0, "family": "generic"}
        first = annotate(episodes=ONE, **asked)
        assert first.num_proposed == 2
        assert annotate(episodes=ONE, **asked).num_skipped == 2
        assert annotate(episodes=CUT, **asked).num_skipped == 2
        again = annotate(episodes=SLOW, **asked)
        assert again.num_proposed == 2
        assert not stale(ledger)
        [states] = [row.seen for row in ledger.proposals(episode_ids=[next(iter(now(made, ONE)))])[:1]]
        assert states == (next(iter(now(made, ONE).values())),)


def test_a_part_that_was_annotated_first_does_not_stand_for_the_whole(made: Workspace, url: str) -> None:
    cut, whole = now(made, CUT)
    with Ledger.open(url) as ledger:
        asked = {"workspace": made, "backend": Perception(), "ledger": ledger, "workers": 0, "family": "generic"}
        assert annotate(episodes=CUT, **asked).num_proposed == 2
        again = annotate(episodes=ONE, **asked)
        assert (again.num_proposed, again.num_skipped) == (1, 1)
        ends = {row.proposal.payload.segments[-1].end_ns for row in ledger.proposals(episode_ids=[cut])}
        assert ends == {800_000_000, END_NS}
        assert annotate(episodes=ONE, **asked).num_skipped == 2
        assert annotate(episodes=CUT, **asked).num_skipped == 2  # the whole covers its part
        assert len(ledger.proposals(episode_ids=[whole])) == 1


def test_pictures_are_the_same_ones_after_other_episodes_were_edited(made: Workspace) -> None:
    one, edited = (pictures_hash(made, EpisodeSet.open(made, ref), "cam_high") for ref in (ONE, CUT))
    assert one == edited
    assert one != pictures_hash(made, EpisodeSet.open(made, BGR), "cam_high")


def test_the_same_words_about_a_new_state_count_as_said_of_it() -> None:
    before, after = hashes(), hashes(clock="other")
    with Ledger.open("sqlite://") as ledger:
        fill(ledger, 1)
        run_id = ledger.start_run(kind="annotate", recipe={})
        ledger.refit({"episode_0": after})
        assert stale(ledger) == {("episode_0", "trace"): "its clock changed (rate, rows or stamps)"}
        rows = [(proposal("episode_0"), [result("pass")])]
        assert ledger.add_proposals(run_id, rows, seen={"episode_0": after}) == 0  # no new proposal
        assert not stale(ledger)
        [stored] = ledger.proposals()
        assert stored.seen == (before, after)
        assert stored.misfit(before) == stored.misfit(after) == ""


def test_only_the_camera_that_was_looked_at_counts() -> None:
    before = hashes(cam_high="a", cam_low="b")
    assert before.difference(hashes(cam_high="a", cam_low="c"), cameras=("cam_high",)) is None
    assert before.difference(hashes(cam_high="a", cam_low="c"), cameras=None) == "what cam_low shows changed"
    assert before.difference(hashes(cam_high="a"), cameras=None) is None  # a camera that was dropped shows nothing else
    assert before.difference(hashes(columns="other", cam_high="a", cam_low="b"), cameras=None) is None


def test_the_review_page_says_what_is_stale_and_why(made: Workspace, url: str) -> None:
    with Ledger.open(url) as ledger:
        say_and_accept(ledger, made, ONE)
    desk = Desk(workspace=made, episodes=BGR, ledger_url=url)
    wanted = desk.wanted(status="stale")
    assert "<b>2</b> stale" in progress_panel(desk.progress(), "tiny@2")
    queue = desk.queue(wanted)
    assert "accepted, and stale: what cam_high shows changed since" in queue_panel(queue, None, "bob")
    shown = desk.take(reviewer="bob", wanted=wanted)
    assert shown is not None
    typed = Typed(trace=TraceForm.of(trace()), segments=(), note="")
    page = words_panel(shown, desk.read(shown, typed))
    assert "This decision is about another state of the episode: what cam_high shows changed since." in page
    made_now = desk.decide("accept", token=shown.token, reviewer="bob", typed=typed)
    assert made_now.seen == desk.episodes.row(shown.item.episode_id).hashes
    assert desk.ledger.item(shown.item.item_id).stale == ""
    desk.close()
