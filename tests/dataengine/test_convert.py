"""Convert as a whole: rejected rows, kills, fingerprints, real recordings."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import raw_files

from dataengine.convert import ConvertReport, VideoEncoding, convert
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError, RejectedError, RigError, UsageError
from schemas.refs import Ref

REF = Ref("tiny", "1")
ROOT = Path(__file__).resolve().parents[2]


def write_raw(folder: Path, *, num_episodes: int = 4, bad: tuple[int, ...] = ()) -> Path:
    """ALOHA episodes; the bad ones have a camera that is one frame short."""
    for index in range(num_episodes):
        short = "cam_low" if index in bad else None
        path = folder / f"episode_{index}.hdf5"
        raw_files.write_aloha_episode(path, num_frames=20 + index, seed=index, short_camera=short)
    raw_files.write_metadata_csv(folder, [{"file": f"episode_{index}.hdf5"} for index in range(num_episodes)])
    return folder


def run(raw: Path, workspace: Workspace, to: Ref = REF, **options: object) -> ConvertReport:
    return convert(source_path=raw, to=to, workspace=workspace, rig="aloha_sim", **options)  # type: ignore[arg-type]  # keywords vary by test


def fingerprints(report: ConvertReport) -> list[str]:
    return [record.fingerprint for record in report.records]


def markers(workspace: Workspace, kind: str) -> list[Path]:
    """One file for each whole staged episode."""
    return sorted(workspace.root.glob(f"{kind}/.*.draft/.staging/*/*.staged"))


def test_both_sinks_make_two_artifacts_and_the_same_command_again_does_nothing(
    tmp_path: Path, workspace: Workspace
) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=2)
    seen: list[tuple[int, int]] = []
    first = run(raw, workspace, on_progress=lambda done, total: seen.append((done, total)))
    assert [record.kind for record in first.records] == ["episodes", "frames"]
    assert seen == [(1, 2), (2, 2)]
    assert (first.num_episodes, first.num_frames, first.already_there) == (2, 41, False)
    again = run(raw, workspace)
    assert again.already_there
    assert fingerprints(again) == fingerprints(first)


def test_a_bad_episode_becomes_a_row_and_the_others_go_on(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", bad=(2,))
    (raw / "episode_1.hdf5").write_bytes((raw / "episode_1.hdf5").read_bytes()[:3000])  # cut off while copying
    report = run(raw, workspace, max_rejected=0.5)
    assert [row.episode for row in report.rejected] == ["episode_1.hdf5", "episode_2.hdf5"]
    assert "cam_low" in report.rejected[1].reason
    assert "19" in report.rejected[1].reason or "22" in report.rejected[1].reason
    episodes = EpisodeSet.open(workspace, REF)
    assert [episodes.row(name).metadata["raw_name"] for name in episodes.ids()] == ["episode_0.hdf5", "episode_3.hdf5"]


def test_too_many_rejected_stop_the_run_and_a_higher_limit_goes_on(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", bad=(1, 2, 3))
    with pytest.raises(RejectedError, match=r"3 of 4 episodes were rejected \(3: .*cam_low.*--max-rejected 100%"):
        run(raw, workspace)
    assert not workspace.path("episodes", REF).exists()
    [marker] = markers(workspace, "episodes")
    written = marker.stat().st_mtime_ns
    left = marker.parents[2] / "videos" / "left-by-a-killed-commit.mp4"
    left.parent.mkdir()
    left.write_bytes(b"half")
    stamps: list[int] = []
    run(raw, workspace, max_rejected=1.0, on_progress=lambda *_: stamps.append(marker.stat().st_mtime_ns))
    assert set(stamps) == {written}  # the good episode was not staged again
    episodes = EpisodeSet.open(workspace, REF)
    assert len(episodes.ids()) == 1
    assert not [row.path for row in episodes.record.files if "killed" in row.path or "staging" in row.path]


def test_nothing_left_is_an_error_whatever_is_allowed(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=2, bad=(0, 1))
    with pytest.raises(RejectedError, match="2 of 2 episodes were rejected"):
        run(raw, workspace, max_rejected=1.0)


def test_an_episode_of_another_size_does_not_get_into_the_dataset(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw")
    raw_files.write_aloha_episode(raw / "episode_2.hdf5", height=32, width=32)
    report = run(raw, workspace, max_rejected=0.25)
    assert [row.episode for row in report.rejected] == ["episode_2.hdf5"]
    assert "32x32" in report.rejected[0].reason


def test_an_existing_version_with_another_recipe_is_refused(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=1)
    run(raw, workspace, sink="lerobot")
    with pytest.raises(ArtifactError, match=r"exists and was made differently .*Choose a new version, e.g. tiny@2"):
        run(raw, workspace, sink="lerobot", encoding=VideoEncoding(crf=40))


def test_a_rig_that_does_not_fit_stops_the_run(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(5,))
    with pytest.raises(RigError):
        run(raw, workspace)


def test_fingerprints_do_not_depend_on_workers_or_place(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw")
    one = run(raw, workspace, workers=1)
    moved = tmp_path / "elsewhere" / "raw"
    moved.parent.mkdir()
    raw.rename(moved)
    other = run(moved, Workspace.at(tmp_path / "other"), Ref("renamed", "7"), workers=2)
    assert fingerprints(one) == fingerprints(other)


def test_one_changed_number_changes_the_fingerprint(tmp_path: Path, workspace: Workspace) -> None:
    import h5py

    raw = write_raw(tmp_path / "raw", num_episodes=1)
    one = run(raw, workspace)
    with h5py.File(raw / "episode_0.hdf5", "r+") as file:
        file["action"][3, 2] += 1e-3
    other = run(raw, workspace, Ref("tiny", "2"))
    assert all(before != after for before, after in zip(fingerprints(one), fingerprints(other), strict=True))


def test_a_killed_convert_resumes_to_the_same_fingerprint(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=8, num_frames=40, height=240, width=320)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dataengine.convert import convert\n"
        "from dataengine.workspace import Workspace\n"
        "from schemas.refs import Ref\n"
        "convert(source_path=Path(sys.argv[1]), to=Ref('tiny', '1'), workspace=Workspace.at(sys.argv[2]),"
        " rig='aloha_sim', workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(raw), str(workspace.root)], cwd=ROOT)
    deadline = time.monotonic() + 240
    while len(staged := markers(workspace, "frames")) < 3:
        assert process.poll() is None, "the conversion ended before it could be killed"
        assert time.monotonic() < deadline, "nothing was staged"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not workspace.path("episodes", REF).exists()
    kept = {path: path.stat().st_mtime_ns for path in staged}
    seen: list[int] = []

    def note(done: int, _: int) -> None:
        seen.append(done)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept

    resumed = run(raw, workspace, on_progress=note)
    assert 0 < len(seen) <= 8 - len(kept)
    unbroken = run(raw, Workspace.at(tmp_path / "other"))
    assert fingerprints(resumed) == fingerprints(unbroken)


def test_uneven_stamps_are_kept_beside_episodes_that_have_none(tmp_path: Path, workspace: Workspace) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = raw_files.write_lerobot_v21(tmp_path / "raw", lengths=(10, 12))
    path = raw / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(path)
    uneven = (np.arange(12) / 30 + np.linspace(0, 0.01, 12)).astype(np.float32)
    pq.write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(uneven)), path)
    report = convert(source_path=raw, to=REF, workspace=workspace, rig=None)
    assert not report.rejected
    episodes = EpisodeSet.open(workspace, REF)
    even_id, uneven_id = episodes.ids()
    assert episodes.recorded_stamps_ns(even_id) == {}
    np.testing.assert_allclose(episodes.recorded_stamps_ns(uneven_id)["timestamp"] / 1e9, uneven, atol=1e-8)
    assert set(episodes.columns(uneven_id)) == {"observation.state", "action"}


def test_reasoning_found_in_the_raw_data_is_kept(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_folder(
        tmp_path / "raw", num_episodes=2, num_frames=6, substep_reasonings=[f"step {index}" for index in range(6)]
    )
    run(raw, workspace, sink="lerobot")
    episodes = EpisodeSet.open(workspace, REF)
    assert episodes.imported(episodes.ids()[1])["substep_reasonings"] == tuple(f"step {index}" for index in range(6))


def test_a_dry_run_estimates_and_writes_nothing(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw")
    report = run(raw, workspace, dry_run=True)
    assert report.estimate is not None
    assert report.estimate.num_frames == 20 + 21 + 22 + 23
    assert report.estimate.hours == pytest.approx(86 / 50 / 3600)
    assert 10_000 < report.estimate.disk_bytes < 10_000_000
    assert not workspace.root.exists()


def test_senseless_arguments_are_refused(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=1)
    with pytest.raises(UsageError, match="between 0 and 1"):
        run(raw, workspace, max_rejected=10)
    with pytest.raises(UsageError, match="too small"):
        run(raw, workspace, frame_size=(4, 4))
    with pytest.raises(UsageError, match="Did you mean 'libx26"):
        VideoEncoding(codec="libx246")
    with pytest.raises(UsageError, match="libx264 has no preset '12'"):
        VideoEncoding(codec="libx264")


def test_a_kill_between_the_two_artifacts_goes_on_with_the_second(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=2)
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from dataengine import convert\n"
        "from dataengine.workspace import Workspace\n"
        "from schemas.refs import Ref\n"
        "convert.zarr_frames.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "convert.convert(source_path=Path(sys.argv[1]), to=Ref('tiny', '1'), workspace=Workspace.at(sys.argv[2]),"
        " rig='aloha_sim', workers=1)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(raw), str(workspace.root)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not workspace.path("frames", REF).exists()
    record = workspace.path("episodes", REF) / "record.json"
    written = {path: path.stat().st_mtime_ns for path in (record, *markers(workspace, "frames"))}
    assert len(written) == 3
    stamps: list[int] = []
    again = run(raw, workspace, on_progress=lambda *_: stamps.append(1))
    assert not again.already_there
    assert not stamps  # both episodes were staged already
    assert record.stat().st_mtime_ns == written[record]
    assert fingerprints(again) == fingerprints(run(raw, Workspace.at(tmp_path / "other")))


def test_real_g1_recordings_without_video_stop_the_run_then_arrive_as_six(samples: Path, workspace: Workspace) -> None:
    raw, ref = samples / "g1_inspire_v21", Ref("g1", "1")
    with pytest.raises(
        RejectedError, match=r"^94 of 100 episodes were rejected \(94: .*missing, e.g. episode_000000\)"
    ):
        convert(source_path=raw, to=ref, workspace=workspace, rig="g1_inspire", sink="lerobot")
    report = convert(source_path=raw, to=ref, workspace=workspace, rig="g1_inspire", sink="lerobot", max_rejected=1.0)
    assert (report.num_episodes, len(report.rejected)) == (6, 94)
    assert all("missing" in row.reason for row in report.rejected)
    videos = sorted((raw / "videos/chunk-000/observation.images.cam_high").glob("*.mp4"))
    shards = sorted((workspace.path("episodes", ref) / "videos").rglob("*.mp4"))
    assert [one for path in shards for one in packets(path)] == [one for path in videos for one in packets(path)]


def packets(path: Path) -> list[bytes]:
    import av

    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


@pytest.mark.slow
def test_real_pusht_converts_whole(samples: Path, workspace: Workspace) -> None:
    from dataengine.verification import verify

    raw, ref = samples / "pusht_zarr", Ref("pusht", "1")
    report = convert(source_path=raw, to=ref, workspace=workspace, rig="pusht")
    assert (report.num_episodes, report.num_frames, len(report.rejected)) == (206, 25_650, 0)
    assert EpisodeSet.open(workspace, ref).rate_hz == 10
    checked = verify(source_path=raw, ref=ref, workspace=workspace)
    assert checked.ok, [row for row in checked.rows if not row.ok]


def test_a_renamed_copy_of_a_recording_is_no_second_demonstration(tmp_path: Path, workspace: Workspace) -> None:
    raw = tmp_path / "raw"
    first = raw_files.write_aloha_episode(raw / "episode_0.hdf5", num_frames=12, seed=1)
    raw_files.write_aloha_episode(raw / "episode_1.hdf5", num_frames=12, seed=2)
    shutil.copy(first, raw / "episode_2_copy.hdf5")
    report = convert(source_path=raw, to=REF, workspace=workspace, rig="aloha", sink="zarr", max_rejected=0.5)
    assert report.num_episodes == 2
    assert [row.reason for row in report.rejected] == [
        "episode_2_copy.hdf5: the same content as episode_0.hdf5. Remove the copy."
    ]


def test_the_one_reason_for_a_stopped_run_is_said_whole(tmp_path: Path, workspace: Workspace) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=3, bad=(1,))
    with pytest.raises(RejectedError, match="camera 'cam_low' has 20 frames for 21 rows") as caught:
        run(raw, workspace, sink="zarr")
    assert "1 of 3 episodes were rejected (episode_1.hdf5: " in str(caught.value)


def test_words_that_would_have_no_effect_are_refused(tmp_path: Path, workspace: Workspace) -> None:
    raw = raw_files.write_aloha_episode(tmp_path / "raw" / "episode_0.hdf5", num_frames=12).parent
    with pytest.raises(UsageError, match="--sink zarr does not make"):
        convert(source_path=raw, to=REF, workspace=workspace, rig="aloha", sink="zarr", encoding=VideoEncoding(g=4))
    with pytest.raises(UsageError, match="--sink lerobot does not make"):
        convert(source_path=raw, to=REF, workspace=workspace, rig="aloha", sink="lerobot", frame_size=(64, 48))


def test_a_raw_file_touched_between_a_kill_and_the_next_run_is_staged_again(
    tmp_path: Path, workspace: Workspace
) -> None:
    raw = write_raw(tmp_path / "raw", num_episodes=3, bad=(1,))
    with pytest.raises(RejectedError):  # two are staged, their pictures still in the raw files
        run(raw, workspace, sink="zarr")
    os.utime(raw / "episode_0.hdf5")
    again = run(raw, workspace, sink="zarr", max_rejected=0.5)
    fresh = run(raw, Workspace.at(tmp_path / "fresh"), sink="zarr", max_rejected=0.5)
    assert fingerprints(again) == fingerprints(fresh)
