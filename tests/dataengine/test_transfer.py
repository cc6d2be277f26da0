"""Push and pull: whole or not at all, resumed, checked; to a disk, to S3 and to a dataset hub."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transfer_material import NUM_FILES, REF, content, make

from dataengine.transfer import pull, push
from dataengine.workspace import Workspace, read_record
from schemas.errors import ArtifactError, RefError, TransferError, UsageError
from schemas.refs import Ref

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def other(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path / "other")


def shelf(tmp_path: Path) -> str:
    return f"file://{tmp_path}/shelf"


def test_an_artifact_comes_back_as_it_went(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    record = make(workspace)
    seen: list[tuple[int, int]] = []
    sent = push(
        workspace=workspace,
        kind="mixes",
        ref=REF,
        url=shelf(tmp_path),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert (sent.num_moved, sent.already_there, sent.url) == (
        NUM_FILES,
        False,
        f"file://{tmp_path}/shelf/mixes/tiny@1",
    )
    assert seen[0] == (0, NUM_FILES)
    assert seen[-1] == (NUM_FILES, NUM_FILES)
    got = pull(workspace=other, url=sent.url)
    assert got.record == record == other.record("mixes", REF)
    assert content(other.find("mixes", REF)) == content(workspace.find("mixes", REF))
    assert list((other.root / "mixes").glob(".*.draft")) == []


def test_the_same_transfer_again_moves_nothing(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    again = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path))
    assert (again.already_there, again.num_moved) == (True, 0)
    assert not pull(workspace=other, url=url).already_there
    assert pull(workspace=other, url=url).already_there


def test_a_store_in_memory_works_as_a_disk_does(workspace: Workspace, other: Workspace) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url="memory://shelf").url
    assert pull(workspace=other, url=url).num_moved == NUM_FILES
    assert push(workspace=workspace, kind="mixes", ref=REF, url="memory://shelf").already_there


def test_another_name_keeps_the_fingerprint(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    record = make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    got = pull(workspace=other, url=url, to=Ref("ours", "7")).record
    assert (got.name, got.version, got.fingerprint) == ("ours", "7", record.fingerprint)
    assert other.record("mixes", Ref("ours", "7")) == got


def test_nothing_is_overwritten_in_either_place(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    make(other, seed=5)
    before = content(tmp_path / "shelf")
    with pytest.raises(ArtifactError, match=r"exists and was made differently \(fingerprint: here .*tiny@2"):
        pull(workspace=other, url=url)
    with pytest.raises(ArtifactError, match=r"holds another mixes 'tiny@1'.*A push never overwrites"):
        push(workspace=other, kind="mixes", ref=REF, url=shelf(tmp_path))
    assert content(tmp_path / "shelf") == before


PROGRAM = """
import os, signal, sys, time
from dataengine.transfer import pull, push
from dataengine.workspace import Workspace
from schemas.refs import Ref

def stop(done, total):
    time.sleep(0.1)  # files that take a while, as large ones do
    if done == 6:
        os.kill(os.getpid(), signal.SIGKILL)

workspace = Workspace.at(sys.argv[2])
if sys.argv[1] == 'push':
    push(workspace=workspace, kind='mixes', ref=Ref('tiny', '1'), url=sys.argv[3], threads=2, on_progress=stop)
else:
    pull(workspace=workspace, url=sys.argv[3], threads=2, on_progress=stop)
