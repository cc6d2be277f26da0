"""`train`, `serve`, `rollout`: from a locked mix to a policy on a robot, and trials that count."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from apps.cli.options import DEFAULT_WORKSPACE, AsJson, RayAddress, WorkspaceDir
from apps.cli.output import show_json, show_record
from apps.cli.progress import progress
from apps.cli.vlm import Weights, weights_folder
from dataengine.workspace import Workspace
from schemas.errors import UsageError, did_you_mean
from schemas.refs import Ref


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="nano, nano_dense, chatvla2_2b, or nano_vlm, "
            "then nano_vlm_places, _things, _more, _reasons, _looks, _hands, _counts and _reads."
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the checkpoint to make.")],
    mix: Annotated[
        str | None, typer.Option("--mix", help="NAME@VERSION of the mix; nano_vlm renders its own lessons.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=2, help="Total steps of all stages.")] = None,
    frames: Annotated[
        int, typer.Option("--frames", min=0, help="Simulator frames among the lessons of nano_vlm; 0 for none.")
    ] = 6000,
    exams: Annotated[
        int, typer.Option("--exams", min=1, help="Held-out questions a skill that nano_vlm is asked at the end.")
    ] = 200,
    weights: Weights = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    ray_address: RayAddress = None,
    as_json: AsJson = False,
) -> None:
    """Train the mixture-of-experts VLA in two stages, or the small VLM; the same command goes on after a kill.

    Example: dataengine train nano --mix corpus@1 --to policy@1
    """
    from apps.vlm import train_small
    from trainers.loop import train as run
    from trainers.recipes import RECIPES
    from trainers.recipes import recipe as find_recipe
    from trainers.vlm.recipe import VLM_RECIPES

    if recipe in VLM_RECIPES:
        if mix is not None:
            raise UsageError(f"recipe {recipe} renders its own lessons. Leave --mix out.")
        record, page = train_small(
            recipe,
            to=Ref.parse(to),
            workspace=Workspace.at(workspace),
            start=weights_folder(weights, workspace),
            steps=steps,
            frames=frames,
            exams=exams,
        )
        show_record(record, as_json=as_json)
        if not as_json:
            typer.echo(f"skills, curves and samples: {page}")
        return
    if recipe not in RECIPES:
        raise UsageError(f"no recipe '{recipe}'. {did_you_mean(recipe, [*RECIPES, *VLM_RECIPES])}")
    if mix is None:
        raise UsageError(f"recipe {recipe} learns from a mix. Name it: --mix NAME@VERSION.")
    config = find_recipe(recipe, weights=weights_folder(weights, workspace))
    with progress("train", unit="steps") as on_progress:
        record = run(
            mix=Ref.parse(mix),
            to=Ref.parse(to),
            workspace=Workspace.at(workspace),
            recipe=config,
            steps=steps,
            ray_address=ray_address,
            on_progress=on_progress,
        )
    show_record(record, as_json=as_json)


def serve(
    checkpoint: Annotated[str, typer.Argument(help="NAME@VERSION of the checkpoint.")],
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port")] = 8000,
    token: Annotated[
        str | None, typer.Option("--token", envvar="DATAENGINE_TOKEN", help="Required for any host but loopback.")
    ] = None,
    embodiment: Annotated[
        str | None, typer.Option("--embodiment", help="Which robot's normalisation, when the policy knows several.")
    ] = None,
    rate_hz: Annotated[int | None, typer.Option("--rate-hz", min=1, help="Control rate to announce.")] = None,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
) -> None:
    """Serve a policy over the openpi websocket protocol; openpi's own client works against it.

    Example: dataengine serve policy@1 --port 8000
    """
    from apps.server.run import serve_checkpoint

    counts = serve_checkpoint(
        Workspace.at(workspace),
        Ref.parse(checkpoint),
        host=host,
        port=port,
        token=token,
        embodiment=embodiment,
        rate_hz=rate_hz,
        on_ready=lambda ready: typer.echo(f"{checkpoint} listens on ws://{host}:{ready} (stop with Ctrl-C)"),
    )
    typer.echo(", ".join(f"{value} {name.replace('_', ' ')}" for name, value in asdict(counts).items()))


def rollout(
    to: Annotated[str, typer.Option("--to", help="NAME@VERSION of the evaluation to make.")],
    episodes: Annotated[
        str | None, typer.Option("--episodes", help="NAME@VERSION of recorded episodes, for the replay yardstick.")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option("--ground-truth", help="Folder that `simulate` wrote beside the raw episodes.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option("--checkpoint", help="NAME@VERSION of the policy to try.")] = None,
    mix: Annotated[
        str | None, typer.Option("--mix", help="Whose normalisation the replay passes through, without a checkpoint.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials per policy.")] = 20,
    policy_trials: Annotated[
        int | None, typer.Option("--policy-trials", min=1, help="Trials of the checkpoint, when fewer are wanted.")
    ] = None,
    split: Annotated[
        Literal["in-domain", "open-world", "both"], typer.Option("--split", help="Scenes the policy plays in.")
    ] = "both",
    yardstick: Annotated[
        Literal["recorded", "random", "both", "none"], typer.Option("--yardstick", help="What plays beside it.")
    ] = "both",
    seed: Annotated[int, typer.Option("--seed")] = 1000,
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    as_json: AsJson = False,
) -> None:
    """Closed-loop trials on the simulated robot over the real socket, beside two yardsticks.

    Example: dataengine rollout --episodes sim@1 --ground-truth raw/sim.ground_truth --checkpoint policy@1 --to trials@1
    """
    from apps.rollout.run import RolloutSettings, YardstickName
    from apps.rollout.run import rollout as run
    from apps.sim.game import SPLITS

    beside: dict[str, tuple[YardstickName, ...]] = {
        "recorded": ("recorded",),
        "random": ("random",),
        "both": ("recorded", "random"),
        "none": (),
    }

    with progress("rollout", unit="trials") as on_progress:
        report = run(
            workspace=Workspace.at(workspace),
            to=Ref.parse(to),
            settings=RolloutSettings(trials=trials, seed=seed, policy_trials=policy_trials),
            episodes=Ref.parse(episodes) if episodes else None,
            ground_truth=ground_truth,
            checkpoint=Ref.parse(checkpoint) if checkpoint else None,
            mix=Ref.parse(mix) if mix else None,
            yardsticks=beside[yardstick],
            splits=SPLITS if split == "both" else (split,),
            on_progress=lambda done, total, _row: on_progress(done, total),
        )
    if as_json:
        show_json(report.to_json())
        return
    for row in report.summaries():
        typer.echo(row.line())
