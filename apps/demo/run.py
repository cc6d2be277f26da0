"""The stages of the demo, in order. Each reads what the one before left; a killed demo goes on where it stopped."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from apps.cli.progress import progress
from apps.demo.retention import measure_retention
from dataengine.artifacts import write_atomic
from dataengine.workspace import Workspace
from schemas.errors import EngineError, UsageError
from schemas.refs import Kind, Ref

MIX_FILE = """\
# Robot : image-text = 3 : 1, ChatVLA-2's ratio. Paths are relative to this file.
num_samples: {num_samples}
seed: 0
sources:
  - kind: robot
    name: tabletop
    episodes: sim@1
    annotations: sim-verified@1
    reasoning: trace
    cameras: [cam_high]
    chunk_steps: 50
    weight: 3
  - kind: rendered
    name: questions
    rows_per_skill: {rows_per_skill}
    weight: 1
"""
ROBOT_ONLY_MIX_FILE = MIX_FILE.partition("  - kind: rendered")[0]
DRAWS_PER_ROW = 88  # samples of a pass per rendered row of a skill: two passes over each of eleven skills' rows


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """How much of everything; the defaults end within 10 minutes on 2 cores."""

    num_episodes: int = 20
    rows_per_skill: int = 24  # of image-text questions
    num_steps: int = 48
    num_exams: int = 10  # held-out questions a skill they are asked
    num_trials: int = 20  # of each yardstick
    num_toys: int = 2  # demonstrations of the second task family, annotated and shown
    num_policy_trials: int = 4  # of the trained policy: it speaks token by token on a CPU
    seed: int = 0

    @property
    def retention_steps(self) -> int:
        """Of each of the four short runs that show what is forgotten."""
        return max(2, self.num_steps // 6)

    def __post_init__(self) -> None:
        if self.num_trials > self.num_episodes:
            raise UsageError(
                f"{self.num_trials} trials replay as many recordings, but only {self.num_episodes} are recorded. "
                f"Ask for --trials {self.num_episodes} or fewer."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoArtifacts:
    """The names the demo gives to what it makes."""

    episodes: Ref
    toys: Ref
    annotations: Ref
    mix: Ref
    robot_only_mix: Ref
    checkpoint: Ref
    retention: Ref
    trials: Ref

    def chain(self) -> tuple[tuple[Kind, Ref], ...]:
        """Every artifact in the order of the path."""
        return (
            ("episodes", self.episodes),
            ("frames", self.episodes),
            ("annotations", self.annotations),
            ("mixes", self.mix),
            ("checkpoints", self.checkpoint),
            ("evaluations", self.retention),
            ("evaluations", self.trials),
        )


MADE = DemoArtifacts(
    episodes=Ref("sim", "1"),
    toys=Ref("toys", "1"),
    annotations=Ref("sim-verified", "1"),
    mix=Ref("demo", "1"),
    robot_only_mix=Ref("demo-robot-only", "1"),
    checkpoint=Ref("nano", "1"),
    retention=Ref("demo-retention", "1"),
    trials=Ref("demo-trials", "1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """How long one stage took, over all runs of the demo in this workspace."""

    name: str
    seconds: float
    summary: str


class Clock:
    """Adds up the time each stage took, kept in the workspace: a killed or repeated demo still knows all of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times: list[StageTime] = []
        if path.exists():
            self.times = [StageTime(**row) for row in json.loads(path.read_text())]

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time one stage; the body gives its one-line summary."""
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        summary = ""

        def say(text: str) -> None:
            nonlocal summary
            summary = text
            sys.stdout.write(f"   {text}\n")
            sys.stdout.flush()

        start = time.monotonic()
        known = {row.name: row for row in self.times}
        before = known.get(name)
        try:
            yield say
        finally:
            seconds = time.monotonic() - start + (before.seconds if before else 0.0)
            known[name] = StageTime(name=name, seconds=seconds, summary=summary or (before.summary if before else ""))
            self.times = list(known.values())
            write_atomic(self.path, json.dumps([asdict(row) for row in self.times]).encode())


def run_demo(workspace: Workspace, config: DemoConfig) -> Path:
    """Run every stage and write `report.html`; returns its path."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    clock = Clock(workspace.root / "demo_times.json")
    raw = workspace.root / "raw" / "sim"
    _collect(workspace, config, clock, raw)
    _label(workspace, clock)
    _toys(workspace, config, clock)
    _mix_and_train(workspace, config, clock)
    _try(workspace, config, clock, raw)
    from apps.report import write_report

    with clock.stage("report") as say:
        path = write_report(workspace, MADE, clock.times)
        say(f"{path} ({path.stat().st_size / 1e6:.1f} MB, self-contained)")
    return path


def _collect(workspace: Workspace, config: DemoConfig, clock: Clock, raw: Path) -> None:
    """Raw episodes in, a dataset that was proven equal to them out."""
    from apps.cli.words import convert_words, inspection_headline, verify_words
    from apps.sim.simulate import simulate
    from dataengine.convert import convert
    from dataengine.inspection import inspect_path
    from dataengine.verification import verify

    with clock.stage("simulate") as say, progress("simulate") as on_progress:
        report = simulate(
            out=raw,
            num_episodes=config.num_episodes,
            split="in-domain",
            seed=config.seed,
            workers=2,
            on_progress=on_progress,
        )
        say(report.summary())
    with clock.stage("inspect") as say:
        say(inspection_headline(inspect_path(raw)))
    with clock.stage("convert") as say, progress("convert") as on_progress:
        done = convert(
            source_path=raw,
            to=MADE.episodes,
            workspace=workspace,
            rig="aloha_sim",
            sink="both",
            on_progress=on_progress,
        )
        say(convert_words(done))
    with clock.stage("verify") as say, progress("verify") as on_progress:
        proof = verify(
            source_path=raw, ref=MADE.episodes, workspace=workspace, rig="aloha_sim", on_progress=on_progress
        )
        say(verify_words(proof))
        if not proof.ok:
            raise EngineError("the converted dataset differs from its source; see the lines above.")


