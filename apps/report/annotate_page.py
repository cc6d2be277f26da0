"""The page of `annotate`: each episode as a filmstrip, under it what was cut and said, and what programs think."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import batched
from pathlib import Path

import numpy as np

from annotators.ledger import Ledger, StoredProposal
from annotators.structure import LABELS
from apps.report.page import Html, note, page, picture, section, table, trace
from apps.report.pictures import filmstrip
from dataengine.artifacts import write_atomic
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import Segment, SegmentList, VerifierResult
from schemas.refs import Ref
from schemas.spans import NS_PER_S

SHOWN = 12  # episodes with pictures
_NUM_FRAMES = 8
_HEIGHT = 110
_VERDICTS = ("pass", "fail", "unknown")
STYLE = """<style>
.strip { margin: 0 0 4px; } .strip img { width: 100%; border-radius: 6px 6px 0 0; }
.cuts { position: relative; height: 30px; border-radius: 0 0 6px 6px; overflow: hidden; background: var(--ground); }
.cuts span { position: absolute; top: 0; bottom: 0; padding: 5px 5px; font-size: 12.5px; line-height: 20px;
  color: #1c2430; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  border-left: 1px solid #ffffff; background: #d5d8dd; }
.cuts .reach { background: #b9d3ee; } .cuts .grasp { background: #f0cf92; } .cuts .carry { background: #b7ddbc; }
.cuts .release { background: #efbfbb; } .cuts .retreat { background: #d3c7ea; } .cuts .move { background: #c4dbe6; }
.cuts .hold { background: #d9d6c8; } .clock { display: flex; justify-content: space-between; color: var(--soft);
  font-size: 12.5px; margin: 0 0 6px; font-variant-numeric: tabular-nums; }
.told { font-size: 13.5px; margin: 2px 0 8px; padding-left: 18px; columns: 2; } .told li { break-inside: avoid; }
@media (max-width: 700px) { .told { columns: 1; } }
</style>"""


def write_annotate_page(
    path: Path, *, workspace: Workspace, episodes: Ref, ledger: Ledger, family: str, shown: int = SHOWN
) -> Path:
    """Write one self-contained page about the newest proposals of a family (`generic@1`) to `path` and return it."""
    opened = EpisodeSet.open(workspace, episodes)
    newest: dict[str, dict[str, StoredProposal]] = {}
    for some in batched(opened.ids(), 500):
        for stored in ledger.proposals(episode_ids=some):
            if stored.proposal.family == family:
                newest.setdefault(stored.proposal.episode_id, {})[stored.proposal.field] = stored
    results = [one for fields in newest.values() for stored in fields.values() for one in stored.results]
    parts = [episode_section(opened, name, newest[name]) for name in opened.ids() if name in newest][:shown]
    left = len(newest) - len(parts)
    body = [STYLE, section("What programs think of it", verdict_table(results)), *parts]
    if left > 0:
        body.append(note(f"{left} more episodes are annotated and not drawn here."))
    lead = f"{len(newest)} of {len(opened.ids())} episodes, {family}, as proposed; review shows what was confirmed."
    write_atomic(path, page(f"Annotate {episodes}", lead, body).encode())
    return path


def verdict_table(results: Sequence[VerifierResult]) -> str:
    """How often each verifier said what."""
    counts: dict[str, Counter[str]] = {}
    for one in results:
        counts.setdefault(one.verifier, Counter())[one.verdict] += 1
    rows = [(name, *(counted[verdict] for verdict in _VERDICTS)) for name, counted in sorted(counts.items())]
    return table(("verifier", *_VERDICTS), rows)


def episode_section(opened: EpisodeSet, episode_id: str, fields: dict[str, StoredProposal]) -> str:
    """One episode: its filmstrip with what was cut under it, its words, and every verdict that is no pass."""
    parts = [note(f"task: {opened.row(episode_id).task}")]
    cut = fields.get("segments")
    payload = cut.proposal.payload if cut else None
    parts.append(annotated_strip(opened, episode_id, payload if isinstance(payload, SegmentList) else None))
    if "trace" in fields:
        parts.append(trace(fields["trace"].proposal.text))
    parts += [
        note(f"{name}: {stored.proposal.provenance.backend}, {stored.proposal.provenance.model}")
        for name, stored in sorted(fields.items())
    ]
    results = [one for _, stored in sorted(fields.items()) for one in stored.results]
    doubts = [one for one in results if one.verdict != "pass"]
    rows = [(one.verifier, Html(f'<span class="{one.verdict}">{one.verdict}</span>'), one.evidence) for one in doubts]
    passed = len(results) - len(doubts)
    parts.append(table(("verifier", "verdict", "evidence"), rows) if rows else "")
    parts.append(note(f"{passed} of {len(results)} verdicts are a pass."))
    return section(episode_id, *parts)


def annotated_strip(opened: EpisodeSet, episode_id: str, segments: SegmentList | None) -> str:
    """A filmstrip, and under it, to the same scale of time, the segments: hover for a segment's words."""
    row, rate_hz = opened.row(episode_id), opened.rate_hz
    if not opened.cameras:
        strip = note("No camera: no pictures.")
    else:
        # Each picture is the middle of the stretch of time it stands over.
        places = ((np.arange(_NUM_FRAMES) + 0.5) / _NUM_FRAMES * row.num_frames).astype(int).tolist()
        frames = [opened.frame(episode_id, opened.cameras[0], index) for index in places]
        strip = picture(filmstrip(frames, height=_HEIGHT), "jpeg", f"{len(frames)} frames of {episode_id}")
    start_ns, end_ns = int(opened.stamps_ns(episode_id)[0]), opened.end_ns(episode_id)
    cuts = "".join(_cut(one, start_ns, end_ns) for one in segments.segments) if segments else ""
    marks = [f"{start_ns / NS_PER_S + share * row.num_frames / rate_hz:.1f} s" for share in (0, 0.25, 0.5, 0.75, 1)]
    clock = "".join(f"<span>{mark}</span>" for mark in marks)
    drawn = f'<div class="strip">{strip}<div class="cuts">{cuts}</div></div><div class="clock">{clock}</div>'
    return drawn + _told(segments)


def _cut(one: Segment, start_ns: int, end_ns: int) -> str:
    left, right = (100 * (at - start_ns) / (end_ns - start_ns) for at in (one.start_ns, one.end_ns))
    kind = one.phase if one.phase in LABELS else "unknown"
    words = f"{one.start_ns / NS_PER_S:.2f} to {one.end_ns / NS_PER_S:.2f} s: {one.render()}"
    place = f"left:{left:.3f}%;width:{right - left:.3f}%"
    return f'<span class="{kind}" style="{place}" title="{escape(words)}">{escape(one.label)}</span>'


def _told(segments: SegmentList | None) -> str:
    """The same in words, with the moves of each segment."""
    if segments is None:
        return ""
    lines = "".join(
        f"<li>{one.start_ns / NS_PER_S:.2f} s {escape(one.render())}"
        f"{escape(f' ({", ".join(one.moves)})') if one.moves else ''}</li>"
        for one in segments.segments
    )
    return f'<ol class="told">{lines}</ol>'
