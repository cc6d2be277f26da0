"""What robot training makes the VLM forget: four short co-training runs from the same weights, and the same exams.

Dense or with routed experts, with image-text beside the robot's episodes or without: ChatVLA's two remedies, each
alone and together.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from dataengine.workspace import Workspace
from schemas.refs import Ref

if TYPE_CHECKING:
    from apps.demo.run import DemoArtifacts

VARIANTS = {
    Ref("dense-robot-only", "1"): ("nano_dense", False),
    Ref("dense-and-questions", "1"): ("nano_dense", True),
    Ref("moe-robot-only", "1"): ("nano", False),
    Ref("moe-and-questions", "1"): ("nano", True),
}  # checkpoint: recipe, and whether image-text is in the mix


def measure_retention(
    workspace: Workspace, made: "DemoArtifacts", *, steps: int, exams: int, on_run: Callable[[int, int], None]
) -> str:
    """Train the variants, ask them and the demo's policy; returns one line each."""
    from annotators.vlm.local import nano_model_dir
    from trainers.loop import train
    from trainers.recipes import recipe
    from trainers.vlm.retention import compare, read_retention

    base = nano_model_dir()
    for done, (ref, (name, with_questions)) in enumerate(VARIANTS.items(), 1):
        config = recipe(name, weights=base)
        # Only the first stage moves the VLM; the runs are short, so they do without a worker of their own.
        train(
            mix=made.mix if with_questions else made.robot_only_mix,
            to=ref,
            workspace=workspace,
            recipe=replace(config, stages=config.stages[:1]),
            steps=steps,
            in_process=True,
        )
        on_run(done, len(VARIANTS) + 1)
    compare(
        base=base,
        checkpoints=[*VARIANTS, made.checkpoint],
        to=made.retention,
        workspace=workspace,
        exams_per_skill=exams,
    )
    on_run(len(VARIANTS) + 1, len(VARIANTS) + 1)
    lines = []
    for one in read_retention(workspace.find("evaluations", made.retention)):
        all_skills = one.rows[0]
        lines.append(
            f"{one.checkpoint}: {all_skills.base_right} -> {all_skills.right} of {all_skills.num} right, "
            f"{all_skills.change:+.1%} ({all_skills.low:+.1%} to {all_skills.high:+.1%})"
        )
    return "\n   ".join(lines)
