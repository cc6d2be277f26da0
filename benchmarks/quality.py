"""Faults put into good episodes: how many the quality checks find, and how often they cry wolf.

Good episodes are simulated and real ones; `--quick` takes simulated ones alone. Recall counts faults found by the
check they are meant for. False alarms count checks that fail on episodes nobody put a fault into.
"""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, report
from benchmarks.quality_faults import FAULTS, Pictures, Specimen, duplicate_episode, jittered_stamps, multi_rate
from dataengine.quality.checking import judge
from dataengine.quality.facts import EpisodeFacts, measure
from dataengine.quality.limits import QualityLimits
from dataengine.quality.recordings import SAMPLES_HZ, Recording, Recordings, SourceRecordings
from dataengine.quality.rows import Check, QualityRow
from dataengine.quality.thumbnails import thumbnail
from dataengine.quality.usual import usual
from dataengine.rig_files import load_rig
from dataengine.sinks.pictures import pictures
from dataengine.sources import open_source
from schemas.errors import EpisodeError
from schemas.intervals import wilson_interval

_ROOT = Path(__file__).resolve().parent.parent
_REAL = (("g1_inspire_v21", "g1_inspire"), ("pusht_zarr", "pusht"))  # folder of the samples, rig
_MOST = 40  # good episodes of one dataset that faults are put into


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of one check."""

    faults: int = 0
    found: int = 0
    judged: int = 0  # good episodes with a verdict
    alarms: int = 0
    missed: list[str] = field(default_factory=list)


def tally(
    recordings: Recordings, specimens: Sequence[Specimen], *, repeats: int, seed: int, most: int = _MOST
) -> dict[Check, Tally]:
    """Judge good episodes, then the same with one fault in one of them, `repeats` times per check and episode."""
    limits, rig = QualityLimits(), recordings.rig
    good = [measure(specimen.recording, rig, limits) for specimen in specimens]
    counts: dict[Check, Tally] = {check: Tally() for check in (*FAULTS, "duplicate_episode")}
    for row in _worst(judge(good, rig, limits)).values():
        counts[row.check].judged += row.verdict != "unknown"
        counts[row.check].alarms += row.verdict == "fail"
    places = np.unique(np.linspace(0, len(specimens) - 1, min(most, len(specimens))).round().astype(int)).tolist()
    for repeat in range(repeats):
        for place in places:
            random = np.random.default_rng([seed, repeat, place])
            for check, fault in FAULTS.items():
                if check.endswith("camera") and not specimens[place].pictures:
                    continue
                faulty = fault(specimens[place], random)
                if faulty is not None:
                    _count(counts[check], check, good, place, measure(faulty, rig, limits), recordings)
            other = int(random.integers(len(specimens) - 1))
            copy = duplicate_episode(specimens[place], specimens[other + (other >= place)], random)
            _count(
                counts["duplicate_episode"],
                "duplicate_episode",
                good,
                place,
                measure(copy, rig, limits),
                recordings,
                either=other + (other >= place),
            )
    return counts


def _count(
    count: Tally,
    check: Check,
    good: Sequence[EpisodeFacts],
    place: int,
    faulty: EpisodeFacts,
    recordings: Recordings,
    either: int | None = None,
) -> None:
    """Judge the dataset with one episode replaced; of two equal ones the later is the one that is told of."""
    facts = [*good[:place], faulty, *good[place + 1 :]]
    rows = _worst(judge(facts, recordings.rig, QualityLimits()))
    at = {facts[place].episode_id, *([facts[either].episode_id] if either is not None else [])}
    row = next((row for row in rows.values() if row.check == check and row.episode_id in at), None)
    bad = [row for row in rows.values() if row.check == check and row.episode_id in at and row.verdict == "fail"]
    if row is None or row.verdict == "unknown":
        return  # nothing is claimed about this episode
    count.faults += 1
    count.found += bool(bad)
    if not bad:
        count.missed.append(f"{row.episode_id}: {row.value}")


def _worst(rows: Iterable[QualityRow]) -> dict[tuple[Check, str], QualityRow]:
    order = ("unknown", "pass", "fail")
    found: dict[tuple[Check, str], QualityRow] = {}
    for row in rows:
        key = (row.check, row.episode_id)
        if key not in found or order.index(row.verdict) > order.index(found[key].verdict):
            found[key] = row
    return found


def specimens_of(recordings: SourceRecordings, *, most: int, seed: int) -> list[Specimen]:
    """Good episodes, their pictures in memory; stamps are made, because none of the samples records any."""
    names = recordings.names()
    places = np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)).tolist()
    found: list[tuple[Recording, Pictures]] = []
    for place in places:
        try:
            episode = recordings.source.read(names[place])
        except EpisodeError:
            continue
        step = max(1, episode.rate_hz // SAMPLES_HZ)
        kept = {
            key: [(at, picture.rgb()) for at, picture in enumerate(pictures(stream)) if at % step == 0]
            for key, stream in episode.cameras.items()
        }
        recording = Recording(
            episode_id=episode.meta.episode_id,
            rate_hz=episode.rate_hz,
            columns=episode.columns,
            cameras={key: partial(iter, [thumbnail(*row) for row in rows]) for key, rows in kept.items()},
        )
        stamps = jittered_stamps(recording, np.random.default_rng([seed, place]))
        found.append((multi_rate(recording, stamps), kept))
    facts = [measure(recording, recordings.rig, QualityLimits()) for recording, _ in found]
    common = usual(facts, recordings.rig)
    return [
        Specimen(recording=recording, pictures=kept, usual=common, pairs=row.pairs)
        for (recording, kept), row in zip(found, facts, strict=True)
    ]


def measure_recall(quick: bool) -> list[Figure]:
    """Two figures per check: recall, and false alarms, each with its counts and 95 % interval."""
    num, repeats = (6, 2) if quick else (16, 4)
    total: dict[Check, Tally] = {}
    used: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, recordings in _datasets(Path(folder), num, quick=quick):
            specimens = specimens_of(recordings, most=300, seed=1)
            used.append(f"{len(specimens)} of {name}")
            for check, row in tally(recordings, specimens, repeats=repeats, seed=7).items():
                total[check] = _sum(total.get(check, Tally()), row)
    figures = []
    for check, row in total.items():
        figures += _figures(check, row, ", ".join(used))
    return figures


def _datasets(folder: Path, num: int, *, quick: bool) -> list[tuple[str, SourceRecordings]]:
    from apps.sim.simulate import simulate

    simulate(out=folder / "sim", num_episodes=num, split="in-domain", seed=5, image_size=(160, 120), workers=2)
    found = [("the simulated tabletop", folder / "sim", "aloha_sim")]
    samples = Path(os.environ.get("DATAENGINE_SAMPLES", _ROOT.parent / "shared" / "samples"))
    if not quick:
        found += [(name, samples / name, rig) for name, rig in _REAL if (samples / name).is_dir()]
    return [(name, SourceRecordings(source=open_source(path, load_rig(rig)))) for name, path, rig in found]


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(
        faults=one.faults + other.faults,
        found=one.found + other.found,
        judged=one.judged + other.judged,
        alarms=one.alarms + other.alarms,
        missed=one.missed + other.missed,
    )


def _figures(check: Check, row: Tally, used: str) -> list[Figure]:
    low, high = wilson_interval(row.found, row.faults)
    few, many = wilson_interval(row.alarms, row.judged)
    return [
        Figure(
            figure=f"recall: {check}",
            ours=100 * row.found / row.faults if row.faults else float("nan"),
            peer=None,
            peer_name="none",
            unit="%",
            repeats=row.faults,
            reach=">= 95 %",
            note=f"{row.found} of {row.faults} faults, 95 % interval {100 * low:.1f}..{100 * high:.1f} %; {used}",
        ),
        Figure(
            figure=f"false alarms: {check}",
            ours=100 * row.alarms / row.judged if row.judged else float("nan"),
            peer=None,
            peer_name="none",
            unit="%",
            repeats=row.judged,
            reach="<= 2 %",
            note=f"{row.alarms} of {row.judged} good episodes, 95 % interval {100 * few:.1f}..{100 * many:.1f} %",
        ),
    ]


if __name__ == "__main__":
    report("quality", measure_recall, __doc__)
