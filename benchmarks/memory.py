"""Peak memory of a conversion's worker over one episode of an hour: 50 Hz, two cameras of 64x48 JPEGs.

The episode is written by plain h5py calls. Memory is the kernel's own high-water mark of resident pages of each
process, so that no short peak is missed.
"""

import io
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from benchmarks.figures import Figure, report

ROOT = Path(__file__).resolve().parent.parent
HOUR_FRAMES = 3600 * 50
CAMERAS = ("cam_high", "cam_low")
_LIMIT_MB = 1000
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Largest resident memory, in MB, of any worker and of the command itself, and what it took."""

    worker_mb: float
    driver_mb: float
    seconds: float


def write_long_episode(path: Path, num_frames: int) -> Path:
    """One ALOHA/DexVLA HDF5 of `num_frames` rows at 50 Hz, every picture different, padded as recorders pad."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (48, 64, 3), np.uint8) // 4
    with h5py.File(path, "w") as file:
        file.attrs["sim"] = True
        file.attrs["compress"] = True
        clock = np.arange(num_frames, dtype=np.float32)[:, None] / 50
        for key, shift in (("observations/qpos", 0.0), ("observations/qvel", 0.1), ("action", 0.2)):
            file[key] = np.sin(clock + shift + np.arange(14, dtype=np.float32)) * 0.5
        longest = 2000
        lengths = np.zeros((len(CAMERAS), num_frames), np.float32)
        for row, camera in enumerate(CAMERAS):
            shape = (num_frames, longest)
            images = file.create_dataset(f"observations/images/{camera}", shape, np.uint8, chunks=(1, longest))
            for first in range(0, num_frames, _BLOCK):
                block = np.zeros((min(_BLOCK, num_frames - first), longest), np.uint8)
                for index in range(len(block)):
                    jpeg = _jpeg(base, first + index)
                    block[index, : len(jpeg)] = np.frombuffer(jpeg, np.uint8)
                    lengths[row, first + index] = len(jpeg)
                images[first : first + len(block)] = block
        file["compress_len"] = lengths
        file["language_raw"] = [b"Put the card on the ledge."]
    rows = f"file,licence\n{path.name},CC-BY-4.0\n"
    (path.parent / "metadata.csv").write_text(rows)
    return path


def _jpeg(base: NDArray[np.uint8], number: int) -> bytes:
    picture = base.copy()
    picture[:, number % 64] = (number // 64) % 256
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=75)
    return buffer.getvalue()


def convert_peaks(raw: Path, workspace: Path, *, sink: str = "both") -> Peaks:
    """Run the real command over `raw` with one worker and watch its processes."""
    words = ["convert", str(raw), "--rig", "aloha_sim", "--to", "hour@1", "--sink", sink, "--workers", "1", "--json"]
    command = [sys.executable, "-m", "apps", *words, "--workspace", str(workspace)]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    marks: dict[int, float] = {}
    driver = 0.0
    while process.poll() is None:
        driver = max(driver, _high_water_mb(process.pid))
        for child in _workers(process.pid):
            marks[child] = max(marks.get(child, 0.0), _high_water_mb(child))
        time.sleep(0.25)
    told = process.stdout.read() if process.stdout else ""
    if process.returncode != 0:
        raise RuntimeError(f"the conversion ended with {process.returncode}: {told[-2000:]}")
    return Peaks(worker_mb=max(marks.values()), driver_mb=driver, seconds=time.monotonic() - start)


def _workers(driver: int) -> list[int]:
    try:
        children = psutil.Process(driver).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in children:
        try:
            if " ".join(child.cmdline()[:1]).startswith(("ray::_isolated", "ray::IDLE")):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def _high_water_mb(pid: int) -> float:
    try:
        status = (Path("/proc") / str(pid) / "status").read_text()
    except OSError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024 / 1e6


def measure(quick: bool) -> list[Figure]:
    """The same code over a minute, and over an hour."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_long_episode(root / "minute" / "episode_0.hdf5", 3000)
        minute = convert_peaks(root / "minute", root / "w1")
        long = minute
        if not quick:
            write_long_episode(root / "hour" / "episode_0.hdf5", HOUR_FRAMES)
            long = convert_peaks(root / "hour", root / "w2")
    length = "one minute" if quick else "one hour"
    return [
        Figure(
            figure=f"peak memory of a worker, {length} at 50 Hz, two cameras",
            ours=long.worker_mb,
            peer=minute.worker_mb,
            peer_name="one minute",
            unit="MB",
            repeats=1,
            reach=f"under {_LIMIT_MB} MB",
            note=f"{long.seconds:.0f} s with one worker, start included",
        ),
        Figure(
            figure=f"peak memory of the command itself, {length}",
            ours=long.driver_mb,
            peer=minute.driver_mb,
            peer_name="one minute",
            unit="MB",
            repeats=1,
        ),
    ]


if __name__ == "__main__":
    report("memory", measure, __doc__)
