"""`demo`: the whole path in one command."""

from typing import Annotated

import typer

from apps.cli.options import DEFAULT_WORKSPACE, WorkspaceDir


def demo(
    workspace: WorkspaceDir = DEFAULT_WORKSPACE,
    episodes: Annotated[int, typer.Option("--episodes", min=4, help="Demonstrations to record.")] = 20,
    steps: Annotated[int, typer.Option("--steps", min=4, help="Training steps of both stages.")] = 48,
    exams: Annotated[int, typer.Option("--exams", min=1, help="Held-out questions a skill, before and after.")] = 10,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Closed-loop trials per policy.")] = 20,
) -> None:
    """Simulate, convert, annotate, release, mix, train, roll out, and write report.html.

    Example: dataengine demo
    """
    from apps.demo import DemoConfig, run_demo
    from apps.report.report import NEXT_COMMANDS
    from dataengine.workspace import Workspace

    place = Workspace.at(workspace)
    report = run_demo(place, DemoConfig(num_episodes=episodes, num_steps=steps, num_exams=exams, num_trials=trials))
    typer.echo(f"\nReport: {report}\n")
    typer.echo("On your own data:")
    for command in NEXT_COMMANDS:
        typer.echo(f"  {command}")
