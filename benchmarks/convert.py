"""Converting: camera-frames, bytes and rows per second beside LeRobot's own writer, the bare encoder, `cp` and
forge-robotics, on data made here (and PushT, where the sample data is).

Ours and the peer take turns, start-up (Ray, imports, environments) is left out, medians are told.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import convert_bounds, convert_data, convert_stages, forge_peer
from benchmarks.figures import Figure, report
from benchmarks.lerobot_peer import write_lerobot
from dataengine.convert import convert
from dataengine.sinks.lerobot_v3 import commit
from dataengine.sinks.packets import Clip, join_clips, scan_video
from dataengine.sinks.staging import StageVideos, load_staged
from dataengine.sinks.staging_writer import stage_episode
from dataengine.sinks.video_encoding import VideoEncoding
from dataengine.workspace import Workspace
from schemas.refs import Ref

ENCODING = VideoEncoding()
_FORGE_LIMIT_S = 900.0


def _group(work: Callable[[Path, bool], list[Figure]]) -> Callable[[bool], list[Figure]]:
    """One group of rows, in a folder of its own, with Ray and its workers started before anything is timed."""

    def measure(quick: bool) -> list[Figure]:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ["SVT_LOG"] = "1"
        with tempfile.TemporaryDirectory(prefix="convert-bench-") as name:
            _warm_up(Path(name) / "warm")
            return work(Path(name) / "work", quick)

    return measure


def _rounds(
    sides: dict[str, Callable[[Path], object]], folder: Path, repeats: int, *, forgotten: Sequence[Path] = ()
) -> dict[str, float]:
    """Median seconds of each side; every one writes into a folder of its own, removed after its turn.

    `forgotten` files have to be read from the disk by each of them.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(repeats + 1):
        for name, side in sides.items():
            place = folder / f"{name.replace(' ', '_')}-{number}"
            place.mkdir(parents=True)
            os.sync()  # what the side before left unwritten would be paid for by this one
            convert_data.forget(forgotten)
            start = time.perf_counter()
            side(place)
            spent = time.perf_counter() - start
            shutil.rmtree(place)
            if number:  # the first round imports, opens and fills caches
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def _convert(raw: Path, place: Path, *, sink: str, rig: str | None = None, workers: int | None = None) -> None:
    done = convert(
        source_path=raw,
        to=Ref("bench", "1"),
        workspace=Workspace.at(place),
        rig=rig,
        sink="zarr" if sink == "zarr" else "lerobot",
        workers=workers,
    )
    if done.rejected:
        raise RuntimeError(f"{len(done.rejected)} episodes were rejected: {done.rejected[0].reason}")


def _warm_up(folder: Path) -> None:
    """Ray and its workers are there before anything is timed."""
    raw, rig = convert_data.numbers(folder / "raw", num_episodes=4, num_frames=20)
    for number in range(2):
        _convert(raw, folder / str(number), sink="lerobot", rig=str(rig))


