"""The verbs, in the order of the path. Heavy libraries are imported inside the verbs: `--help` stays under a second."""

import typer

from apps.cli import corpus, data, labels, path, robot, shelf

app = typer.Typer(
    name="dataengine",
    help="The data engine behind robots that reason: teleop files in, a trained mixture-of-experts VLA on a robot out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.command()(path.demo)
app.command()(data.simulate)
app.command()(data.inspect)
app.command()(data.convert)
app.command()(data.verify)
app.command()(labels.annotate)
app.command()(labels.review)
app.command()(labels.release)
app.add_typer(corpus.mix_app, name="mix")
app.command()(robot.train)
app.command()(robot.serve)
app.command()(robot.rollout)
app.command("list")(shelf.list_artifacts)
app.command()(shelf.show)
