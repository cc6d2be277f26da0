"""`make nano-vlm`, its last step: a trained small VLM into the package, with all that is needed to make it again.

python -m apps.vlm_shipping nano-vlm@3 nano-vlm@2 nano-vlm@1
python -m apps.vlm_shipping nano-vlm@6 nano    # it went on from the one that ships now
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from annotators.vlm.local import NANO_DIR
from dataengine.artifacts import write_atomic
from dataengine.workspace import Workspace
from schemas.errors import EngineError, UsageError
from schemas.refs import Ref
from trainers.checkpoint import weights_fingerprint
from trainers.vlm_directory import load_vlm_directory

TRAINING_FILE = "training.json"
SHIPPED: Literal["nano"] = "nano"
NUM_FIRST_LOSSES = 10
_COMMAND = "make nano-vlm"
_MOST_BYTES = 16_000_000
_LEFT_OUT = ("record.json", "metrics.jsonl", "recipe.json", "samples.json")


def ship(workspace: Workspace, ref: Ref, *, to: Path, commit: str, bases: Sequence[Ref | Literal["nano"]] = ()) -> Path:
    """Copy the model directory of a checkpoint, its scores, and beside them where it comes from; returns the folder.

    `bases` are the checkpoint it went on from, the one that went on from, and so on; their origins are kept too.
    The last may be `nano`, the one that ships so far.
    Raises ArtifactError where there is no such checkpoint, UsageError where its files are too large to ship or a base
    is not what was gone on from.
    """
    folder = workspace.find("checkpoints", ref)
    parts = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in _LEFT_OUT]
    size = sum(path.stat().st_size for path in parts)
    if size > _MOST_BYTES:
        raise UsageError(f"{ref} is {size / 1e6:.1f} MB, at most {_MOST_BYTES / 1e6:.0f} ship. Train a smaller one.")
    told = {"command": _COMMAND, **_chain(workspace, ref, commit, bases)}
    to.mkdir(parents=True, exist_ok=True)
    for path in parts:
        shutil.copyfile(path, to / path.name)
    write_atomic(to / TRAINING_FILE, (json.dumps(told, indent=1) + "\n").encode())
    return to


def _chain(workspace: Workspace, ref: Ref, commit: str, bases: Sequence[Ref | Literal["nano"]]) -> dict[str, object]:
    """The origin of a checkpoint, and under `base` that of what it went on from, down to the one from nothing."""
    started, told = workspace.record("checkpoints", ref).recipe.get("start"), _origin(workspace, ref, commit)
    if not bases:
        if started is not None:
            raise UsageError(f"{ref} went on from another checkpoint. Name that too, behind {ref}.")
        return told
    base, *others = bases
    loaded = load_vlm_directory(NANO_DIR if base == SHIPPED else workspace.find("checkpoints", base)).vlm
    if started != weights_fingerprint({name: value.detach() for name, value in loaded.named_parameters()}):
        raise UsageError(f"{ref} did not go on from {base}. Name the checkpoint that it was started from.")
    if base == SHIPPED:
        known = json.loads((NANO_DIR / TRAINING_FILE).read_bytes())
        return told | {"base": {name: value for name, value in known.items() if name != "command"}}
    return told | {"base": _chain(workspace, base, commit, others)}


def _origin(workspace: Workspace, ref: Ref, commit: str) -> dict[str, object]:
    """What is needed to make a checkpoint again; `commit` unless what ships already says which one made it."""
    record, metrics = workspace.record("checkpoints", ref), workspace.find("checkpoints", ref) / "metrics.jsonl"
    shipped = NANO_DIR / TRAINING_FILE
    known = json.loads(shipped.read_bytes()) if shipped.is_file() else {}
    while known:
        if known["fingerprint"] == record.fingerprint:
            commit = known["commit"]
        known = known.get("base", {})
    return {
        "commit": commit,
        "created": record.created.isoformat(),
        "recipe": record.recipe["vlm"],
        "lessons": record.recipe["lessons"],
        "exams": record.recipe["exams"],
        "inputs": [[each.ref, each.fingerprint] for each in record.inputs],
        "fingerprint": record.fingerprint,
        "first_losses": [json.loads(line)["loss"] for line in metrics.read_text().splitlines()[:NUM_FIRST_LOSSES]],
    }


REACH = {
    "transcribe": 0.97,
    "solve": 0.95,
    "cards": 0.95,
    "choice": 0.95,
    "trace": 0.95,
    "count": 0.90,
    "colour": 0.90,
    "relation": 0.90,
    "point": 0.90,
    "gripper": 0.90,
    "refusal": 0.95,
    "board in JSON": 0.97,
    "cards in JSON": 0.95,
}  # what each skill was meant to reach, on every source of pictures


def skill_table(folder: Path) -> str:
    """The scores of a model directory as a Markdown table, beside what was meant to be reached."""
    scores = json.loads((folder / "scores.json").read_bytes())
    lines = ["| skill | pictures | right | 95 % interval | reach |", "| --- | --- | --- | --- | --- |"]
    for source, rows in scores.items():
        for row in rows:
            reach = REACH[row["skill"]]
            short = "" if row["share"] >= reach else f", {100 * (reach - row['share']):.0f} points short"
            lines.append(
                f"| {row['skill']} | {source} | {row['num_right']} of {row['num']} ({row['share']:.1%}) "
                f"| {row['low']:.1%} to {row['high']:.1%} | {reach:.0%}{short} |"
            )
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """`NAME@VERSION BASE@VERSION ... [nano] [COMMIT]`; without a commit, the one that is checked out."""
    workspace = Workspace.at(os.environ.get("DATAENGINE_WORKSPACE", "workspace"))
    try:
        refs = [SHIPPED if word == SHIPPED else Ref.parse(word) for word in words if "@" in word or word == SHIPPED]
        if not refs or not isinstance(refs[0], Ref):
            raise UsageError("name the checkpoint that is to ship, then what it went on from: REF BASE ...")
        ref, bases = refs[0], refs[1:]
        named = [word for word in words if "@" not in word and word != SHIPPED]
        folder = ship(workspace, ref, to=NANO_DIR, commit=named[0] if named else _head(), bases=bases)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{words[0]} lies in {folder} now; commit it.\n")
    return 0


def _head() -> str:
    done, changed = (
        subprocess.run(["git", *words], capture_output=True, text=True, cwd=Path(__file__).parent)
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    )
    if done.returncode or changed.stdout:
        what = "this is no git checkout" if done.returncode else "this checkout has changes that are in no commit"
        raise UsageError(
            f"{what}. Say which commit made the weights, behind the checkpoints: "
            "python -m apps.vlm_shipping REF BASE ... COMMIT"
        )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
