"""The verbs, in the order of the path. Heavy libraries are imported inside the verbs: `--help` stays under a second."""

from typing import Any

import typer
from typer.core import TyperGroup

from apps.cli import conversion, corpus, data, editing, labels, path, reviewing, robot, shelf, transfer, vlm


class InOrder(TyperGroup):
    """Lists the verbs in the order of the path; Typer would list those last that have verbs of their own."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - Typer keeps the type to itself
        """The verbs as a user meets them."""
        names = list(self.commands)
        for group, following in (("review", "release"), ("mix", "train")):
            names.remove(group)
            names.insert(names.index(following), group)
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
app.command()(data.inspect)
app.command()(conversion.convert)
app.command()(data.verify)
app.command()(editing.edit)
app.command()(labels.annotate)
app.command()(labels.release)
app.add_typer(reviewing.review_app, name="review")
app.add_typer(corpus.mix_app, name="mix")
app.command()(robot.train)
app.command()(robot.evaluate)
app.command()(robot.serve)
app.command()(vlm.serve_vlm)
app.command()(robot.rollout)
app.command()(transfer.push)
app.command()(transfer.pull)
app.command("list")(shelf.list_artifacts)
app.command()(shelf.show)