def _encoding(folder: Path, quick: bool) -> list[Figure]:
    num_episodes, num_frames, repeats = (2, 40, 1) if quick else (4, 100, 3)
    episodes = convert_data.in_memory(num_episodes, num_frames)
    frames = num_episodes * num_frames * len(convert_data.CAMERAS)

    def ours(place: Path) -> None:
        staging = place / "staging"
        staging.mkdir()
        job = StageVideos(root=staging, encoding=ENCODING, encoder_threads=None)
        rig = convert_data.rig_in_memory()
        for episode in episodes:
            stage_episode(episode, episode.meta.raw_name, rig, (job,), stamp="")
        staged = [row for episode in episodes if (row := load_staged(staging, episode.meta.raw_name))]
        commit(place / "dataset", staged, rig, ENCODING)
        written = convert_data.count_pictures(place / "dataset")
        if written != frames:
            raise RuntimeError(f"{written} of {frames} camera-frames were written")

    lost: dict[str, int] = {}

    def lerobot(place: Path, *, streaming: bool) -> None:
        write_lerobot(place / "dataset", episodes, streaming=streaming)
        lost["streaming" if streaming else "default"] = frames - convert_data.count_pictures(place / "dataset")

    sides: dict[str, Callable[[Path], object]] = {
        "ours": ours,
        "bare": lambda place: convert_data.encode_bare(place, episodes, ENCODING),
        "streaming": lambda place: lerobot(place, streaming=True),
        "default": lambda place: lerobot(place, streaming=False),
    }
    rate = {name: frames / seconds for name, seconds in _rounds(sides, folder, repeats).items()}
    peers = (
        ("default", "LeRobot 0.6.1 add_frame/save_episode", "4", f"LeRobot lost {lost['default']} frames"),
        ("streaming", "LeRobot 0.6.1 streaming_encoding", "1.25", f"LeRobot lost {lost['streaming']} frames"),
        ("bare", "bare PyAV, arrays in memory", "0.92", "the limit of anything that encodes"),
    )
    setting = f"{ENCODING.codec} g={ENCODING.g} crf={ENCODING.crf} preset {ENCODING.preset}, 640x480, 2 cameras; "
    return [
        Figure(
            figure=f"encoding beside {label}",
            ours=rate["ours"],
            peer=rate[name],
            peer_name=label,
            unit="camera-frames/s",
            repeats=repeats,
            reach=reach,
            note=setting + "ours lost none; " + note,
        )
        for name, label, reach, note in peers
    ]


def _copying(folder: Path, quick: bool) -> list[Figure]:
    num_episodes, repeats = (4, 2) if quick else (16, 9)
    raw = convert_data.lerobot_v21(folder / "raw", num_episodes=num_episodes)
    paths = sorted(raw.rglob("*.mp4"))
    megabytes = sum(path.stat().st_size for path in paths) / 1e6

    def join(place: Path) -> None:
        """As the command does: videos are scanned on every core, and several shards are written at once."""
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            scans = list(pool.map(partial(scan_video, rate_hz=convert_data.RATE_HZ), paths))
            clips = [
                Clip(path=path, num_frames=scan.num_frames, content=scan.content, file_stat=scan.file_stat)
                for path, scan in zip(paths, scans, strict=True)
            ]
            delay = max(scan.delay for scan in scans)
            parts = [clips[number : number + 8] for number in range(0, len(clips), 8)]
            targets = [place / f"{number}.mp4" for number in range(len(parts))]
            list(pool.map(partial(join_clips, rate_hz=convert_data.RATE_HZ, delay=delay), parts, targets))

    sides: dict[str, Callable[[Path], object]] = {
        "ours": join,
        "whole": lambda place: _convert(raw, place, sink="lerobot"),
        "cp": lambda place: convert_data.copy_files(paths, place),
    }
    rate = {name: megabytes / seconds for name, seconds in _rounds(sides, folder, repeats).items()}
    size = f"{len(paths)} mp4 files of {megabytes / len(paths):.1f} MB"
    return [
        Figure(
            figure="mp4 stream copy: packets hashed, tables joined, all cores",
            ours=rate["ours"],
            peer=rate["cp"],
            peer_name="cp of the same files",
            unit="MB/s",
            repeats=repeats,
            reach="0.65",
            note=size,
        ),
        Figure(
            figure="mp4 dataset, the whole command",
            ours=rate["whole"],
            peer=rate["cp"],
            peer_name="cp of the same files",
            unit="MB/s",
            repeats=repeats,
            note=f"{size}; with raw hashes, statistics from decoded keyframes, sha256 and fsync of what is published",
        ),
    ]


