"""The report of a demo: one section per stage, read back from the artifacts themselves, never from memory."""

import json
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from apps.report.annotated import STYLE, annotated_strip
from apps.report.page import Html, note, page, picture, section, table, trace, verbatim
from apps.report.pictures import curves, filmstrip
from apps.report.retention_section import retention_section
from dataengine.artifacts import write_atomic
from dataengine.workspace import Workspace
from schemas.records import Record
from schemas.refs import Ref

if TYPE_CHECKING:
    from annotators.ledger import StoredProposal
    from apps.demo.run import DemoArtifacts, StageTime
    from dataengine.episode_set import EpisodeSet

NEXT_COMMANDS = (
    "dataengine inspect PATH --rig-out mylab.yaml     # what it is; answer the questions in mylab.yaml",
    "dataengine convert PATH --rig mylab.yaml --to mylab@1",
    "dataengine annotate mylab@1 --family generic && dataengine review mylab@1 --reviewer YOU",
)
NUM_STRIPS = 3
NUM_STRIP_FRAMES = 6
VERDICTS = ("pass", "fail", "unknown")


def write_report(workspace: Workspace, made: "DemoArtifacts", times: "Sequence[StageTime]") -> Path:
    """Write `report.html` into the workspace and return its path."""
    body = [
        STYLE,
        _path(workspace, made),
        _times(times),
        _episodes(workspace, made.episodes, times),
        _labels(workspace, made),
        *_toys(workspace, made),
        *other_episodes(workspace, (made.episodes, made.toys)),
        _mix(workspace, made.mix),
        _training(workspace, made.checkpoint),
        retention_section(workspace, made.retention),
        _trials(workspace, made.trials),
        _next(),
    ]
    lead = "From teleoperation files to a robot that reads, reasons and acts. Numbers are read back from the artifacts."
    path = workspace.root / "report.html"
    write_atomic(path, page("Data engine demo", lead, body).encode())
    return path


def _path(workspace: Workspace, made: "DemoArtifacts") -> str:
    """The path in one row: what each stage left behind."""
    boxes = []
    for kind, ref in made.chain():
        record = workspace.record(kind, ref)
        counts = ", ".join(
            f"{value:,} {name}" for name, value in list(record.counts.items())[:2] if isinstance(value, int)
        )
        boxes.append(f"<div><b>{kind}</b>{ref}<br><span class='note'>{counts.replace('_', ' ')}</span></div>")
    return f'<div class="path">{"".join(boxes)}</div>'


def _times(times: "Sequence[StageTime]") -> str:
    longest = max((row.seconds for row in times), default=1.0)
    rows = [
        (
            row.name,
            row.seconds,
            Html(f'<span class="bar" style="width:{max(2, round(220 * row.seconds / longest))}px"></span>'),
        )
        for row in times
    ]
    total = sum(row.seconds for row in times)
    return section(
        f"Seconds per stage: {total:.0f} in all",
        table(("stage", "seconds", ""), rows),
        note("Summed over all runs in this workspace; a repeated demo finds finished artifacts and skips them."),
    )


def _summary(times: "Sequence[StageTime]", name: str) -> str:
    return next((row.summary for row in times if row.name == name), "")


def _episodes(workspace: Workspace, ref: Ref, times: "Sequence[StageTime]") -> str:
    record = workspace.record("episodes", ref)
    return section(
        "Episodes: raw HDF5 in, LeRobot v3.0 and a zarr frame store out",
        table(
            ("stage", "what it said"),
            [(name, _summary(times, name).partition("\n")[0]) for name in ("simulate", "inspect", "convert", "verify")],
        ),
        _record_table(record),
        _record_table(workspace.record("frames", ref)),
        _rejected(record),
    )


def _record_table(record: Record) -> str:
    size = sum(row.num_bytes for row in record.files) / 1e6
    counts = ", ".join(
        f"{value:,} {name.replace('_', ' ')}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value:.3g}"
        for name, value in record.counts.items()
    )
    row = (f"{record.kind}/{record.name}@{record.version}", counts, f"{size:,.1f} MB", record.fingerprint[:16])
    return table(("artifact", "holds", "size", "fingerprint"), [row])


def _rejected(record: Record) -> str:
    if not record.rejected:
        return note("Nothing was rejected.")
    return table(("left out", "reason"), [(row.episode, row.reason) for row in record.rejected[:20]])


