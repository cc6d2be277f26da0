"""Push and pull to a dataset hub: a server on this machine that speaks its protocol."""

from collections.abc import Iterator
from pathlib import Path

import hub_server
import pytest
import raw_files
from transfer_material import NUM_FILES, REF, make

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.transfer import pull, push
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, TransferError, UsageError
from schemas.refs import Ref


@pytest.fixture
def other(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "other")


@pytest.fixture
def dataset(tmp_path: Path, workspace: Workspace) -> Workspace:
    """A workspace that holds a small LeRobot dataset."""
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=2, num_frames=12)
    convert(source_path=raw, to=REF, workspace=workspace, rig="aloha_sim", sink="lerobot", workers=1)
    return workspace


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hub_server.Hub]:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hub_server.running_hub() as hub:
        yield hub


def hub_options(hub: hub_server.Hub) -> dict[str, object]:
    return {"endpoint": hub.url, "token": hub_server.TOKEN}


def test_the_hub_holds_a_lerobot_dataset_that_comes_back_whole(
    dataset: Workspace, hub: hub_server.Hub, other: Workspace
) -> None:
    sent = push(workspace=dataset, kind="episodes", ref=REF, url="hf://team/tiny", options=hub_options(hub))
    assert sent.url == "hf://team/tiny@1"
    repo = hub.repos["team/tiny"]
    assert repo.tags.keys() == {"1", "v3.0"}  # LeRobot asks for a tag of its format's version
    files = repo.files("1")
    assert files is not None
    assert {"record.json", "README.md", "meta/info.json", "meta/rig.json", "data/chunk-000/file-000.parquet"} <= set(
        files
    )
    card = hub.blobs[files["README.md"]].decode()
    assert card.startswith("---\n")
    assert "- LeRobot" in card
    assert "| episodes | 2 |" in card
    assert "aloha" in card
    assert raw_files.TASK in card
    got = pull(workspace=other, url="hf://team/tiny@1", options=hub_options(hub))
    assert got.record.fingerprint == sent.record.fingerprint
    assert len(EpisodeSet.open(other, REF).ids()) == 2
    again = push(workspace=dataset, kind="episodes", ref=REF, url="hf://team/tiny", options=hub_options(hub))
    assert again.already_there


def test_a_push_to_the_hub_that_failed_shows_nothing_and_sends_no_large_file_twice(
    hub: hub_server.Hub, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    hub.fail_uploads_after = 3
    with pytest.raises(TransferError, match=r"hf://team/tiny refuses access"):
        push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny", options=hub_options(hub), threads=1)
    assert hub.repos["team/tiny"].files("main") == {}
    hub.fail_uploads_after = None
    push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny", options=hub_options(hub))
    assert len(hub.uploads) == len(set(hub.uploads)) == NUM_FILES // 2
    assert pull(workspace=other, url="hf://team/tiny@1", options=hub_options(hub)).num_moved == NUM_FILES


def test_versions_are_tags_and_an_old_one_stays(
    hub: hub_server.Hub, workspace: Workspace, other: Workspace, tmp_path: Path
) -> None:
    make(workspace)
    push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny", options=hub_options(hub))
    make(workspace, seed=2, ref=Ref("tiny", "2"))
    push(workspace=workspace, kind="mixes", ref=Ref("tiny", "2"), url="hf://team/tiny", options=hub_options(hub))
    old = pull(workspace=other, url="hf://team/tiny@1", options=hub_options(hub)).record
    assert (old.version, old.recipe) == ("1", {"seed": 0})
    make(third := Workspace.at(tmp_path / "third"), seed=9)
    with pytest.raises(ArtifactError, match=r"hf://team/tiny@1 holds something else"):
        push(workspace=third, kind="mixes", ref=REF, url="hf://team/tiny", options=hub_options(hub))


def test_a_frame_store_may_live_below_the_root(hub: hub_server.Hub, workspace: Workspace, other: Workspace) -> None:
    record = make(workspace)
    options = hub_options(hub)
    url = push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny/frames", options=options).url
    assert url == "hf://team/tiny@frames-1/frames"
    assert "README.md" not in (hub.repos["team/tiny"].files("main") or {})
    assert pull(workspace=other, url=url, options=options).record == record


def test_a_wrong_token_and_an_unknown_repository_are_one_sentence_each(
    hub: hub_server.Hub, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    wrong: dict[str, object] = {"endpoint": hub.url, "token": "hf_wrong"}
    with pytest.raises(TransferError, match=r"hf://team/tiny refuses access .*HF_TOKEN"):
        push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny", options=wrong)
    with pytest.raises(TransferError, match="no artifact at hf://team/none@1: nothing is there"):
        pull(workspace=other, url="hf://team/none@1", options=hub_options(hub))
    with pytest.raises(UsageError, match="is no repository"):
        push(workspace=workspace, kind="mixes", ref=REF, url="hf://tiny")
    with pytest.raises(UsageError, match="the version is the tag"):
        push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny@1")
