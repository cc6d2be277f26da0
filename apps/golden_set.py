"""The golden questions of the families that ship, made from frozen seeds: crops of rendered tables, simulated episodes.

Frozen on 2026-11-27, before any prompt was changed against them. `python -m apps.golden_set FOLDER [FAMILY ...]`
writes FOLDER/<family> as in `annotators/families`; a changed set is another set, and scores made on it are not
compared.
"""

import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import JsonValue

from annotators.families import Family, load_family
from annotators.golden import SET, GoldenQuestion
from annotators.observe import Observation, Observer
from annotators.vlm.inventory import LOOKS, inventory_questions
from annotators.vlm.open_scene import open_questions_about
from annotators.vlm.protocol import Request, Speaker, TextPart
from annotators.vlm.rewording import wordings_question
from annotators.vlm.steps import step_questions
from apps.vlm_crops import write_crops
from dataengine.convert import convert
from dataengine.episode_set import EpisodeSet
from dataengine.rendered.llava import LISTING, write_listing
from dataengine.workspace import Workspace
from schemas.refs import Ref

SEED = 20261127
NUM_CROPS = 40  # of boards, and of cards
NUM_EPISODES = 4
_PICTURES = "golden"
_NUM_TABLES = 160  # rendered, so that there are crops enough
_CAMERA = "cam_high"
_THING = "card"  # what the simulated operator picks up


def write_crop_questions(folder: Path) -> None:
    """Held-out boards and cards, cut out as `annotate` does it."""
    with tempfile.TemporaryDirectory() as name:
        crops, frames = Path(name, "crops"), Path(name, "frames")
        (frames / "images").mkdir(parents=True)
        write_listing(frames, [])
        write_crops(crops, frames=frames, split="held-out", num_rendered=_NUM_TABLES, seed=SEED)
        rows = json.loads((crops / LISTING).read_bytes())
        questions = []
        for question in ("board", "cards"):
            of_one = [row for row in rows if row["skill"] == f"{question} in JSON"]
            for number, row in enumerate(of_one[:NUM_CROPS]):
                picture = _kept(folder, f"{question}_{number:02d}.jpg", (crops / row["image"]).read_bytes())
                answer = json.loads(row["conversations"][-1]["value"])
                questions.append(GoldenQuestion(question=question, pictures=(picture,), answer=answer))
    _write(folder, questions)


def write_sheet_questions(folder: Path) -> None:
    """Contact sheets of simulated episodes: what is picked up in each grasp is a card."""
    from apps.sim.simulate import simulate

    family, questions = load_family("generic"), []
    with tempfile.TemporaryDirectory() as name:
        workspace, ref = Workspace.at(Path(name, "workspace")), Ref("golden", "1")
        simulate(out=Path(name, "raw"), num_episodes=NUM_EPISODES, split="open-world", seed=SEED, workers=1)
        convert(source_path=Path(name, "raw"), to=ref, workspace=workspace, rig="aloha_sim", workers=1)
        opened = EpisodeSet.open(workspace, ref)
        observer = Observer(opened, _CAMERA, wants_crops=True, wants_sheets=True)
        for number, episode_id in enumerate(opened.ids()):
            seen = observer.observe(episode_id)
            assert isinstance(seen, Observation)
            kept = {name: _kept(folder, f"{name}_{number}.jpg", data) for name, data in seen.crops.items()}
            request = step_questions(family, Speaker(model=""), seen.crops, seen.segments, seen.task)["steps"]
            grasped = [at for at, one in enumerate(seen.segments.segments, 1) if one.phase == "grasp"]
            questions.append(
                GoldenQuestion(
                    question="steps",
                    pictures=tuple(path for name, path in kept.items() if name.startswith("sheet_")),
                    words=_words(request),
                    answer={"segments": [{"number": at, "object": _THING} for at in grasped]},
                )
            )
            held = [path for name, path in kept.items() if name.startswith("grasp_")]
            questions += [GoldenQuestion(question="held", pictures=(path,), answer={"object": _THING}) for path in held]
    _write(folder, [*questions, *_scene_questions(folder, family)])