def _labels(workspace: Workspace, made: "DemoArtifacts") -> str:
    """Filmstrips with their traces, what each verifier said, what waits for a person, what was released."""
    from annotators.ledger import Ledger
    from dataengine.episode_set import EpisodeSet

    episodes = EpisodeSet.open(workspace, made.episodes)
    record = workspace.record("annotations", made.annotations)
    with Ledger.open(workspace.ledger_url) as ledger:
        stored = _about(ledger.proposals(), episodes)
        status = ledger.progress()
    verdicts: dict[str, Counter[str]] = {}
    for row in stored:
        for result in row.results:
            verdicts.setdefault(result.verifier, Counter())[result.verdict] += 1
    traces = [row for row in stored if row.proposal.field == "trace"][:NUM_STRIPS]
    strips = [_annotated(episodes, row, stored) for row in traces]
    return section(
        "Reasoning: proposed by programs, checked by programs, waiting for people",
        *strips,
        table(
            ("verifier", *VERDICTS),
            [(name, *(counts[verdict] for verdict in VERDICTS)) for name, counts in sorted(verdicts.items())],
        ),
        note(
            f"Review: {status.num_items} items, {status.num_done} decided. Nobody looked in this demo: `make review`."
        ),
        _record_table(record),
        note("Policy 'verified': every hard verifier passed; no person confirmed these rows."),
        _rejected(record),
    )


def _about(stored: "Sequence[StoredProposal]", episodes: "EpisodeSet") -> "list[StoredProposal]":
    """Proposals about the episodes of one set."""
    ours = set(episodes.ids())
    return [row for row in stored if row.proposal.episode_id in ours]


def _annotated(episodes: "EpisodeSet", row: "StoredProposal", stored: "Sequence[StoredProposal]") -> str:
    """One episode: frames with boxes and segments, the words of its trace, and what every program said about them."""
    episode_id = row.proposal.episode_id
    said = [other.proposal for other in stored if other.proposal.episode_id == episode_id]
    return (
        annotated_strip(episodes, episode_id, said, num_frames=NUM_STRIP_FRAMES)
        + trace(row.proposal.text)
        + _results(row.results)
    )


def _toys(workspace: Workspace, made: "DemoArtifacts") -> list[str]:
    """The second task family, where the workspace holds episodes of it."""
    from annotators.ledger import Ledger
    from dataengine.episode_set import EpisodeSet

    if not workspace.path("episodes", made.toys).is_dir():
        return []
    episodes = EpisodeSet.open(workspace, made.toys)
    with Ledger.open(workspace.ledger_url) as ledger:
        stored = _about(ledger.proposals(), episodes)
    shown = [row for row in stored if row.proposal.field == "trace"][:NUM_STRIPS]
    notes = {row.proposal.episode_id: row for row in stored if row.proposal.field == "scene"}
    strips = [
        _annotated(episodes, row, stored)
        + note(notes[row.proposal.episode_id].proposal.text)
        + _results(notes[row.proposal.episode_id].results)
        for row in shown
        if row.proposal.episode_id in notes
    ]
    return [
        section(
            "Toy placement: things, relations, a plan, and questions about the picture",
            *strips,
            note("Boxes are those of the first picture; left and near are the robot's. Simulated, read by programs."),
        )
    ]


def other_episodes(workspace: Workspace, shown: "Sequence[Ref]") -> list[str]:
    """Whatever else was annotated in this workspace, real recordings among it; nothing where nothing was."""
    from annotators.ledger import Ledger
    from dataengine.episode_set import EpisodeSet

    parts: list[str] = []
    for ref in workspace.refs("episodes"):
        if ref in shown:
            continue
        episodes = EpisodeSet.open(workspace, ref)
        with Ledger.open(workspace.ledger_url) as ledger:
            stored = _about(ledger.proposals(), episodes)
        said = {row.proposal.episode_id: row.proposal.family for row in stored if row.proposal.field == "segments"}
        if not said:
            continue
        strips = []
        for episode_id in list(said)[:NUM_STRIPS]:
            proposals = [row.proposal for row in stored if row.proposal.episode_id == episode_id]
            strips.append(f"<h3>{escape(episode_id)}</h3>" + note(f"task: {episodes.row(episode_id).task}"))
            strips.append(annotated_strip(episodes, episode_id, proposals, num_frames=NUM_STRIP_FRAMES))
        if len(said) > NUM_STRIPS:
            strips.append(note(f"{len(said) - NUM_STRIPS} more are annotated and not drawn here."))
        families = ", ".join(sorted(set(said.values())))
        parts.append(section(f"Also in this workspace: {ref}, annotated with {families}", *strips))
    return parts


