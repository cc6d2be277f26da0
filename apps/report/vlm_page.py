"""What the small VLM learned, on one page: skills with intervals, curves, and what it said to held-out questions."""

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from apps.report.page import Html, note, page, picture, section, table
from apps.report.pictures import curves
from dataengine.artifacts import write_atomic
from dataengine.rendered import SKILLS, Skill, held_out
from dataengine.workspace import Workspace
from schemas.refs import Ref
from trainers.vlm.score import is_right


def write_vlm_page(workspace: Workspace, ref: Ref) -> Path:
    """Write `NAME@V.html` into the workspace and return its path; everything on it is read back from the artifact."""
    folder = workspace.find("checkpoints", ref)
    record = workspace.record("checkpoints", ref)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    scores: dict[str, list[dict[str, Any]]] = json.loads((folder / "scores.json").read_bytes())
    samples: list[dict[str, Any]] = json.loads((folder / "samples.json").read_bytes())
    exams: Any = record.recipe["exams"]
    body = [
        section(
            "Skills",
            *(_skills(source, found) for source, found in scores.items()),
            note(
                f"Right word for word (a point: within 8 pixels), with Wilson's 95 % interval. {exams['per_skill']} "
                f"questions a skill, frozen before the first step (what is planned hashes to {exams['plans'][:12]}). "
                f"Equations, handwriting, card layouts and seeds of the held-out questions are in no lesson, but "
                f"counting out a learned sum passes through the last pairs of smaller ones, held-out ones among them."
            ),
        ),
        section("Training", picture(_curves(rows), "svg+xml", "Losses and shares of right tokens by step")),
        section("What it said", table(["picture", "question", "right answer", "it said"], map(_sample, samples))),
    ]
    weights, steps = record.counts["num_parameters"], record.counts["num_steps"]
    lead = f"{weights:,} weights, {steps:,} steps; for boards and tables like the simulator's, never for real footage."
    path = workspace.root / f"{ref}.html"
    write_atomic(path, page(f"The small VLM {ref}", lead, body).encode())
    return path


def _skills(source: str, found: list[dict[str, Any]]) -> str:
    rows = [
        [row["skill"], row["num"], row["num_right"], f"{row['share']:.1%}", f"{row['low']:.1%} to {row['high']:.1%}"]
        for row in found
    ]
    return f"<h3>{source} pictures</h3>" + table(["skill", "questions", "right", "share", "95 % interval"], rows)


def _curves(rows: list[dict[str, Any]]) -> bytes:
    marks: dict[str, float] = {}
    for row in rows:
        marks.setdefault(row["phase"], row["step"])
    names = {
        "glyph_loss": "loss on characters",
        "text_loss": "loss on answers",
        "text_right": "right answer tokens",
        "card_loss": "loss on cards",
        "gaze_loss": "loss on where to look",
    }
    # A step that asks nothing of the kind (crops have no characters, letters no words) says 0, which is no loss.
    told = {title: [(row["step"], row[name]) for row in rows if row.get(name)] for name, title in names.items()}
    series = {title: tuple(zip(*found, strict=True)) for title, found in told.items() if found}
    return curves({title: (x, y) for title, (x, y) in series.items()}, x_label="step", marks=marks)


def _sample(row: dict[str, Any]) -> list[object]:
    skill: Skill = next(name for name in SKILLS if name == row["skill"])
    *_, item = held_out(skill, row["row"] + 1)
    out = io.BytesIO()
    Image.fromarray(item.picture).save(out, "JPEG", quality=85)
    word = "pass" if is_right(row["said"], row["answer"], item.point_px) else "fail"
    shown = picture(out.getvalue(), "jpeg", row["question"])
    return [Html(shown), row["question"], row["answer"], Html(f"<span class={word!r}>{_escaped(row['said'])}</span>")]


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)
