"""The way back from a training draw: to the raw episode and frame, and to the person or program behind its words."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataengine.annotation_set import AnnotationSet, ReleasedRow
from dataengine.mix.mix import Mix
from dataengine.mix.robot_items import NO_ROW
from dataengine.mix.sampling import ImageTextReader, RobotReader
from schemas.errors import MixError, did_you_mean
from schemas.mixes import Draw, HfSource, ImageTextSource, LlavaSource, RenderedSource, RobotSource
from schemas.records import sha256_of

_BLOCK = 1 << 16  # draws looked through at once


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """One step of the way back: what it is, what is known about it, and what it came from."""

    kind: str  # "draw", "source", "episode", "frame", "annotation", "decision", "call", ...
    name: str
    facts: tuple[tuple[str, str], ...] = ()
    came_from: tuple["LineageNode", ...] = ()

    def render(self) -> str:
        """The tree as text."""
        return "\n".join(self._lines("", ""))

    def _lines(self, first: str, rest: str) -> Iterator[str]:
        yield f"{first}{self.kind} {self.name}"
        bar = "│  " if self.came_from else "   "
        yield from (f"{rest}{bar}{key}: {value}" for key, value in self.facts)
        for number, node in enumerate(self.came_from):
            last = number == len(self.came_from) - 1
            yield from node._lines(rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))

    def to_json(self) -> dict[str, Any]:
        """The tree as plain JSON values."""
        return {
            "kind": self.kind,
            "name": self.name,
            "facts": dict(self.facts),
            "came_from": [node.to_json() for node in self.came_from],
        }

    def find(self, kind: str) -> "LineageNode | None":
        """The first node of a kind, depth first."""
        if self.kind == kind:
            return self
        return next((found for node in self.came_from if (found := node.find(kind))), None)


def lineage(mix: Mix, position: int) -> LineageNode:
    """The way back from the draw at a position."""
    draw = mix.draw(position)
    reader = mix.reader(draw.source)
    match reader:
        case RobotReader():
            steps = _robot(mix, reader, draw)
        case ImageTextReader():
            steps = (_image_text(mix, reader, draw),)
    return LineageNode(
        kind="draw",
        name=f"{position} of {mix.ref}",
        facts=(
            ("mix fingerprint", mix.fingerprint),
            ("epoch", str(position // mix.num_samples)),
            ("position in the pass", str(position % mix.num_samples)),
            ("source", draw.source),
            ("item", str(draw.item)),
            ("times drawn before in this pass", str(draw.repeat)),
        ),
        came_from=steps,
    )


def first_draw_of(mix: Mix, episode_id: str) -> int:
    """The first position of a pass that draws from an episode. Raises MixError that says why there is none."""
    for number, source in enumerate(mix.lock.sources):
        if episode_id not in source.train_episodes:
            continue
        reader = mix.reader(source.name)
        if not isinstance(reader, RobotReader):
            continue
        first, last = reader.items.range_of(episode_id)
        for start in range(0, mix.num_samples, _BLOCK):
            block = mix.draws(start, min(_BLOCK, mix.num_samples - start))
            hit = np.flatnonzero((block.source == number) & (block.item >= first) & (block.item < last))
            if len(hit):
                return start + int(hit[0])
    known = [name for source in mix.lock.sources for name in source.train_episodes]
    if any(episode_id in source.validation_episodes for source in mix.lock.sources):
        raise MixError(f"episode '{episode_id}' is held out for validation in '{mix.ref}'. Training never draws it.")
    if episode_id in known:
        raise MixError(f"no draw of one pass of '{mix.ref}' comes from episode '{episode_id}'. Raise the weight.")
    raise MixError(f"mix '{mix.ref}' has no episode '{episode_id}'. {did_you_mean(episode_id, known)}")


def _robot(mix: Mix, reader: RobotReader, draw: Draw) -> tuple[LineageNode, ...]:
    place = reader.address(draw.item)
    row = reader.episodes.row(place.episode_id)
    stamp_ns = int(reader.episodes.stamps_ns(place.episode_id)[place.frame])
    raw = LineageNode(
        kind="raw",
        name=row.metadata.get("raw_name", "unknown"),
        facts=tuple((f"made from {made.kind} {made.ref}", made.fingerprint) for made in reader.episodes.record.inputs),
    )
    metadata = tuple(sorted((key, value) for key, value in row.metadata.items() if key != "raw_name"))
    episode = LineageNode(
        kind="episode",
        name=f"{place.episode_id} of {reader.source.episodes}",
        facts=(("task", row.task), *metadata, ("episodes fingerprint", reader.episodes.fingerprint)),
        came_from=(raw,),
    )
    frame = LineageNode(
        kind="frame",
        name=f"{place.frame} of {row.num_frames}",
        facts=(("stamp_ns", str(stamp_ns)), ("cameras", ", ".join(reader.source.cameras))),
        came_from=(episode,),
    )
    numbers = reader.normalizer.to_json()
    normalizer = LineageNode(
        kind="normaliser",
        name=reader.normalizer.embodiment,
        facts=(("sha256", sha256_of(numbers)), ("fitted on", f"{_num_train(mix, draw.source)} training episodes")),
    )
    if reader.annotations is None or place.annotation_row == NO_ROW:
        return (frame, normalizer)
    return (frame, _annotation(reader.annotations, place.annotation_row), normalizer)


def _num_train(mix: Mix, source: str) -> int:
    return next(len(lock.train_episodes) for lock in mix.lock.sources if lock.name == source)


def _annotation(released: AnnotationSet, index: int) -> LineageNode:
    row = released.row(index)
    return LineageNode(
        kind="annotation",
        name=f"row {index} of {released.ref}",
        facts=(
            ("text", row.text),
            ("field", row.field),
            ("span_ns", f"[{row.start_ns}, {row.end_ns})"),
            ("basis", row.basis),
            ("family", row.family),
            ("ledger seq", str(row.ledger_seq)),
            ("annotations fingerprint", released.fingerprint),
        ),
        came_from=(*_decision(row), _proposal(row)),
    )


def _decision(row: ReleasedRow) -> tuple[LineageNode, ...]:
    if row.decision_id is None:
        return (LineageNode(kind="decision", name="none: nobody looked"),)
    facts = (("action", row.decision_action), ("reviewer", row.reviewer), ("decided at", row.decided_at))
    known = tuple((key, value) for key, value in facts if value is not None)
    return (LineageNode(kind="decision", name=row.decision_id, facts=known),)


def _proposal(row: ReleasedRow) -> LineageNode:
    calls = tuple(LineageNode(kind="call", name=key) for key in row.call_keys)
    facts = [("backend", row.backend), ("model", row.model)]
    if row.prompt_hash is not None:
        facts.append(("prompt hash", row.prompt_hash))
    return LineageNode(
        kind="proposal", name=row.proposal_id, facts=(*facts, *_verdicts(row.verifiers_json)), came_from=calls
    )


def _verdicts(text: str) -> tuple[tuple[str, str], ...]:
    """Verifier results as facts; a release may hold none."""
    rows = json.loads(text)
    return tuple(
        (f"verifier {row.get('verifier', '?')}@{row.get('version', '?')}", str(row.get("verdict", "?")))
        for row in rows
        if isinstance(row, dict)
    )


def _origin(source: ImageTextSource) -> tuple[str, str]:
    """Where an image-text source comes from, and in which layout."""
    match source:
        case LlavaSource():
            return source.path, source.layout
        case HfSource():
            return source.path, "datasets"
        case RenderedSource():
            return source.name, f"rendered, seed {source.seed}"


def _image_text(mix: Mix, reader: ImageTextReader, draw: Draw) -> LineageNode:
    pinned = next(lock for lock in mix.lock.sources if lock.name == draw.source)
    raw_name, layout = _origin(reader.source)
    packed = [source.name for source in mix.lock.spec.sources if not isinstance(source, RobotSource)]
    raws = [row for row in mix.record.inputs if row.kind == "raw"]  # one per image-text source, in their order
    raw = raws[packed.index(draw.source)]
    pictures = tuple(
        LineageNode(kind="picture", name=f"{number + 1}", facts=(("sha256 of its file", digest),))
        for number, digest in enumerate(reader.rows.digests(draw.item))
    )
    return LineageNode(
        kind="row",
        name=f"{reader.rows.row_id(draw.item)} of {raw_name}",
        facts=(("layout", layout), ("source fingerprint", pinned.fingerprint)),
        came_from=(LineageNode(kind="raw", name=raw_name, facts=(("fingerprint", raw.fingerprint),)), *pictures),
    )