def _scene_questions(folder: Path, family: Family) -> list[GoldenQuestion]:
    """Tables of toys: what is there, how it ended (a picture from before it began is of no success), other wordings."""
    questions = []
    with _placements() as (opened, truths):
        observer = Observer(opened, _CAMERA, wants_crops=True, wants_scene=True)
        for number, episode_id in enumerate(opened.ids()):
            seen, truth = observer.observe(episode_id), truths[episode_id]
            assert isinstance(seen, Observation)
            assert seen.evidence.scene is not None
            asked = open_questions_about(family, Speaker(model=""), seen.crops, seen.task, seen.evidence.scene)
            asked |= wordings_question(family, Speaker(model=""), seen.task)
            told = {look: _words(request) for look, request in asked.items()}
            first, last = (_kept(folder, f"scene_{number}_{look}.jpg", seen.crops[look]) for look in LOOKS)
            things: dict[str, dict[str, JsonValue]] = {look: {"things": _wanted(truth, look)} for look in LOOKS}
            endings = (((first, last), "success"), ((last,), "success"), ((first, first), "failure"))
            questions += [
                GoldenQuestion(question="setting", pictures=(first,), words=told["setting"], answer=things["before"]),
                GoldenQuestion(
                    question="things_after", pictures=(last,), words=told["things_after"], answer=things["after"]
                ),
                *(
                    GoldenQuestion(
                        question="ending", pictures=shown, words=told["ending_first"], answer={"outcome": outcome}
                    )
                    for shown, outcome in endings
                ),
                GoldenQuestion(question="wordings", pictures=(), words=told["wordings"], answer={"keeps": seen.task}),
            ]
    return questions


@contextmanager
def _placements() -> Iterator[tuple[EpisodeSet, dict[str, dict[str, Any]]]]:
    """Placements of toys, and what the simulator knows of each."""
    from apps.sim.simulate import simulate

    with tempfile.TemporaryDirectory() as name:
        workspace, ref, raw = Workspace.at(Path(name, "workspace")), Ref("golden", "1"), Path(name, "raw")
        simulate(out=raw, num_episodes=NUM_EPISODES, task="toy-placement", split="open-world", seed=SEED, workers=1)
        convert(source_path=raw, to=ref, workspace=workspace, rig="aloha_sim", workers=1)
        opened = EpisodeSet.open(workspace, ref)
        home = raw.with_name("raw.ground_truth")
        yield opened, {one: json.loads((home / f"{one.rpartition('-')[0]}.json").read_bytes()) for one in opened.ids()}


def _wanted(truth: dict[str, Any], look: str) -> list[JsonValue]:
    """Both things of the instruction, where the simulator has them."""
    nouns = [row["noun"] for row in truth["objects"]]
    boxes = dict(zip(nouns, truth[f"boxes_{look}"], strict=True))
    return [{"noun": noun, "box": boxes[noun]} for noun in (truth["target"], truth["reference"]) if boxes[noun]]


def _words(request: Request) -> str:
    """What a question says beside its pictures."""
    (words,) = [part.text for part in request.turns[-1].parts if isinstance(part, TextPart)]
    return words


def write_inventory_questions(folder: Path) -> None:
    """Tables of toys before and after a placement: both things of the instruction, where the simulator has them."""
    family = load_family("toy-placement")
    questions: list[GoldenQuestion] = []
    with _placements() as (opened, truths):
        observer = Observer(opened, _CAMERA, wants_crops=True, things=family.file.things)
        for number, episode_id in enumerate(opened.ids()):
            seen = observer.observe(episode_id)
            assert isinstance(seen, Observation)
            assert seen.evidence.placement is not None
            asked = inventory_questions(
                family, Speaker(model=""), seen.crops, seen.evidence.task, seen.evidence.placement
            )
            questions += [
                GoldenQuestion(
                    question="things",
                    pictures=(_kept(folder, f"things_{number}_{look}.jpg", _jpeg(seen.crops[look])),),
                    words=_words(asked[look]),
                    answer={"things": _wanted(truths[episode_id], look)},
                )
                for look in LOOKS
            ]
    _write(folder, questions)


def _jpeg(data: bytes) -> bytes:
    """A PNG, smaller."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        picture.convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


def _kept(folder: Path, name: str, data: bytes) -> str:
    (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
    (folder / _PICTURES / name).write_bytes(data)
    return f"{_PICTURES}/{name}"


def _write(folder: Path, questions: Sequence[GoldenQuestion]) -> None:
    rows = [json.dumps(row.model_dump(mode="json"), sort_keys=True) for row in questions]
    (folder / SET).write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def main(words: Sequence[str]) -> int:
    """Write all sets, or those of the families that are named after the folder."""
    out, wanted = Path(words[0]), words[1:]
    for family, write in (
        ("math-matching", write_crop_questions),
        ("generic", write_sheet_questions),
        ("toy-placement", write_inventory_questions),
    ):
        if wanted and family not in wanted:
            continue
        folder = out / family
        shutil.rmtree(folder / _PICTURES, ignore_errors=True)
        write(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
