"""A released set: found by time, half-open, one schema, no two statements for one time."""

import pickle
import shutil

import pytest
from mix_material import trace_row, write_release

from dataengine.annotation_set import AnnotationSet
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, RefError
from schemas.refs import Ref

REF = Ref("said", "1")


def test_a_row_is_found_by_time_and_its_end_is_not_part_of_it(workspace: Workspace) -> None:
    rows = [
        trace_row("a", "second", field="segment", start_ns=100, end_ns=200),
        trace_row("a", "first", field="segment", start_ns=0, end_ns=100),
        trace_row("a", "all", start_ns=0, end_ns=150, reviewer="ada", decision_id="d1"),
        trace_row("b", "other", start_ns=50, end_ns=60),
    ]
    write_release(workspace, REF, rows)
    said = AnnotationSet.open(workspace, REF)
    found = [getattr(said.segment_at("a", stamp), "text", None) for stamp in (0, 99, 100, 199, 200)]
    assert found == ["first", "first", "second", "second", None]
    trace = said.trace_at("a", 149)
    assert trace is not None
    assert (trace.text, trace.basis, trace.reviewer, trace.call_keys) == (
        "all",
        "human",
        "ada",
        ("call-key-1", "call-key-2"),
    )
    assert said.trace_at("a", 150) is None
    assert said.trace_at("b", 49) is None
    assert said.trace_at("nobody", 0) is None
    assert [row.text for row in said.rows("a")] == ["first", "second", "all"]
    assert said.rows("nobody") == ()
    assert [said.row(row.index) for row in said.rows("b")] == list(said.rows("b"))


def test_a_set_survives_a_pickle(workspace: Workspace) -> None:
    write_release(workspace, REF, [trace_row("a", "all")])
    said = pickle.loads(pickle.dumps(AnnotationSet.open(workspace, REF)))
    assert said.text(0) == "all"
    assert said.fingerprint == workspace.record("annotations", REF).fingerprint


def test_an_unknown_schema_version_is_refused_in_one_sentence(workspace: Workspace) -> None:
    write_release(workspace, REF, [trace_row("a", "all")], version=7)
    with pytest.raises(ArtifactError, match="'said@1' have schema version 7; this program reads version 2"):
        AnnotationSet.open(workspace, REF)


def test_a_set_of_the_previous_schema_is_read_as_it_was(workspace: Workspace) -> None:
    write_release(workspace, REF, [trace_row("a", "all")], version=1)
    assert AnnotationSet.open(workspace, REF).text(0) == "all"


def test_two_statements_for_one_time_are_refused(workspace: Workspace) -> None:
    write_release(workspace, REF, [trace_row("a", "x", end_ns=100), trace_row("a", "y", start_ns=99, end_ns=200)])
    with pytest.raises(ArtifactError, match="two rows of 'trace' overlap in episode 'a' at 99 ns"):
        AnnotationSet.open(workspace, REF)


def test_a_damaged_or_absent_set_is_named(workspace: Workspace) -> None:
    with pytest.raises(RefError, match="no annotations 'said@1'"):
        AnnotationSet.open(workspace, REF)
    write_release(workspace, REF, [trace_row("a", "x")])
    (workspace.path("annotations", REF) / "annotations.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(ArtifactError, match=r"annotations.parquet can not be read"):
        AnnotationSet.open(workspace, REF)
    shutil.rmtree(workspace.path("annotations", REF))