"""


def killed(verb: str, workspace: Workspace, url: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, verb, str(workspace.root), url], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_killed_push_is_no_artifact_and_goes_on_where_it_was(
    tmp_path: Path, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    killed("push", workspace, shelf(tmp_path))
    url = f"{shelf(tmp_path)}/mixes/tiny@1"
    with pytest.raises(TransferError, match=r"the push to .* was not finished"):
        pull(workspace=other, url=url)
    journal = json.loads((tmp_path / "shelf/mixes/tiny@1/.push.json").read_bytes())["sent"]
    assert 0 < len(journal) <= 6  # how many depends on how long the disk takes for each writing
    resumed = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path))
    assert resumed.num_moved == NUM_FILES - len(journal)  # what was journaled before the kill is not sent again
    assert pull(workspace=other, url=url).num_moved == NUM_FILES


def test_a_killed_pull_leaves_no_artifact_and_goes_on_where_it_was(
    tmp_path: Path, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    killed("pull", other, url)
    assert other.refs("mixes") == []
    draft = other.root / "mixes" / ".tiny@1.draft"
    in_place = len(list(draft.glob("part-*/*.bin")))
    (draft / "part-0").mkdir(exist_ok=True)
    (draft / "part-0" / "stray.bin").write_text("of no record")
    resumed = pull(workspace=other, url=url)
    assert in_place >= 6
    assert resumed.num_moved == NUM_FILES - in_place
    assert content(other.find("mixes", REF)) == content(workspace.find("mixes", REF))


def test_a_file_that_was_changed_there_is_named_by_pull_and_mended_by_push(
    tmp_path: Path, workspace: Workspace, other: Workspace
) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    damaged = tmp_path / "shelf/mixes/tiny@1/part-1/1.bin"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    with pytest.raises(ArtifactError, match=r"part-1/1\.bin in file://.* is not the file that record\.json lists"):
        pull(workspace=other, url=url)
    assert other.refs("mixes") == []
    mended = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path))
    assert (mended.num_moved, mended.already_there) == (1, False)
    pull(workspace=other, url=url)
    assert content(other.find("mixes", REF)) == content(workspace.find("mixes", REF))


def test_a_missing_file_there_is_named(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    (tmp_path / "shelf/mixes/tiny@1/part-2/2.bin").unlink()
    with pytest.raises(ArtifactError, match=r"is missing part-2/2\.bin"):
        pull(workspace=other, url=url)


def test_a_damaged_artifact_here_is_not_pushed(tmp_path: Path, workspace: Workspace) -> None:
    make(workspace)
    (workspace.find("mixes", REF) / "part-0/0.bin").write_bytes(b"rot")
    with pytest.raises(ArtifactError, match=r"part-0/0\.bin in .* is not the file"):
        push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path))
    assert not (tmp_path / "shelf/mixes/tiny@1/record.json").exists()


def test_a_record_that_points_outside_is_refused(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path)).url
    path = tmp_path / "shelf/mixes/tiny@1/record.json"
    path.write_text(path.read_text().replace("part-0/0.bin", "../../../../evil"))
    with pytest.raises(ArtifactError, match="which is no path inside it"):
        pull(workspace=other, url=url)


def test_what_is_no_artifact_is_said_with_what_is_there(tmp_path: Path, workspace: Workspace, other: Workspace) -> None:
    make(workspace)
    push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path))
    with pytest.raises(TransferError, match=r"holds mixes/tiny@1\. Name one"):
        pull(workspace=other, url=shelf(tmp_path))
    with pytest.raises(TransferError, match="nothing is there"):
        pull(workspace=other, url=f"file://{tmp_path}/nowhere")
    with pytest.raises(UsageError, match="is no URL"):
        pull(workspace=other, url="shelf/tiny@1")
    with pytest.raises(UsageError, match="carrier"):
        pull(workspace=other, url="carrier://pigeon/tiny@1")
    with pytest.raises(RefError):
        push(workspace=workspace, kind="mixes", ref=Ref("tony", "1"), url=shelf(tmp_path))


def test_a_pulled_artifact_may_be_read_anywhere(tmp_path: Path, workspace: Workspace) -> None:
    record = make(workspace)
    push(workspace=workspace, kind="mixes", ref=REF, url=shelf(tmp_path))
    assert read_record(tmp_path / "shelf/mixes/tiny@1") == record  # a shelf on a disk is itself a workspace


# --- S3, against a server on this machine ---


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    import boto3

    for key, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "team",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    name = f"shelf-{abs(hash(request.node.name)) % 10**8}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return name


def test_s3_holds_an_artifact_and_gives_it_back(bucket: str, workspace: Workspace, other: Workspace) -> None:
    record = make(workspace)
    url = push(workspace=workspace, kind="mixes", ref=REF, url=f"s3://{bucket}/team").url
    assert url == f"s3://{bucket}/team/mixes/tiny@1"
    assert push(workspace=workspace, kind="mixes", ref=REF, url=f"s3://{bucket}/team").already_there
    assert pull(workspace=other, url=url).record == record
    assert content(other.find("mixes", REF)) == content(workspace.find("mixes", REF))


def test_a_killed_push_to_s3_goes_on_where_it_was(bucket: str, workspace: Workspace) -> None:
    import boto3

    make(workspace)
    killed("push", workspace, f"s3://{bucket}/team")
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    arrived = {row["Key"]: row["ETag"] for row in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert "team/mixes/tiny@1/record.json" not in arrived
    journal = json.loads(client.get_object(Bucket=bucket, Key="team/mixes/tiny@1/.push.json")["Body"].read())["sent"]
    changed = next(iter(journal))
    client.put_object(Bucket=bucket, Key=f"team/mixes/tiny@1/{changed}", Body=b"someone else's")
    resumed = push(workspace=workspace, kind="mixes", ref=REF, url=f"s3://{bucket}/team")
    assert resumed.num_moved == NUM_FILES - len(journal) + 1
    body = client.get_object(Bucket=bucket, Key=f"team/mixes/tiny@1/{changed}")["Body"].read()
    assert body == (workspace.find("mixes", REF) / changed).read_bytes()


def test_an_unknown_bucket_and_absent_keys_are_one_sentence_each(
    bucket: str, workspace: Workspace, other: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(workspace)
    with pytest.raises(TransferError, match=r"leads nowhere .*Make the bucket or folder first"):
        push(workspace=workspace, kind="mixes", ref=REF, url="s3://no-such-bucket/team")
    with pytest.raises(TransferError, match="no artifact at s3://no-such-bucket/team: nothing is there"):
        pull(workspace=other, url="s3://no-such-bucket/team")
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(TransferError, match=r"no credentials for s3://.*Set AWS_ACCESS_KEY_ID"):
        push(workspace=workspace, kind="mixes", ref=REF, url=f"s3://{bucket}/team")


def test_credentials_that_the_store_refuses_are_one_sentence(bucket: str, s3_server: str, workspace: Workspace) -> None:
    import boto3
    import requests

    make(workspace)
    requests.post(f"{s3_server}/moto-api/reset-auth", data=b"0", timeout=10)  # from now on every key is checked
    try:
        with pytest.raises(TransferError, match=r"refuses access .*Set AWS_ACCESS_KEY_ID"):
            push(workspace=workspace, kind="mixes", ref=REF, url=f"s3://{bucket}/team")
    finally:
        requests.post(f"{s3_server}/moto-api/reset-auth", data=b"1000000000", timeout=10)
    assert boto3.client("s3", endpoint_url=s3_server).list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_keys_and_endpoint_may_come_as_options(
    bucket: str, s3_server: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(workspace)
    for key in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key)
    options = {"endpoint_url": s3_server, "key": "team", "secret": "secret"}
    sent = push(workspace=workspace, kind="mixes", ref=REF, url=f"s3://{bucket}/team", options=options)
    assert sent.num_moved == NUM_FILES


def test_a_store_that_is_down_is_one_sentence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataengine.transfer.store._WAITS_S", (0.01, 0.01))
    make(workspace)
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "team",
        "secret": "secret",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    with pytest.raises(TransferError, match=r"failed while it is read .*Run the same command again"):
        push(workspace=workspace, kind="mixes", ref=REF, url="s3://bucket/team", options=options)
