"""The small VLM from nothing to a page: simulator frames with questions, training, and what it learned."""

import os
from pathlib import Path

from apps.cli.progress import progress
from dataengine.rendered import Split, questions
from dataengine.rendered.equations import Equation
from dataengine.workspace import Workspace
from schemas.records import Record, sha256_of
from schemas.refs import Ref

_FRAMES_PER_EXAM = 3  # of each skill: not every frame lets every question be asked
_CROPPED_TABLES = 0.5  # rendered tables that are cut up, per simulator frame
_WORKERS = len(os.sched_getaffinity(0))


def train_small(
    recipe: str, *, to: Ref, workspace: Workspace, start: Path | None, steps: int | None, frames: int, exams: int
) -> tuple[Record, Path]:
    """Returns the checkpoint's record and the page about it."""
    from apps.report.vlm_page import write_vlm_page
    from trainers.vlm.recipe import vlm_recipe
    from trainers.vlm.train import Folders, train_small_vlm

    config = vlm_recipe(recipe)
    folders = None
    if frames:
        learned = _frames(
            workspace,
            "train",
            frames,
            config.seed,
            frames_per_scene=config.frames_per_scene,
            hands=config.scene_hands,
            tells_cards=config.tells_cards,
        )
        asked = _frames(workspace, "held-out", _FRAMES_PER_EXAM * exams, config.seed)
        folders = Folders(
            frames=learned,
            held_out_frames=asked,
            crops=_crops(
                workspace, "train", learned, config.seed, hands=config.scene_hands, tells_cards=config.tells_cards
            ),
            held_out_crops=_crops(workspace, "held-out", asked, config.seed),
        )
    with progress("train", unit="steps") as on_progress:
        record = train_small_vlm(
            config=config,
            to=to,
            workspace=workspace,
            folders=folders,
            start=start,
            steps=steps,
            exams_per_skill=exams,
            on_progress=on_progress,
        )
    return record, write_vlm_page(workspace, to)


def _frames(
    workspace: Workspace,
    split: Split,
    num_frames: int,
    seed: int,
    *,
    frames_per_scene: int | None = None,
    hands: float = 0.0,
    tells_cards: bool = False,
) -> Path:
    """A folder of simulator frames; one that is whole is kept."""
    from apps.sim.questions import FRAMES_PER_SCENE, write_questions

    per_scene = frames_per_scene or FRAMES_PER_SCENE
    parts = ["frames", split, str(num_frames), str(seed)]
    parts += [str(per_scene)] if per_scene != FRAMES_PER_SCENE else []
    parts += [f"hands{hands:g}"] if hands else []
    parts += ["cards"] if tells_cards else []
    parts += [_form_of_answers()]
    out = workspace.root / "raw" / "-".join(parts)
    if not (out / "conversations.json").is_file():
        write_questions(
            out,
            split=split,
            num_frames=num_frames,
            seed=seed,
            frames_per_scene=per_scene,
            hands=hands,
            tells_cards=tells_cards,
            workers=_WORKERS,
        )
    return out


def _form_of_answers() -> str:
    """Part of a folder's name, so that frames with answers or questions of another form are not gone on with."""
    equation = Equation(left=Equation(left=4, operator="+", right=1), operator="x", right=2)
    numbers = (10, 5, 8)
    said = [questions.transcribed(equation), questions.solved(equation), questions.listed(numbers)]
    said += [questions.chosen(equation, numbers), questions.traced(equation, numbers)]
    return sha256_of([*said, questions.PHRASES])[:6]


def _crops(
    workspace: Workspace, split: Split, frames: Path, seed: int, *, hands: float = 0.0, tells_cards: bool = False
) -> Path:
    """A folder of crops with the prompts of `annotate`; one that is whole is kept."""
    from apps.vlm_crops import write_crops

    out = workspace.root / "raw" / frames.name.replace("frames-", "crops-")
    if not (out / "conversations.json").is_file():
        num_frames = len(list((frames / "images").iterdir()))
        num_rendered = round(_CROPPED_TABLES * num_frames)
        write_crops(
            out,
            frames=frames,
            split=split,
            num_rendered=num_rendered,
            seed=seed,
            hands=hands,
            tells_cards=tells_cards,
            workers=_WORKERS,
        )
    return out