def _jpegs(folder: Path, quick: bool) -> list[Figure]:
    """Two rows, because no published artifact can be as fast as a bare `cp`.

    `cp` leaves its copies in memory; an artifact is on the disk, and its record holds every file's sha256. Those two
    alone take longer than `cp` does. So what reads, checks and writes pictures stands beside `cp`, and the whole
    command beside `cp` with the same guarantees.
    """
    num_episodes, num_frames, repeats = (4, 100, 2) if quick else (16, 400, 9)
    raw = convert_data.aloha(folder / "raw", num_episodes=num_episodes, num_frames=num_frames)
    paths = sorted(raw.glob("*.hdf5"))
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    sides: dict[str, Callable[[Path], object]] = {
        "shards": lambda place: convert_stages.write_shards(raw, place),
        "cp": lambda place: convert_data.copy_files(paths, place),
        "whole": lambda place: _convert(raw, place, sink="zarr", rig="aloha_sim"),
        "durable": lambda place: convert_data.copy_durably(paths, place),
    }
    rate = {name: megabytes / seconds for name, seconds in _rounds(sides, folder, repeats).items()}
    cold = _rounds({name: sides[name] for name in ("shards", "cp")}, folder, repeats // 2, forgotten=paths)
    size = f"{megabytes:.0f} MB, 640x480, 2 cameras, every frame checked; all cores"
    return [
        Figure(
            figure="JPEG HDF5 to zarr store, frames checked and written into shards",
            ours=rate["shards"],
            peer=rate["cp"],
            peer_name="cp of the same files",
            unit="MB/s",
            repeats=repeats,
            reach="0.8",
            note=f"{size}; not yet published",
        ),
        Figure(
            figure="JPEG HDF5 to zarr store, checked and written, raw files on the disk alone",
            ours=megabytes / cold["shards"],
            peer=megabytes / cold["cp"],
            peer_name="cp of the same files",
            unit="MB/s",
            repeats=repeats // 2,
            note=f"{size}; as data larger than memory lies; not yet published",
        ),
        Figure(
            figure="JPEG HDF5 to zarr store, the whole command",
            ours=rate["whole"],
            peer=rate["durable"],
            peer_name="cp of the same files, then fsync and sha256",
            unit="MB/s",
            repeats=repeats,
            note=f"{size}; published with sha256 and fsync; {rate['whole'] / rate['cp']:.2f} of a bare cp",
        ),
    ]


def _forge(folder: Path, quick: bool) -> list[Figure]:
    repeats = 1  # forge alone takes longer than all the rest
    about = {"figure": "PushT zarr to LeRobot v3.0", "peer_name": "forge-robotics 0.2.0", "unit": "frames/s"}
    raw = convert_data.samples() / "pusht_zarr"
    if not raw.is_dir():
        return [
            Figure(**about, ours=0, peer=None, repeats=0, reach="5", note="sample data is absent: nothing measured")
        ]
    frames = convert_data.num_pusht_frames(raw)
    ours = _rounds({"ours": lambda place: _convert(raw, place, sink="lerobot", rig="pusht")}, folder, repeats)
    rate = frames / ours["ours"]
    peer = forge_peer.seconds(raw, folder / "forge", repeats=repeats, limit_s=_FORGE_LIMIT_S)
    if isinstance(peer, str):
        return [Figure(**about, ours=rate, peer=None, repeats=repeats, reach="5", note=peer)]
    note = f"{frames} frames of 96x96; forge's own time inside its process; each its default codec"
    if peer >= _FORGE_LIMIT_S:
        note = f"{note}; forge was stopped after {peer:.0f} s, so it is slower than this and the ratio larger"
    return [Figure(**about, ours=rate, peer=frames / peer, repeats=repeats, reach="5", note=note)]


def _numbers(folder: Path, quick: bool) -> list[Figure]:
    num_episodes, num_frames, repeats = (40, 300, 1) if quick else (400, 400, 5)
    raw, rig = convert_data.numbers(folder / "raw", num_episodes=num_episodes, num_frames=num_frames)
    few = 4 if quick else 10
    sides: dict[str, Callable[[Path], object]] = {
        "2": lambda place: _convert(raw, place, sink="lerobot", rig=str(rig), workers=2),
        "1": lambda place: _convert(raw, place, sink="lerobot", rig=str(rig), workers=1),
        "lerobot": lambda place: write_lerobot(
            place / "dataset", convert_data.in_memory(few, num_frames, cameras=False), streaming=False
        ),
    }
    seconds = _rounds(sides, folder, repeats)
    rows = num_episodes * num_frames
    note = f"{num_episodes} episodes of {num_frames} rows, 2 features of 14; with statistics"
    return [
        Figure(
            figure="numeric-only episodes, 2 workers beside 1",
            ours=rows / seconds["2"],
            peer=rows / seconds["1"],
            peer_name="1 worker",
            unit="rows/s",
            repeats=repeats,
            reach="1.7",
            note=note,
        ),
        Figure(
            figure="numeric-only episodes beside LeRobot",
            ours=rows / seconds["2"],
            peer=few * num_frames / seconds["lerobot"],
            peer_name="LeRobot 0.6.1 add_frame/save_episode",
            unit="rows/s",
            repeats=repeats,
            reach="50",
            note=f"{note}; LeRobot writes {few} such episodes from memory",
        ),
    ]


def _bounds(folder: Path, quick: bool) -> list[Figure]:
    """Why two of the figures above are no larger: what is left once nothing but the necessary work is done.

    Every side that is beside `cp` writes as much as it: who writes after something small pays for fresh pages.
    """
    num_episodes, num_frames, repeats = (4, 100, 2) if quick else (16, 400, 9)
    raw = convert_data.aloha(folder / "raw", num_episodes=num_episodes, num_frames=num_frames)
    paths, places = sorted(raw.glob("*.hdf5")), convert_bounds.places_in(raw)
    megabytes = sum(path.stat().st_size for path in paths) / 1e6
    numbers, rig = convert_data.numbers(folder / "numbers", num_episodes=40 if quick else 400, num_frames=400)
    with convert_bounds.Workers() as workers:
        copies = _rounds(
            {
                "cp": lambda place: convert_data.copy_files(paths, place),
                "two": lambda place: workers.passes(places, place, separate=True),
                "one": lambda place: workers.passes(places, place, separate=False),
            },
            folder,
            repeats,
        )
        halves = _rounds(
            {
                "loop 2": lambda _: workers.loops(2),
                "loop 1": lambda _: workers.loops(1),
                "stage 2": lambda place: convert_stages.stage_numbers(numbers, rig, place, workers=2),
                "stage 1": lambda place: convert_stages.stage_numbers(numbers, rig, place, workers=1),
            },
            folder,
            repeats,
        )
    passes = {"two": "two passes as a conversion does them", "one": "one pass"}
    return [
        *(
            Figure(
                figure=f"JPEGs checked, hashed and copied, two bare processes, {words}",
                ours=megabytes / copies[name],
                peer=megabytes / copies["cp"],
                peer_name="cp of the same files",
                unit="MB/s",
                repeats=repeats,
                note=f"{megabytes:.0f} MB; no HDF5, no Ray, no store: a limit",
            )
            for name, words in passes.items()
        ),
        Figure(
            figure="numeric-only episodes, opened and staged alone, 2 workers beside 1",
            ours=1 / halves["stage 2"],
            peer=1 / halves["stage 1"],
            peer_name="1 worker",
            unit="runs/s",
            repeats=repeats,
            note="what workers do; the rest of the command is one process",
        ),
        Figure(
            figure="a loop of Python, 2 processes beside 1",
            ours=2 / halves["loop 2"],
            peer=1 / halves["loop 1"],
            peer_name="1 process",
            unit="loops/s",
            repeats=repeats,
            note="what a second process of this machine is worth",
        ),
    ]


if __name__ == "__main__":
    works = {
        "encoding": _encoding,
        "copying": _copying,
        "jpegs": _jpegs,
        "forge": _forge,
        "numbers": _numbers,
        "bounds": _bounds,
    }
    report("convert", {name: _group(work) for name, work in works.items()}, __doc__)
