"""What breaks under a conversion: kills at any moment, a disk that fills up, files that can not be read."""

import logging
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
import raw_files

from dataengine.convert import Sink, convert
from dataengine.workspace import Workspace, read_record
from schemas.errors import ArtifactError, RejectedError
from schemas.refs import Ref

ROOT = Path(__file__).resolve().parents[2]
REF = Ref("tiny", "1")
NUM_EPISODES = 10


def command(raw: Path, root: Path, *, workers: int = 2) -> list[str]:
    words = ["convert", str(raw), "--rig", "aloha_sim", "--to", str(REF), "--workspace", str(root)]
    return [sys.executable, "-m", "apps", *words, "--workers", str(workers)]


def run(raw: Path, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(raw, root), cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)


def fingerprints(root: Path) -> tuple[str, str]:
    return (read_record(root / f"episodes/{REF}").fingerprint, read_record(root / f"frames/{REF}").fingerprint)


def staged(root: Path) -> int:
    return len(list(root.glob("*/.*.draft/.staging/*/*.staged")))


def assert_one_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ArtifactError: "), last
    for word in words:
        assert word in last


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "raw"
    return raw_files.write_aloha_folder(folder, num_episodes=NUM_EPISODES, num_frames=40, height=240, width=320)


@pytest.fixture(scope="module")
def unbroken(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, str], float]:
    """Fingerprints of a run that nothing disturbed, and the seconds from its first staged episode to its end."""
    root = tmp_path_factory.mktemp("unbroken")
    process = subprocess.Popen(command(raw, root), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (root / "episodes").is_dir():
        time.sleep(0.01)
    start = time.monotonic()
    assert process.wait(timeout=400) == 0
    return fingerprints(root), time.monotonic() - start


def is_over(process: psutil.Process) -> bool:
    """Whether it has ended; where nobody collects orphans, it stays in the list of processes."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ray_workers(driver: int) -> list[psutil.Process]:
    """Processes that do, or wait for, the driver's tasks; Ray's own agents are named alike, but are no workers."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if " ".join(process.cmdline()[:1]).startswith(("ray::_isolated", "ray::IDLE")):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_at(raw: Path, root: Path, victim: str, wait_s: float, rng: random.Random) -> int | None:
    """Begin a conversion and kill it, or one of its workers, `wait_s` after it begins to write.

    Returns the exit status of the command.
    """
    told = root / "told.txt"
    with told.open("w") as out:
        process = subprocess.Popen(command(raw, root), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while not (root / "episodes").is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait_s)
    if process.poll() is None:
        if victim == "driver":
            process.kill()
        elif workers := ray_workers(process.pid):
            rng.choice(workers).kill()
    try:
        return process.wait(timeout=500)
    except subprocess.TimeoutExpired:
        spy = str(Path(sys.executable).with_name("py-spy"))
        stacks = [
            subprocess.run([spy, "dump", "--pid", str(pid)], capture_output=True, text=True, check=False).stdout
            for pid in (process.pid, *(worker.pid for worker in ray_workers(process.pid)))
        ]
        raise AssertionError("\n".join(["it hangs", told.read_text()[-2000:], *stacks])) from None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("point", range(20))
def test_a_kill_at_a_random_point_changes_nothing(
    point: int, raw: Path, unbroken: tuple[tuple[str, str], float], tmp_path: Path
) -> None:
    """Even points kill the command itself, odd ones a worker, which the run survives on its own."""
    wanted, seconds = unbroken
    rng = random.Random(point)
    victim, wait_s = ("driver", "worker")[point % 2], rng.uniform(0, seconds)
    status = kill_at(raw, tmp_path, victim, wait_s, rng)
    where = f"{victim} killed after {wait_s:.2f} of {seconds:.2f} s, {staged(tmp_path)} markers, exit {status}"
    if victim == "worker":
        assert status == 0, where
    done = run(raw, tmp_path)
    assert done.returncode == 0, f"{where}: {done.stderr[-2000:]}"
    assert fingerprints(tmp_path) == wanted
    for kind in ("episodes", "frames"):
        assert sorted(path.name for path in (tmp_path / kind).iterdir()) == [f".{REF}.lock", str(REF)]
        assert read_record(tmp_path / kind / str(REF)).rejected == ()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_command_leaves_no_process_behind(raw: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(raw, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while staged(tmp_path) < 2 and process.poll() is None:
        time.sleep(0.01)
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    # Ray's agents notice that their parent died, and then wait up to a minute for a server that died with it.
    gone, alive = psutil.wait_procs(family, timeout=180)
    assert len(gone) >= 2
    assert [child.pid for child in alive if not is_over(child)] == []


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A tmpfs of its own; needs the right to mount."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"this user can not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, words: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{words}", str(folder)], check=True)


def used_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).used


@pytest.fixture(scope="module")
def peak_bytes(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The most that a run takes on the disk: looked at all the time, because how much is staged twice may change."""
    root = tmp_path_factory.mktemp("peak") / "disk"
    with small_disk(root, kilobytes=512 << 10):
        process = subprocess.Popen(command(raw, root), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        most = 0
        while process.poll() is None:
            most = max(most, used_bytes(root))
            time.sleep(0.002)
        assert process.returncode == 0
    return most


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("share", [0.3, 0.8, 0.97])
def test_a_full_disk_is_one_sentence_and_the_run_goes_on_once_there_is_space(
    share: float, raw: Path, unbroken: tuple[tuple[str, str], float], peak_bytes: int, tmp_path: Path
) -> None:
    """The disk fills up while episodes are staged, near the end of that, or while the artifacts are written."""
    root = tmp_path / "disk"
    with small_disk(root, kilobytes=int(peak_bytes * share) // 1024):
        done = run(raw, root)
        assert_one_sentence(done, "No space left on device", "run the same command again")
        kept = staged(root)
        remount(root, "size=512m")
        done = run(raw, root)
        assert done.returncode == 0, done.stderr[-2000:]
        assert fingerprints(root) == unbroken[0]
        assert kept > 0 or share < 0.5
        assert f"going on with {kept // 2}" in done.stderr or kept < 2 or "going on" not in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_read_only_workspace_is_one_sentence_and_the_run_goes_on_once_it_can_be_written(
    raw: Path, unbroken: tuple[tuple[str, str], float], tmp_path: Path
) -> None:
    """It is so while still empty, and again when eight of ten episodes are staged: two cut-off ones stop the run."""
    mine, root = tmp_path / "raw", tmp_path / "disk"
    shutil.copytree(raw, mine)
    cut = [mine / f"episode_{index}.hdf5" for index in (3, 7)]
    for path in cut:
        path.write_bytes(path.read_bytes()[:2000])
    with small_disk(root, kilobytes=512 << 10):
        remount(root, "ro")
        assert_one_sentence(run(mine, root), "Read-only file system", "--workspace")
        remount(root, "rw")
        done = run(mine, root)
        assert "RejectedError: 2 of 10 episodes" in done.stderr, done.stderr[-2000:]
        for path in cut:
            shutil.copy(raw / path.name, path)
        kept = staged(root)
        remount(root, "ro")
        assert_one_sentence(run(mine, root), "Read-only file system", "--workspace")
        assert staged(root) == kept == 2 * 8  # for each of the two artifacts
        remount(root, "rw")
        done = run(mine, root)
        assert done.returncode == 0, done.stderr[-2000:]
        assert fingerprints(root) == unbroken[0]


def test_a_workspace_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    small = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=1, num_frames=4)
    (tmp_path / "taken").write_text("not a folder")
    with pytest.raises(ArtifactError, match=r"taken/episodes can not be written \(Not a directory\)\. .*--workspace"):
        convert(source_path=small, to=REF, workspace=Workspace.at(tmp_path / "taken"), rig="aloha_sim")


def test_files_that_can_not_be_read_are_rows_and_the_others_go_on(tmp_path: Path, workspace: Workspace) -> None:
    """A cut-off file, a link to nowhere, a device that fails, an empty file, bytes that are no HDF5; a folder and a
    pipe with an episode's name are no files, and opening the pipe would wait for ever."""
    folder = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=3, num_frames=6)
    broken = {f"episode_{index}.hdf5": folder / f"episode_{index}.hdf5" for index in range(3, 8)}
    paths = list(broken.values())
    paths[0].write_bytes(b"not what its name says" * 100)
    paths[1].write_bytes((folder / "episode_0.hdf5").read_bytes()[:2000])
    paths[2].symlink_to(tmp_path / "unmounted" / "episode_5.hdf5")
    paths[3].symlink_to("/proc/self/mem")  # opens, and fails every read with EIO, as a bad sector does
    paths[4].write_bytes(b"")
    (folder / "episode_8.hdf5").mkdir()
    os.mkfifo(folder / "episode_9.hdf5")
    raw_files.write_metadata_csv(folder, [{"file": f"episode_{index}.hdf5"} for index in range(8)])
    report = convert(
        source_path=folder, to=REF, workspace=workspace, rig="aloha_sim", max_rejected=0.9, sink="zarr", workers=2
    )
    assert report.num_episodes == 3
    reasons = {row.episode: row.reason for row in report.rejected}
    assert set(reasons) == set(broken)
    assert all(reason.startswith(name) for name, reason in reasons.items())
    assert "a link to a file that is not there" in reasons["episode_5.hdf5"]


@pytest.mark.parametrize("sink", ["both", "zarr"])
def test_files_that_can_be_read_again_are_taken_and_the_others_are_not_read_twice(
    sink: Sink, tmp_path: Path, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """A link to a disk that is not mounted and a device that fails; both are whole again for the second run."""
    folder = raw_files.write_aloha_folder(tmp_path / "raw", num_episodes=5, num_frames=6)
    run_it = partial(convert, source_path=folder, to=REF, rig="aloha_sim", sink=sink, workers=2)
    unbroken = run_it(workspace=Workspace.at(tmp_path / "unbroken")).records
    away = tmp_path / "unmounted"
    away.mkdir()
    for name, target in (("episode_1.hdf5", away / "gone.hdf5"), ("episode_4.hdf5", Path("/proc/self/mem"))):
        shutil.move(folder / name, away)
        (folder / name).symlink_to(target)
    with pytest.raises(RejectedError, match="2 of 5 episodes were rejected"):
        run_it(workspace=workspace)
    for path in list(away.iterdir()):
        (folder / path.name).unlink()
        shutil.move(path, folder)
    with caplog.at_level(logging.INFO):
        resumed = run_it(workspace=workspace)
    assert "going on with 3 of 5 episodes already staged" in caplog.text
    assert (resumed.num_episodes, resumed.rejected) == (5, ())
    assert [record.fingerprint for record in resumed.records] == [record.fingerprint for record in unbroken]
