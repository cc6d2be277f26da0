"""Push and pull to a dataset hub: a server on this machine that speaks its protocol."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hub_server
import pytest
import raw_files
from transfer_material import NUM_FILES, REF, make

from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.transfer import pull, push
from dataengine.transfer.hub import _Hub
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


@pytest.mark.parametrize("moment", ["tag v3.0", "untag v3.0", "tag 2"])
@pytest.mark.slow
def test_a_push_that_was_killed_while_it_tagged_is_mended_by_the_next_one(
    moment: str, hub: hub_server.Hub, dataset: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = hub_options(hub)
    push(workspace=dataset, kind="episodes", ref=REF, url="hf://team/tiny", options=options)
    raw = raw_files.write_aloha_folder(tmp_path / "more", num_episodes=2, num_frames=13)
    second = Ref("tiny", "2")
    convert(source_path=raw, to=second, workspace=dataset, rig="aloha_sim", sink="lerobot", workers=1)
    verb, _, name = moment.partition(" ")
    real: Callable[..., None] = getattr(_Hub, verb)

    def killed(self: _Hub, tag: str, *words: str) -> None:
        if verb == "untag":  # after it, before the tag is made again
            real(self, tag, *words)
        if tag == name:
            raise KeyboardInterrupt
        real(self, tag, *words)

    monkeypatch.setattr(_Hub, verb, killed)
    with pytest.raises(KeyboardInterrupt):
        push(workspace=dataset, kind="episodes", ref=second, url="hf://team/tiny", options=options)
    monkeypatch.setattr(_Hub, verb, real)
    assert "2" not in hub.repos["team/tiny"].tags
    push(workspace=dataset, kind="episodes", ref=second, url="hf://team/tiny", options=options)
    repo = hub.repos["team/tiny"]
    assert repo.files("v3.0") == repo.files("2") == repo.files("main") != repo.files("1")


def test_a_missing_lerobot_tag_is_made_also_where_the_version_is_there(hub: hub_server.Hub, dataset: Workspace) -> None:
    options = hub_options(hub)
    push(workspace=dataset, kind="episodes", ref=REF, url="hf://team/tiny", options=options)
    repo = hub.repos["team/tiny"]
    del repo.tags["v3.0"]
    assert push(workspace=dataset, kind="episodes", ref=REF, url="hf://team/tiny", options=options).already_there
    assert repo.tags["v3.0"] == repo.branches["main"] == repo.tags["1"]


def test_another_dataset_is_never_pushed_over_one_that_is_there(
    hub: hub_server.Hub, dataset: Workspace, other: Workspace
) -> None:
    options = hub_options(hub)
    push(workspace=dataset, kind="episodes", ref=REF, url="hf://team/tiny", options=options)
    before = dict(hub.repos["team/tiny"].files("main") or {})
    make(other, ref=Ref("tiny", "2"))
    with pytest.raises(
        ArtifactError, match=r"holds episodes 'tiny', and mixes 'tiny' would replace it.*hf://team/tiny/"
    ):
        push(workspace=other, kind="mixes", ref=Ref("tiny", "2"), url="hf://team/tiny", options=options)
    pull(workspace=other, url="hf://team/tiny@1", to=Ref("tony", "2"), options=options)
    with pytest.raises(ArtifactError, match=r"holds episodes 'tiny', and episodes 'tony' would replace it"):
        push(workspace=other, kind="episodes", ref=Ref("tony", "2"), url="hf://team/tiny", options=options)
    assert hub.repos["team/tiny"].files("main") == before


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"part-0/0.bin": b"theirs"}, r"holds part-0/0\.bin but no record\.json, so this program did not push it"),
        ({"record.json": b'{"of": "another program"}'}, r"record\.json in .* is no record of this program"),
    ],
)
def test_what_another_program_put_there_is_not_replaced(
    files: dict[str, bytes], sentence: str, hub: hub_server.Hub, workspace: Workspace
) -> None:
    make(workspace)
    hub.put("team/tiny", files)
    before = dict(hub.repos["team/tiny"].files("main") or {})
    with pytest.raises(ArtifactError, match=sentence):
        push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny", options=hub_options(hub))
    assert hub.repos["team/tiny"].files("main") == before


def test_another_artifact_of_the_version_on_main_is_refused_also_before_its_tag(
    hub: hub_server.Hub, workspace: Workspace, other: Workspace
) -> None:
    options = hub_options(hub)
    make(workspace)
    push(workspace=workspace, kind="mixes", ref=REF, url="hf://team/tiny", options=options)
    del hub.repos["team/tiny"].tags["1"]
    make(other, seed=4)
    with pytest.raises(ArtifactError, match=r"holds another 1 of mixes 'tiny' .*A push never overwrites"):
        push(workspace=other, kind="mixes", ref=REF, url="hf://team/tiny", options=options)


def test_an_older_version_gets_its_tag_and_main_stays(
    hub: hub_server.Hub, workspace: Workspace, other: Workspace
) -> None:
    options = hub_options(hub)
    for version in ("10", "9"):
        make(workspace, seed=int(version), ref=Ref("tiny", version))
        push(workspace=workspace, kind="mixes", ref=Ref("tiny", version), url="hf://team/tiny", options=options)
    repo = hub.repos["team/tiny"]
    assert repo.branches.keys() == {"main"}
    assert repo.tags["10"] == repo.branches["main"] != repo.tags["9"]
    for version in ("9", "10"):
        assert pull(workspace=other, url=f"hf://team/tiny@{version}", options=options).record.version == version


def test_an_older_dataset_leaves_what_lerobot_sees(hub: hub_server.Hub, dataset: Workspace, tmp_path: Path) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "less", num_episodes=1, num_frames=13)
    old = Ref("tiny", "0.9")
    convert(source_path=raw, to=old, workspace=dataset, rig="aloha_sim", sink="lerobot", workers=1)
    for ref in (REF, old):
        push(workspace=dataset, kind="episodes", ref=ref, url="hf://team/tiny", options=hub_options(hub))
    repo = hub.repos["team/tiny"]
    assert repo.tags["v3.0"] == repo.tags["1"] == repo.branches["main"] != repo.tags["0.9"]


def test_a_readme_follows_the_versions_until_a_person_changes_it(hub: hub_server.Hub, workspace: Workspace) -> None:
    options = hub_options(hub)
    repo_files = []
    for version in ("1", "2", "3"):
        make(workspace, seed=int(version), ref=Ref("tiny", version))
        push(workspace=workspace, kind="mixes", ref=Ref("tiny", version), url="hf://team/tiny", options=options)
        repo_files.append(hub.read("team/tiny", "README.md").decode())
        if version == "2":
            hub.put("team/tiny", {"README.md": repo_files[-1].replace("# tiny@2", "# Our robot").encode()})
    assert "# tiny@2" in repo_files[1]
    assert "# Our robot" in repo_files[2]
    assert "# tiny@3" not in repo_files[2]