def _results(results: Sequence[object]) -> str:
    from schemas.annotations import VerifierResult

    rows = [
        (row.verifier, Html(f'<span class="{row.verdict}">{row.verdict}</span>'), row.evidence)
        for row in results
        if isinstance(row, VerifierResult)
    ]
    return table(("verifier", "verdict", "evidence"), rows)


def _mix(workspace: Workspace, ref: Ref) -> str:
    from dataengine.mix import Mix, lineage

    mix = Mix.open(workspace, ref)
    return section(
        "Mix: a locked corpus",
        verbatim(mix.tree()),
        _record_table(workspace.record("mixes", ref)),
        "<h3>The way back of draw 0</h3>",
        verbatim(lineage(mix, 0).render()),
    )


def _training(workspace: Workspace, ref: Ref) -> str:
    home = workspace.find("checkpoints", ref)
    rows = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    starts: dict[str, float] = {}
    for row in rows:
        starts.setdefault(row["stage"], row["step"])
    series = {}
    for key, title in (
        ("robot_text_loss", "reasoning loss"),
        ("image_text_loss", "image-text loss"),
        ("action_loss", "action loss"),
        ("expert_load_entropy", "expert load (1 = even)"),
    ):
        points = [(step, row[key]) for step, row in zip(steps, rows, strict=True) if row.get(key)]
        if points:
            series[title] = tuple(zip(*points, strict=True))
    drawn = curves({name: (list(x), list(y)) for name, (x, y) in series.items()}, x_label="step", marks=starts)
    last = rows[-1]
    return section(
        "Training: Qwen2-VL with 8 routed experts, top 2, and a diffusion action expert",
        picture(drawn, "svg+xml", "loss curves"),
        table(("source", "draws consumed"), sorted(last["draws"].items())),
        note("A CPU toy: it shows that the path trains and resumes, not that a model of this size can play the game."),
        _record_table(workspace.record("checkpoints", ref)),
    )


def _trials(workspace: Workspace, ref: Ref) -> str:
    from apps.rollout.report import RolloutReport

    home = workspace.find("evaluations", ref)
    report = RolloutReport.read(home)
    rows = [
        (
            row.policy,
            row.split,
            f"{row.successes}/{row.trials}",
            f"{row.low:.0%} to {row.high:.0%}",
            row.grasped,
            row.picked_right,
            row.gate_rejects,
            row.round_trip_ms,
        )
        for row in report.summaries()
    ]
    shown = []
    for policy in dict.fromkeys(row.policy for row in report.rows):
        best = max((row for row in report.rows if row.policy == policy), key=lambda row: (row.success, len(row.frames)))
        strip = _trial_strip(home, best.frames)
        if strip:
            ending = "success" if best.success else best.failure
            shown.append(f"<h3>{policy}: {ending}, equation {best.equation}</h3>")
            shown.append(picture(strip, "jpeg", f"a trial of {policy}"))
            shown.append(trace(best.reasoning_line or "(it says nothing)"))
    head = ("policy", "scenes", "successes", "95 % interval", "grasped", "right card", "chunks refused", "ms per chunk")
    return section(
        "Closed-loop trials over the real socket",
        table(head, rows),
        note(
            "Recorded: chunks of converted episodes replayed through normalisation, server, gate and simulator; it "
            "shows that the data path and the control path are right. Random: what succeeds without a policy."
        ),
        *shown,
    )


def _trial_strip(home: Path, names: Sequence[str]) -> bytes | None:
    import numpy as np
    from PIL import Image

    frames = [np.asarray(Image.open(home / name).convert("RGB")) for name in names[:NUM_STRIP_FRAMES]]
    return filmstrip(frames, height=120) if frames else None


def _next() -> str:
    return section("On your own data", verbatim("\n".join(NEXT_COMMANDS)))
