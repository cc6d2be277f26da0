"""The page of `annotate`: each episode as a filmstrip, under it what was cut and said, and what programs think."""

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import batched
from pathlib import Path

from annotators.calls import CallStore
from annotators.ledger import Ledger, StoredProposal
from annotators.structure import counted
from annotators.vlm.answers import keeps_to_schema
from apps.report.annotated import STYLE, annotated_strip
from apps.report.page import Html, note, page, section, table, trace
from dataengine.artifacts import write_atomic
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.annotations import SegmentList, VerifierResult
from schemas.refs import Ref
from schemas.scenes import SceneNotes
from schemas.spans import NS_PER_S

SHOWN = 12  # episodes with pictures
_NUM_FRAMES = 8
_VERDICTS = ("pass", "fail", "unknown")
_STYLE = """<style>
summary { cursor: pointer; font-size: 13.5px; color: var(--soft); } details ul { font-size: 13.5px; columns: 2; }
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
    stored_ones = [stored for fields in newest.values() for stored in fields.values()]
    body = [STYLE, _STYLE, section("What programs think of it", verdict_table(results))]
    body += [*asked_section(workspace, stored_ones), *parts]
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


def asked_section(workspace: Workspace, stored: Sequence[StoredProposal]) -> list[str]:
    """What asking each model took, from the calls that its proposals name; nothing where no model was asked."""
    keys: dict[str, set[str]] = {}
    for one in stored:
        told = one.proposal.provenance
        keys.setdefault(told.model, set()).update(told.call_keys)
    keys = {model: named for model, named in keys.items() if named}
    if not keys:
        return []
    rows = []
    with CallStore.open(workspace.calls_url) as calls:
        for model, named in sorted(keys.items()):
            answers, asked = calls.get_all(sorted(named)), calls.schema_names(sorted(named))
            said = {key: answer for key, answer in answers.items() if answer.outcome == "success"}
            off = sum(not keeps_to_schema(asked[key], answer.text) for key, answer in said.items())
            used = [sum(getattr(one, name) for one in answers.values()) for name in ("input_tokens", "output_tokens")]
            rows.append((model, len(answers), len(said), off, *used))
    head = ("model", "calls", "answered in full", "not the bare JSON asked for", "tokens in", "tokens out")
    words = "An answer that is not the bare JSON asked for, a code fence around it included, comes from a server that"
    return [
        section("Who was asked", table(head, rows), note(f"{words} does not hold answers to the schema it is sent."))
    ]


def episode_section(opened: EpisodeSet, episode_id: str, fields: dict[str, StoredProposal]) -> str:
    """One episode: its filmstrip with what was cut under it, its words, and every verdict that is no pass."""
    parts = [note(f"task: {opened.row(episode_id).task}")]
    said = [stored.proposal for stored in fields.values()]
    parts.append(annotated_strip(opened, episode_id, said, num_frames=_NUM_FRAMES))
    parts += [_told(one.payload) for one in said if isinstance(one.payload, SegmentList)]
    if "trace" in fields:
        parts.append(trace(fields["trace"].proposal.text))
    parts += [scene_words(one.payload) for one in said if isinstance(one.payload, SceneNotes)]
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


def scene_words(notes: SceneNotes) -> str:
    """What the notes about a scene say; other wordings and questions folded away."""
    parts = [note(notes.render())]
    if notes.paraphrases:
        who = {"templates": ", from templates", "model": ", a model's", None: ""}[notes.worded_by]
        listed = "".join(f"<li>{escape(words)}</li>" for words in notes.paraphrases)
        parts.append(_folded(f"{counted(len(notes.paraphrases), 'other wording')}{who}", listed))
    if notes.refused:
        listed = "".join(f"<li>{escape(one.words)} ({escape(one.reason)})</li>" for one in notes.refused)
        parts.append(_folded(f"{counted(len(notes.refused), 'wording')} refused", listed))
    if notes.questions:
        listed = "".join(f"<li>{escape(one.question)} {escape(one.answer)}</li>" for one in notes.questions)
        parts.append(_folded(f"{counted(len(notes.questions), 'question')}, answered", listed))
    return "".join(parts)


def _folded(summary: str, listed: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><ul>{listed}</ul></details>"


def _told(segments: SegmentList) -> str:
    """The segments in words, with the moves of each."""
    lines = "".join(
        f"<li>{one.start_ns / NS_PER_S:.2f} s {escape(one.render())}"
        f"{escape(f' ({", ".join(one.moves)})') if one.moves else ''}</li>"
        for one in segments.segments
    )
    return f'<ol class="told">{lines}</ol>'
