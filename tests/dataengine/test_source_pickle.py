"""Pickles: plain numbers are read as the standard library reads them; whatever would run something is refused unrun."""

import json
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_files import trajectory

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.inspection import inspect_path
from dataengine.rig_files import load_rig
from dataengine.sources import detect, open_source
from dataengine.sources.plain_pickle import load_plain
from dataengine.verification import verify
from dataengine.workspace import Workspace
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.refs import Ref
from schemas.rigs import Rig


def demo(length: int, seed: int = 0) -> dict[str, Any]:
    return {
        "actions": trajectory(length, 28, seed=seed).astype(np.float64),
        "observations": np.asfortranarray(trajectory(length, 39, seed=seed + 1).astype(np.float64)),
        "rewards": np.arange(length, dtype=">f8"),
        "init_state_dict": {"qpos": np.linspace(0, 1, 30), "qvel": np.zeros(30, np.float32)},
        "success": np.bool_(True),
        "length": np.int64(length),
        "note": "glove",
    }


def write(path: Path, value: Any, protocol: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_plain_demonstrations_come_out_as_pickle_itself_reads_them(tmp_path: Path, protocol: int) -> None:
    path = write(tmp_path / "demos.pickle", [demo(12), demo(9, seed=4)], protocol)
    ours, theirs = load_plain(path, path.name), pickle.loads(path.read_bytes())
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("actions", "observations", "rewards"):
            assert np.array_equal(mine[key], other[key])
            assert mine[key].dtype == other[key].dtype.newbyteorder("=")
        assert np.array_equal(mine["init_state_dict"]["qpos"], other["init_state_dict"]["qpos"])
        assert (mine["length"], mine["success"], mine["note"]) == (len(other["actions"]), True, "glove")


def test_an_episode_is_read_named_and_converted(tmp_path: Path, workspace: Workspace) -> None:
    write(tmp_path / "raw/door.pickle", [demo(12 + index, seed=index) for index in range(11)])
    source = open_source(tmp_path / "raw", load_rig("dapg_door"))
    assert source.names()[-2:] == ["door.pickle/demo_9", "door.pickle/demo_10"]
    episode = source.read("door.pickle/demo_3")
    assert np.array_equal(episode.columns["action"], trajectory(15, 28, seed=3))
    assert json.loads(episode.imported["init_state_dict"][0])["qpos"] == np.linspace(0, 1, 30).tolist()
    ref = Ref("door", "1")
    report = convert(
        source_path=tmp_path / "raw", to=ref, workspace=workspace, rig="dapg_door", sink="lerobot", workers=1
    )
    assert (report.num_episodes, len(EpisodeSet.open(workspace, ref).ids())) == (11, 11)
    assert verify(source_path=tmp_path / "raw", ref=ref, workspace=workspace, workers=1).ok


def test_an_id_survives_the_removal_of_a_demo_before_it(tmp_path: Path) -> None:
    write(tmp_path / "all/door.pickle", [demo(12), demo(9, seed=4)])
    write(tmp_path / "less/door.pickle", [demo(9, seed=4)])
    sources = [open_source(tmp_path / name, load_rig("dapg_door")) for name in ("all", "less")]
    ids = [source.read(source.names()[-1]).meta.episode_id for source in sources]
    assert ids[0] == ids[1]


def test_the_real_glove_demonstrations_are_read_bit_for_bit(samples: Path) -> None:
    raw = samples / "hand_dapg"
    assert detect(raw) == "demo_pickle"
    source = open_source(raw, load_rig("dapg_door"))
    theirs = pickle.loads((raw / "door-v0_demos.pickle").read_bytes())  # a file we know
    assert len(source.names()) == 25
    for name, other in zip(source.names(), theirs, strict=True):
        columns = source.read(name).columns
        assert np.array_equal(columns["action"], other["actions"])
        assert np.array_equal(columns["observation.state"], other["observations"])
    found = inspect_path(raw)
    assert (found.num_episodes, found.num_rows) == (25, 6729)


class _Runs:
    """What an attacker's pickle does: a call on loading."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def _proto2(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("hidden", ["alone", "in a list", "beside arrays"])
def test_a_pickle_that_would_run_something_is_refused_and_nothing_runs(
    tmp_path: Path, protocol: int, hidden: str
) -> None:
    mark = tmp_path / "it_ran"
    attack = _Runs(subprocess.getoutput, f"touch {mark}")
    value: Any = {"alone": attack, "in a list": [attack], "beside arrays": [{**demo(4), "actions": attack}]}[hidden]
    path = write(tmp_path / "raw/demos.pkl", value, protocol)
    # protocols 0 and 2 write Python 2's name for it
    with pytest.raises(
        SourceError, match=r"is a pickle that asks for (subprocess|commands)\.getoutput; .* nothing of it was run"
    ):
        open_source(path.parent, load_rig("dapg_door"))
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists(), "the attack is a real one"


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (b"cbuiltins\neval\n(V1+1\ntR", r"builtins\.eval"),
        (b"cnumpy\nload\n(Vx\ntR", r"numpy\.load"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}b", "a change to a function"),
        (b"(ios\nsystem\n", "opcode INST"),
        (b"\x82\x01", "opcode EXT1"),
        (b"Pname\n", "opcode PERSID"),
        (b"]r" + struct.pack("<I", 2**31 - 5), "a memo of its own numbering"),
        (b"cnumpy\ndtype\n(VO8\ntR", "an array of O8"),
        (b"c_codecs\nencode\n(V1\nVzip\ntR", "text in zip"),
    ],
    ids=["eval", "numpy.load", "build", "inst", "extension", "persistent id", "memo bomb", "objects", "codec"],
)
def test_crafted_opcodes_are_refused(tmp_path: Path, body: bytes, asks: str) -> None:
    path = tmp_path / "demos.pickle"
    path.write_bytes(_proto2(body))
    with pytest.raises(SourceError, match=f"asks for {asks}"):
        load_plain(path, path.name)


def test_lists_that_refer_to_each_other_are_walked_once(tmp_path: Path) -> None:
    value: list[Any] = [1]
    for _ in range(10):
        value = [value] * 10  # ten thousand million numbers if each were copied
    assert len(load_plain(write(tmp_path / "a.pickle", value), "a.pickle")) == 10
    for _ in range(20):
        value = [value]
    with pytest.raises(SourceError, match=r"asks for lists nested more than 16 deep"):
        load_plain(write(tmp_path / "b.pickle", value), "b.pickle")


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"\x80\x04\x95\xff"])
def test_what_is_no_pickle_says_so(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "demos.pickle").write_bytes(damage)
    with pytest.raises(SourceError, match=r"demos.pickle is not a pickle that can be read"):
        open_source(tmp_path, load_rig("dapg_door"))


def test_a_pickle_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    write(tmp_path / "stats.pkl", {"qpos_mean": np.zeros(14)})
    with pytest.raises(SourceError, match=r"stats.pkl is a pickle of dict, not of a list of dicts of arrays"):
        open_source(tmp_path, load_rig("dapg_door"))
    with pytest.raises(RigError, match=r"store no rate, names or instruction. Pass a rig: --rig dapg_door"):
        open_source(tmp_path, None)


def test_a_rig_that_does_not_fit_and_a_demo_that_lacks_a_column_say_so(tmp_path: Path) -> None:
    short = demo(7)
    del short["rewards"]
    write(tmp_path / "demos.pickle", [demo(5), short])
    source = open_source(tmp_path, load_rig("dapg_door"))
    with pytest.raises(EpisodeError, match=r"demos.pickle/demo_1: rewards is missing"):
        source.read("demos.pickle/demo_1")
    rig = Rig.model_validate({**load_rig("dapg_door").model_dump(), "features": {"action": {"key": "ctrl"}}})
    with pytest.raises(RigError, match=r"'action' reads ctrl, not in demos.pickle/demo_0 \(has: actions, init_state"):
        open_source(tmp_path, rig)


def test_a_draft_of_pickled_demonstrations_converts_once_answered(tmp_path: Path) -> None:
    write(tmp_path / "raw/demos.pickle", [demo(5), demo(6, seed=2)])
    draft = inspect_path(tmp_path / "raw").draft_rig_yaml
    (tmp_path / "mylab.yaml").write_text(
        draft.replace("rate_hz: null", "rate_hz: 25").replace("task: null", "task: Go.")
    )
    source = open_source(tmp_path / "raw", load_rig(str(tmp_path / "mylab.yaml")))
    assert source.read("demos.pickle/demo_1").columns["observation.state"].shape == (6, 39)
