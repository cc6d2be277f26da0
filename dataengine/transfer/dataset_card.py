"""The README of a dataset repository: counts, rig, licence and tasks, from the artifact itself.

Its last line holds the hash of the others: a README that a person wrote or changed has no such line that fits.
"""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from schemas.records import Record

_HUB_LICENCES = frozenset(
    ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "odc-by", "odbl")
)
_TASKS_SHOWN = 50
_SEAL = re.compile(rb"(?P<text>.*)<!-- dataengine push: sha256 (?P<sha256>[0-9a-f]{64}) -->\n?", re.DOTALL)


def dataset_card(home: Path, record: Record, repo: str) -> str:
    """Markdown with the YAML header that the Hub reads."""
    episodes = _episode_columns(home)
    licences = sorted({text for text in episodes.get("licence", ()) if text})
    head = ["---", *_licence_lines(licences), "task_categories:", "- robotics", "tags:"]
    head += ["- LeRobot", "- robotics"] if record.kind == "episodes" else ["- robotics", "- zarr"]
    if record.kind == "episodes":
        head += ["configs:", "- config_name: default", "  data_files: data/*/*.parquet"]
    body = [
        "---",
        "",
        f"# {record.name}@{record.version}",
        "",
        *_how_to_load(record, repo),
        "",
        "## What it holds",
        "",
        "| what | number |",
        "| --- | --- |",
        *(f"| {name} | {value:,} |" for name, value in record.counts.items()),
        "",
        f"Licence: {', '.join(licences) or 'not stated'}.",
        "",
        *_rig_lines(record),
        *_task_lines(episodes.get("task", ())),
        "## Where it comes from",
        "",
        f"`{record.kind}/{record.name}@{record.version}`, made {record.created:%Y-%m-%d}, fingerprint "
        f"`{record.fingerprint}`.",
        "`record.json` lists every file with its sha256, what was left out and why, and the recipe.",
        "",
    ]
    text = "\n".join(head + body) + "\n"
    return f"{text}<!-- dataengine push: sha256 {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_ours(card: bytes) -> bool:
    """Whether a README is one that `dataset_card` made and nobody changed since."""
    match = _SEAL.fullmatch(card)
    return match is not None and hashlib.sha256(match["text"]).hexdigest() == match["sha256"].decode()


def _episode_columns(home: Path) -> dict[str, list[str]]:
    """Task and licence of each episode; nothing where the artifact has no such table."""
    import pyarrow.parquet as pq

    found: dict[str, list[str]] = {}
    for path in sorted((home / "meta" / "episodes").glob("*/*.parquet")):
        file = pq.ParquetFile(path)
        columns = [name for name in ("task", "licence") if name in file.schema_arrow.names]
        for name, values in file.read(columns=columns).to_pydict().items():
            found.setdefault(name, []).extend(str(value or "") for value in values)
    return found


def _licence_lines(licences: list[str]) -> list[str]:
    """The Hub knows some names; any other one is `other`, with its own name beside."""
    if not licences:
        return []
    if len(licences) == 1 and licences[0].lower() in _HUB_LICENCES:
        return [f"license: {licences[0].lower()}"]
    return ["license: other", f"license_name: {json.dumps(', '.join(licences))}"]


def _how_to_load(record: Record, repo: str) -> list[str]:
    pull = f"`dataengine pull hf://{repo}@{record.version}`"
    match record.kind:
        case "episodes":
            return [
                f"A LeRobot v3.0 dataset. Load it with `LeRobotDataset('{repo}', revision='{record.version}')`, or get",
                f"it whole and checked with {pull}.",
            ]
        case "frames":
            return [f"A frame store in zarr v3, one JPEG per frame. Get it whole and checked with {pull}."]
        case _:
            return [f"An artifact of kind `{record.kind}`. Get it whole and checked with {pull}."]


def _rig_lines(record: Record) -> list[str]:
    rig: Any = record.recipe.get("rig")
    if not isinstance(rig, dict):
        return []
    lines = ["## Rig", "", f"`{rig.get('name')}`, robot `{rig.get('robot_type')}`, {rig.get('rate_hz')} Hz.", ""]
    features, cameras = rig.get("features"), rig.get("cameras")
    if isinstance(features, dict):
        lines += [
            f"* `{key}`: {', '.join((row or {}).get('names') or ()) or 'unnamed'}" for key, row in features.items()
        ]
    if isinstance(cameras, dict):
        lines += [f"* camera `{key}`" for key in cameras]
    return [*lines, ""]


def _task_lines(tasks: Any) -> list[str]:  # noqa: ANN401 - a list of texts, or an empty tuple
    counts = Counter(tasks)
    if not counts:
        return []
    rows = [f"* {task or '(none)'} ({count})" for task, count in counts.most_common(_TASKS_SHOWN)]
    more = [f"* and {len(counts) - _TASKS_SHOWN} more"] if len(counts) > _TASKS_SHOWN else []
    return ["## Tasks", "", *rows, *more, ""]