def _label(workspace: Workspace, clock: Clock) -> None:
    """Proposals, verifier results and review items into the ledger; what programs verified out as a release."""
    from annotators.annotate import annotate
    from annotators.ledger import Ledger
    from annotators.release import release
    from annotators.vlm.backends import Perception

    with Ledger.open(workspace.ledger_url) as ledger:
        with clock.stage("annotate") as say, progress("annotate") as on_progress:
            report = annotate(
                episodes=MADE.episodes,
                workspace=workspace,
                family="math-matching",
                backend=Perception(),  # the small VLM lists one table in five wrong: docs/nano-vlm.md
                workers=None,
                ray_address=None,
                ledger=ledger,
                on_progress=on_progress,
            )
            say(report.summary())
        with clock.stage("review") as say:
            status = ledger.progress()
            say(
                f"{status.num_items} items wait for a reviewer ({status.num_done} decided): make review. "
                "Nobody looked in this demo."
            )
        with clock.stage("release") as say:
            record = release(
                episodes=MADE.episodes, to=MADE.annotations, workspace=workspace, ledger=ledger, policy="verified"
            )
            say(
                f"{record.counts['rows']} rows by policy 'verified' (every hard verifier passed, nobody looked), "
                f"{len(record.rejected)} items left out"
            )


def _toys(workspace: Workspace, config: DemoConfig, clock: Clock) -> None:
    """The second task family in small: a few demonstrations, converted and annotated, for the report to show."""
    from annotators.annotate import annotate
    from annotators.ledger import Ledger
    from annotators.vlm.backends import Perception
    from apps.sim.simulate import simulate
    from dataengine.convert import convert

    raw = workspace.root / "raw" / "toys"
    with clock.stage("toys") as say:
        simulate(
            out=raw, num_episodes=config.num_toys, task="toy-placement", split="in-domain", seed=config.seed, workers=2
        )
        convert(source_path=raw, to=MADE.toys, workspace=workspace, rig="aloha_sim")
        with Ledger.open(workspace.ledger_url) as ledger:
            report = annotate(
                episodes=MADE.toys,
                workspace=workspace,
                family="toy-placement",
                backend=Perception(),
                ledger=ledger,
                workers=0,  # two episodes are looked at sooner than workers start
            )
        say(report.summary())


def _mix_and_train(workspace: Workspace, config: DemoConfig, clock: Clock) -> None:
    """Released episodes and rendered questions in, locked mixes and a trained checkpoint out."""
    from annotators.vlm.local import nano_model_dir
    from dataengine.mix import Mix, build_mix
    from trainers.loop import train
    from trainers.recipes import recipe
    from trainers.tokenizer import tokenizer_of

    nano = recipe("nano", weights=nano_model_dir())
    with clock.stage("mix") as say:
        for ref, words in ((MADE.mix, MIX_FILE), (MADE.robot_only_mix, ROBOT_ONLY_MIX_FILE)):
            spec = workspace.root / "raw" / f"{ref}.yaml"
            num_samples = DRAWS_PER_ROW * config.rows_per_skill
            write_atomic(spec, words.format(num_samples=num_samples, rows_per_skill=config.rows_per_skill).encode())
            build_mix(
                spec_path=spec,
                to=ref,
                workspace=workspace,
                tokenizer=tokenizer_of(nano),
                image_tokens=nano.image_tokens,
            )
        say(Mix.open(workspace, MADE.mix).tree())
    with clock.stage("train") as say, progress("train", unit="steps") as on_progress:
        record = train(
            mix=MADE.mix,
            to=MADE.checkpoint,
            workspace=workspace,
            recipe=nano,
            steps=config.num_steps,
            on_progress=on_progress,
        )
        say(", ".join(f"{name} {value:,.3g}" for name, value in record.counts.items()))
    with clock.stage("retention") as say, progress("retention", unit="runs") as on_progress:
        say(
            measure_retention(workspace, MADE, steps=config.retention_steps, exams=config.num_exams, on_run=on_progress)
        )


def _try(workspace: Workspace, config: DemoConfig, clock: Clock, raw: Path) -> None:
    """Closed-loop trials of the trained policy beside the two yardsticks."""
    from apps.rollout.run import RolloutSettings, rollout

    with clock.stage("rollout") as say, progress("rollout", unit="trials") as on_progress:
        report = rollout(
            workspace=workspace,
            to=MADE.trials,
            settings=RolloutSettings(
                trials=config.num_trials,
                policy_trials=min(config.num_policy_trials, config.num_trials),
                seed=config.seed + 1000,
                max_steps=350,
            ),
            episodes=MADE.episodes,
            ground_truth=raw.with_name(f"{raw.name}.ground_truth"),
            checkpoint=MADE.checkpoint,
            mix=MADE.mix,
            splits=("open-world",),
            on_progress=lambda done, total, _row: on_progress(done, total),
        )
        say("\n   ".join(row.line() for row in report.summaries()))
