"""The verbs, in the order of the path. Heavy libraries are imported inside the verbs: `--help` stays under a second."""

from typing import Any

import typer
from typer.core import TyperGroup

from apps.cli import (
    conversion,
    corpus,
    data,
    editing,
    exporting,
    labels,
    path,
    reviewing,
    robot,
    scores,
    shelf,
    transfer,
    vlm,
)

_BEFORE = {
    "review": "release",
    "mix": "train",
    "evaluate": "serve",
}  # verbs with verbs of their own: Typer lists them last


class InOrder(TyperGroup):
    """Lists the verbs in the order of the path."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Typer keeps the type to itself
        """The verbs as a user meets them."""
        names = list(self.commands)
        for name, next_name in _BEFORE.items():
            names.remove(name)
            names.insert(names.index(next_name), name)
        return names


app = typer.Typer(
    name="dataengine",
    cls=InOrder,
    help="The data engine behind robots that reason: teleop files in, a trained mixture-of-experts VLA on a robot out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.command()(path.demo)
app.command()(data.simulate)
app.command()(data.render)
app.command()(data.inspect)
app.command()(conversion.convert)
app.command()(data.verify)
app.command()(editing.edit)
app.command()(labels.annotate)
app.command()(labels.release)
app.command()(exporting.export)
app.add_typer(reviewing.review_app, name="review")
app.add_typer(corpus.mix_app, name="mix")
app.command()(robot.train)
app.add_typer(scores.evaluate_app, name="evaluate")
app.command()(robot.serve)
app.command()(vlm.serve_vlm)
app.command()(robot.rollout)
app.command()(transfer.push)
app.command()(transfer.pull)
app.command("list")(shelf.list_artifacts)
app.command()(shelf.show)
