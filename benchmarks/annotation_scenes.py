"""The simulated episodes that annotation is scored on, frozen: what makes them is hashed, and the hash is committed.

`python -m benchmarks.annotation_scenes --freeze` writes today's hash and time into `annotation_frozen.json`. Whoever
changes scenes, fonts, noise or the operator afterwards must freeze again, and every figure is then a new one. Comments
and line breaks are no part of the hash. Where code changed and what it makes did not, the file says how that was seen,
and the hash that figures were measured with.
"""

import argparse
import ast
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dataengine.convert import convert
from dataengine.workspace import Workspace
from schemas.records import sha256_of
from schemas.refs import Ref

Family = Literal["math-matching", "toy-placement"]
FAMILIES: tuple[Family, ...] = ("math-matching", "toy-placement")
SEED = 2026  # thresholds were looked for on other seeds
EACH = "DATAENGINE_BENCHMARK_EPISODES"  # of one family and split, where 50 are too many for the machine
RAW_CACHE = "DATAENGINE_BENCHMARK_RAW"  # a folder that keeps episodes, raw and converted, from run to run
_ROOT = Path(__file__).parents[1]
_FROZEN = Path(__file__).with_name("annotation_frozen.json")
_SOURCES = (
    *(f"apps/sim/{name}.py" for name in ("game", "tabletop", "station", "world", "toys", "toy_world")),
    *(f"apps/sim/{name}.py" for name in ("scripted_operator", "recording", "simulate")),
    *(
        f"dataengine/rendered/{name}.py"
        for name in ("equations", "hands", "handwriting", "keyed", "layouts", "strokes", "styles")
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Episodes of one family and split, converted, and the truth about each by raw name."""

    family: Family
    split: str
    episodes: Ref
    truths: dict[str, dict[str, Any]]

    def truth(self, episode_id: str) -> dict[str, Any] | None:
        """Of one episode; None where it is not among those that are measured."""
        return self.truths.get(episode_id.rpartition("-")[0])


def source_hash() -> str:
    """Of everything that decides what is in an episode."""
    trees = {name: ast.dump(ast.parse((_ROOT / name).read_text(encoding="utf-8"))) for name in _SOURCES}
    return sha256_of(trees)


def frozen() -> dict[str, str]:
    """The committed hash and when it was frozen. Ends the program where the sources are no longer those."""
    kept: dict[str, str] = json.loads(_FROZEN.read_text())
    if kept["source_hash"] != source_hash():
        raise SystemExit(
            f"scenes, fonts, noise or the operator changed since they were frozen on {kept['frozen']}. Freeze again "
            "with `python -m benchmarks.annotation_scenes --freeze`, and measure everything anew."
        )
    return kept


@contextmanager
def frozen_series(num: int, families: Sequence[Family] = FAMILIES) -> Iterator[tuple[Workspace, list[Series]]]:
    """`num` episodes of each family and split, converted; raw and converted ones stay where RAW_CACHE says."""
    from apps.sim.game import SPLITS
    from apps.sim.simulate import simulate

    frozen()
    with tempfile.TemporaryDirectory() as folder:
        raw_home = Path(os.environ.get(RAW_CACHE) or folder) / source_hash()[:16]
        workspace, found = Workspace.at(raw_home / "workspace"), []
        for family in families:
            for split in SPLITS:
                raw = raw_home / f"{family}-{split}"
                raw.parent.mkdir(parents=True, exist_ok=True)
                simulate(out=raw, num_episodes=num, task=family, split=split, seed=SEED, workers=2)
                ref = Ref(f"{family}-{split}-{len(list(raw.glob('*.hdf5')))}", "1")  # of all a cache may hold
                convert(source_path=raw, to=ref, workspace=workspace, rig="aloha_sim", sink="both")
                truths = {
                    path.stem: json.loads(path.read_bytes())
                    for index in range(num)
                    if (path := raw.with_name(f"{raw.name}.ground_truth") / f"episode_{index}.json").is_file()
                }
                found.append(Series(family=family, split=split, episodes=ref, truths=truths))
        yield workspace, found


def _freeze() -> None:
    kept = {"source_hash": source_hash(), "frozen": datetime.now(UTC).isoformat(timespec="seconds")}
    _FROZEN.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.annotation_scenes", description=__doc__)
    parser.add_argument("--freeze", action="store_true", help="commit to what makes episodes today")
    if parser.parse_args().freeze:
        _freeze()
    else:
        print(json.dumps(frozen()))
