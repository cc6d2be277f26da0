"""`train nano_vlm`: from the recipe to `checkpoints/NAME@V`, a model directory with its scores and its curves."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dataengine.artifacts import Draft, begin, write_atomic
from dataengine.rendered import SKILLS, plans_hash
from dataengine.workspace import Workspace
from schemas.errors import TrainError
from schemas.records import InputRef, Record, sha256_of
from schemas.refs import Ref
from trainers.checkpoint import weights_fingerprint
from trainers.tokenizer import LocalTokenizer, nano_tokenizer
from trainers.vlm.config import VlmConfig, shortened
from trainers.vlm.model import LearningVlm
from trainers.vlm.rendered_lessons import Crops, Frames, RenderedLessons, rendered_exams
from trainers.vlm.run import METRICS_FILE, VlmStep, train_vlm
from trainers.vlm.score import Exam, SkillScore, answers, by_skill, examine
from trainers.vlm_directory import load_vlm_directory, save_vlm_directory

SCORES_FILE, SAMPLES_FILE, RECIPE_FILE = "scores.json", "samples.json", "recipe.json"
EXAMS_PER_SKILL = 200
_SAMPLES_PER_SKILL = 3
LONGEST_ANSWER = 160  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Pictures with questions: simulator frames and crops to learn from, and others to be asked about afterwards."""

    frames: Path
    held_out_frames: Path
    crops: Path
    held_out_crops: Path


def train_small_vlm(
    *,
    config: VlmConfig,
    to: Ref,
    workspace: Workspace,
    folders: Folders | None = None,
    start: Path | None = None,
    steps: int | None = None,
    exams_per_skill: int = EXAMS_PER_SKILL,
    on_progress: Callable[[int, int], None] | None = None,
) -> Record:
    """Train the recipe; the same call goes on after a kill, and returns the record when it is already done.

    The held-out questions are frozen and hashed before the first step. Without `folders` there are rendered pictures
    alone. `start` is a model directory to go on from, of the recipe's shape or with fewer blocks in its vision tower.
    Raises TrainError, ArtifactError.
    """
    config = config if steps is None else shortened(config, steps)
    weights = _start(start, config)
    opened = {} if folders is None else {name: Frames.open(folder) for name, folder in asdict(folders).items()}
    inputs = [
        InputRef(kind="raw", ref=name.replace("_", "-"), fingerprint=found.fingerprint)
        for name, found in opened.items()
    ]
    cell_px = config.vlm.patch_size * config.vlm.merge_size
    lessons = RenderedLessons(
        config=config,
        frames=opened.get("frames"),
        crops=Crops.of(opened["crops"], cell_px=cell_px) if opened else None,
    )
    asked = {"simulated": opened["held_out_frames"], "cropped": opened["held_out_crops"]} if opened else {}
    recipe = {
        "vlm": config.to_json(),
        "tokenizer": nano_tokenizer().fingerprint,
        "lessons": lessons.fingerprint,
        "exams": {"per_skill": exams_per_skill, "plans": plans_hash(SKILLS, exams_per_skill)},
    }
    if weights is not None:
        recipe["start"] = weights_fingerprint(weights)
    draft = begin(workspace, "checkpoints", to, recipe=recipe, inputs=inputs)
    if isinstance(draft, Record):
        return draft
    with draft:
        tokenizer = nano_tokenizer()
        model = train_vlm(
            config,
            lessons,
            tokenizer,
            staging=draft.staging,
            start=weights,
            on_step=None if on_progress is None else lambda row: _tell(on_progress, row, config),
        )
        return _publish(draft, config, model, tokenizer, asked, exams_per_skill)


def _start(folder: Path | None, config: VlmConfig) -> dict[str, Tensor] | None:
    """Weights to go on from."""
    if config.goes_on_from is None:
        if folder is not None:
            raise TrainError(f"recipe {config.name} starts from nothing. Leave --weights out.")
        return None
    if folder is None:
        raise TrainError(
            f"recipe {config.name} goes on from a model that `train {config.goes_on_from}` made. Name it: "
            "--weights NAME@VERSION, or a folder."
        )
    directory = load_vlm_directory(folder)
    is_smaller = directory.size.vision_depth < config.vlm.vision_depth
    size = replace(directory.size, vision_depth=config.vlm.vision_depth) if is_smaller else directory.size
    if size != config.vlm or directory.tokenizer.fingerprint != nano_tokenizer().fingerprint:
        raise TrainError(
            f"'{folder.name}' holds another model than recipe {config.name} trains. Start from one that "
            f"`train {config.goes_on_from}` made."
        )
    return {name: weight.detach() for name, weight in directory.vlm.named_parameters()}


def _tell(on_progress: Callable[[int, int], None], row: VlmStep, config: VlmConfig) -> None:
    on_progress(row.step + 1, config.last_step)


def _publish(
    draft: Draft,
    config: VlmConfig,
    model: LearningVlm,
    tokenizer: LocalTokenizer,
    asked: Mapping[str, Frames],
    exams_per_skill: int,
) -> Record:
    scores = {"rendered": score(model, tokenizer, [e for s in SKILLS for e in rendered_exams(s, exams_per_skill)])}
    scores |= {source: score(model, tokenizer, found.exams(exams_per_skill)) for source, found in asked.items()}
    listed = {source: [_row(row) for row in rows] for source, rows in scores.items()}
    save_vlm_directory(draft.path, model.vlm, tokenizer, config.vlm, dtype="bfloat16")
    write_atomic(draft.path / SCORES_FILE, json.dumps(listed, indent=1).encode())
    write_atomic(draft.path / SAMPLES_FILE, json.dumps(_samples(model, tokenizer), indent=1).encode())
    write_atomic(draft.path / RECIPE_FILE, json.dumps(config.to_json(), indent=1).encode())
    (draft.path / METRICS_FILE).write_bytes((draft.staging / METRICS_FILE).read_bytes())
    weights = weights_fingerprint({name: value.detach() for name, value in model.vlm.named_parameters()})
    counts: dict[str, int | float] = {
        "num_steps": config.last_step,
        "num_parameters": sum(weight.numel() for weight in model.vlm.parameters()),
    }
    counts |= {f"{source}/{row.skill}": round(row.share, 4) for source, rows in scores.items() for row in rows}
    return draft.publish(fingerprint=sha256_of({"weights": weights, "recipe": config.to_json()}), counts=counts)


def score(model: LearningVlm, tokenizer: LocalTokenizer, exams: list[Exam]) -> list[SkillScore]:
    """Right answers skill by skill."""
    return by_skill(examine(model, tokenizer, exams))


def _samples(model: LearningVlm, tokenizer: LocalTokenizer) -> list[dict[str, Any]]:
    """What it says to the first held-out questions of each skill; `row` finds the picture again."""
    rows = [(skill, row) for skill in SKILLS for row in range(_SAMPLES_PER_SKILL)]
    exams = [rendered_exams(skill, _SAMPLES_PER_SKILL)[row] for skill, row in rows]
    said = answers(model, tokenizer, [exam.lesson for exam in exams], max_tokens=LONGEST_ANSWER)
    return [
        {"skill": skill, "row": row, "question": exam.asked.question, "answer": exam.asked.answer, "said": words}
        for (skill, row), exam, words in zip(rows, exams, said, strict=True)
    ]


def _row(row: SkillScore) -> dict[str, Any]:
    low, high = row.interval
    return asdict(row) | {"share": row.share, "low": low, "high": high}
