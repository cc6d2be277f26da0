"""The report's section on forgetting: the same questions before and after robot training, model by model."""

import io
from collections.abc import Sequence

from apps.demo.retention import VARIANTS
from apps.report.page import note, picture, section, table
from dataengine.workspace import Workspace
from schemas.refs import Ref
from trainers.vlm.retention import Compared, Retained, read_retention


def retention_section(workspace: Workspace, ref: Ref) -> str:
    """A plot over all skills, and a table skill by skill."""
    compared = read_retention(workspace.find("evaluations", ref))
    skills = [row.skill for row in compared[0].rows]
    rows: list[list[object]] = []
    for place, skill in enumerate(skills):
        base = compared[0].rows[place]
        rows.append([skill, f"{base.base_right}/{base.num}", *(_cell(one.rows[place]) for one in compared)])
    return section(
        "Retention: what robot training makes the VLM forget",
        picture(_plot(compared), "svg+xml", "Change of the share of right answers, with 95 % intervals"),
        table(["skill", "before", *(_title(one.checkpoint) for one in compared)], rows),
        note(
            "Held-out questions of the shipped small VLM, the same ones before and after; change of the share that is "
            "right with its 95 % interval (paired, bootstrap). All short runs start from the same weights and take the "
            "same number of steps."
        ),
    )


def _title(checkpoint: str) -> str:
    known = {str(ref): words for ref, words in VARIANTS.items()}
    if checkpoint not in known:
        return f"{checkpoint} (the demo's policy)"
    recipe, with_questions = known[checkpoint]
    experts = "dense" if recipe == "nano_dense" else "8 experts"
    return f"{experts}, {'robot + image-text' if with_questions else 'robot only'}"


def _cell(row: Retained) -> str:
    return f"{row.right}/{row.num} {row.change:+.0%} ({row.low:+.0%} to {row.high:+.0%})"


def _plot(compared: Sequence[Compared]) -> bytes:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8.2, 0.5 + 0.42 * len(compared)), layout="constrained")
    for place, one in enumerate(reversed(compared)):
        row = one.rows[0]
        axis.barh(place, 100 * row.change, color="#9db7e4", height=0.6)
        axis.plot([100 * row.low, 100 * row.high], [place, place], color="#2f5fb3", linewidth=2)
    axis.set_yticks(range(len(compared)), [_title(one.checkpoint) for one in reversed(compared)], fontsize=8)
    axis.axvline(0, color="#888888", linewidth=0.8)
    axis.set_xlabel("change of right answers over all skills, percentage points", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25)
    out = io.BytesIO()
    figure.savefig(out, format="svg")
    plt.close(figure)
    return out.getvalue()
