"""The sides of the page: progress, the queue, the words as the model would learn them, and what the verifiers found."""

from collections.abc import Collection, Sequence

from annotators.edits import FieldChange, changes, recheck
from annotators.ledger import Progress, QueueRow
from annotators.ledger.rows import RANK_WORDS
from annotators.review import Reading
from apps.review.desk import Shown
from apps.review.markup import RANKS, STATUSES, rank_badge, say, verdict_badge, when
from schemas.annotations import NOBODY, AnyPayload, Mark, VerifierResult, render_payload
from schemas.scenes import SceneNotes


def progress_panel(progress: Progress, name: str) -> str:
    """How much is done, how much is left, and by whom."""
    total = max(progress.num_items, 1)
    bars = "".join(
        f'<i class="{status}" style="width:{100 * progress.by_status.get(status, 0) / total:.2f}%" '
        f'title="{progress.by_status.get(status, 0)} {words}"></i>'
        for status, (_, words) in STATUSES.items()
        if status in ("accepted", "edited", "rejected")
    )
    people = "".join(f"<span><b>{count}</b> {say(who)}</span>" for who, count in progress.by_reviewer.items())
    extra = f'<span class="warn"><b>{progress.num_conflicts}</b> conflicts</span>' if progress.num_conflicts else ""
    stale = progress.by_status.get("stale", 0)
    extra += f'<span class="warn"><b>{stale}</b> stale</span>' if stale else ""
    done = f"<span><b>{progress.num_done}</b> done</span><span><b>{progress.num_left}</b> left</span>"
    return f"""
<div class="progress"><div class="brand">Review <b>{say(name)}</b></div>
  <div class="meter" role="img" aria-label="{progress.num_done} of {progress.num_items} decided">{bars}</div>
  <div class="counts">{done}{extra}</div>
  <div class="people">{people}</div></div>"""


def queue_panel(rows: Sequence[QueueRow], current: str | None, reviewer: str) -> str:
    """The queue; a click on a row opens it."""
    if not rows:
        return '<p class="hint">No item matches. Clear the filters to see all.</p>'
    return '<div class="queue" role="list">' + "".join(_queue_row(row, current, reviewer) for row in rows) + "</div>"


def changed_rows(rows: Sequence[QueueRow], asked: Collection[str], current: str, reviewer: str) -> str:
    """Rows of the queue that rows.js puts in the place of older ones; of an item that has none, that it has none."""
    gone = "".join(
        f'<i data-item="{say(item_id)}"></i>' for item_id in asked if item_id not in {row.item_id for row in rows}
    )
    return gone + "".join(_queue_row(row, current, reviewer) for row in rows)


def _queue_row(row: QueueRow, current: str | None, reviewer: str) -> str:
    sign, words = STATUSES[row.status]
    colour: str = row.status
    if row.stale:
        sign, words, colour = "\u21bb", f"{words}, and stale: {row.stale} since", "disagree"
    elif row.conflict:
        sign, words, colour = "!", f"{words}, and a newer proposal differs", "disagree"
    elif row.status in ("open", "skipped") and row.rank in RANKS:
        colour, reason = RANKS[row.rank]
        sign = {"fail": "\u2715", "disagree": "\u2260", "unknown": "?"}[colour] if row.status == "open" else sign
        words = f"{words}: {reason}"
    who = row.decided_by or (f"{row.lease_owner} is on it" if row.lease_owner not in (None, reviewer) else "")
    mark = ' aria-current="true"' if row.item_id == current else ""
    stem, _, tail = row.episode_id.rpartition("-")
    return (
        f'<button type="button" class="queue-row" role="listitem" data-item="{say(row.item_id)}"{mark} '
        f'title="{say(row.episode_id)}: {say(words)}"><b class="dot {colour}">{sign}</b>'
        f'<span class="name">{say(stem or tail)}<small>{say(row.field)}</small></span>'
        f'<small class="who">{say(who)}</small></button>'
    )


def words_panel(shown: Shown, reading: Reading, *, sequence: int = 0, draft: str = "") -> str:
    """What the model would learn from the fields as they are now, large; or what must be mended first.

    `sequence` says which state of the sheet it is about, `draft` when the draft was saved that fills the fields.
    """
    item, proposal = shown.item, shown.item.head.proposal
    if reading.payload is None:
        problems = "".join(f"<li>{say(problem)}</li>" for problem in reading.problems)
        body = f'<ul class="problems" role="alert" tabindex="0">{problems}</ul>'
    else:
        small = {"segments": " long", "scene": " long scene"}.get(reading.payload.kind, "")
        body = f'<p class="words{small}" id="trace-words" tabindex="0">{say(reading.text)}</p>'
    who = f"{proposal.provenance.backend} \u00b7 {proposal.provenance.model}"
    badge = rank_badge(item.rank, conflict=item.conflict, is_blank=proposal.provenance == NOBODY)
    saved = f'<small class="saved">draft saved {_clock(shown.draft.saved)}</small>' if sequence and shown.draft else ""
    told = f"{_draft(shown, draft)}{_stale(shown)}{_votes(shown)}{_standing(shown)}"
    crowded = " crowded" if told else ""  # then what is long takes less room
    return (
        f'<section class="words-panel{crowded}" data-key="{say(shown.token.key)}" data-sequence="{sequence}">'
        f'<div class="why">{badge}'
        f'<span class="speaker" title="{say(proposal.family)}">{say(who)}</span>{saved}</div>{body}'
        f"{told}{_changes(shown, reading)}</section>"
    )


def _clock(saved: str) -> str:
    """A time in UTC, which the page turns into the reviewer's own."""
    return f'<time datetime="{say(saved)}">{say(saved[11:16])} UTC</time>'


def _draft(shown: Shown, saved: str) -> str:
    """That the fields hold what the reviewer typed before, what came since, and how to be rid of it."""
    if not saved or shown.draft is None:
        return ""
    since = ""
    if shown.draft.base_proposal_id != shown.item.head.proposal_id:
        since = " A newer proposal came since."
    elif shown.draft.revision != shown.item.revision:
        since = " Somebody decided since: look at it before you save."
    return (
        f'<p class="standing draft" role="status"><b>Your draft of {_clock(saved)}</b> fills the fields; nothing is '
        f'decided yet.{since} <button type="button" data-press="#reset">Drop the draft</button></p>'
    )


def _stale(shown: Shown) -> str:
    """Why what is said has to be looked at again."""
    if not shown.item.stale:
        return ""
    what = "This decision is" if shown.item.last_word else "These words are"
    return (
        f'<p class="standing conflict" role="alert"><b>Stale.</b> {what} about another state of the episode: '
        f"{say(shown.item.stale)} since. Look again and decide.</p>"
    )


def _votes(shown: Shown) -> str:
    """What people said who could not see each other, side by side, for the one who settles it."""
    if shown.token.track != "adjudication" or not shown.item.votes:
        return ""
    proposals = {row.proposal_id: row.proposal.payload for row in shown.item.proposals}
    columns = ""
    for vote in shown.item.votes:
        words = "" if vote.action == "reject" else _said(shown, vote.payload or proposals[vote.base_proposal_id])
        note = f" <small>\u201c{say(vote.note)}\u201d</small>" if vote.note else ""
        columns += f'<li tabindex="0"><b>{say(vote.reviewer)}</b> ({say(vote.action)}){note}<br>{words}</li>'
    return f'<ul class="votes" aria-label="what reviewers decided">{columns}</ul>'


def _said(shown: Shown, payload: AnyPayload) -> str:
    """What somebody said; about a scene, which is long, only where that differs from the newest proposal."""
    if not isinstance(payload, SceneNotes):
        return say(render_payload(payload))
    found = changes(shown.newest, payload)
    return f'<ul class="diff">{_rows(found)}</ul>' if found else "as it is proposed"


def _standing(shown: Shown) -> str:
    """What people decided before, where they did."""
    item = shown.item
    last = item.last_word
    if last is None or item.status == "disputed":  # then everybody's words stand above
        return ""
    note = f" \u201c{say(last.note)}\u201d" if last.note else ""
    what = STATUSES[item.status][1].capitalize()
    said = f"<b>{say(what)}</b> by {say(last.reviewer)}, {say(last.created[:16].replace('T', ' '))}{note}."
    if not item.conflict:
        return f'<p class="standing">{said} A new decision replaces it.</p>'
    fresh = shown.newest
    differs = " as listed below." if isinstance(fresh, SceneNotes) else f": <q>{say(render_payload(fresh))}</q>"
    return (
        f'<p class="standing conflict">{said} A newer proposal differs{differs} '
        "Accept keeps what stands in the fields; Newest proposal puts the new one into them.</p>"
    )


def _changes(shown: Shown, reading: Reading) -> str:
    """The difference between the proposal and the fields, and what programs say about the edit."""
    if reading.payload is None:
        return ""
    found = changes(shown.item.head.proposal.payload, reading.payload)
    if not found:
        return ""
    proposal_id = shown.item.head.proposal_id
    checks = "".join(_verdict(row, proposal_id) for row in recheck(reading.payload) if row.verdict != "pass")
    listing = f'<ul class="verdicts">{checks}</ul>' if checks else ""
    title = "Your edit" if reading.payload != shown.start else "Against the newest proposal"
    diff = f'<ul class="diff" tabindex="0" aria-label="what differs from the proposal">{_rows(found)}</ul>'
    return f'<div class="changes"><h3>{title}</h3>{diff}{listing}</div>'


def _rows(found: Sequence[FieldChange]) -> str:
    return "".join(
        f"<li><span>{say(row.name)}</span> <del>{say(row.before)}</del> <ins>{say(row.after)}</ins></li>"
        for row in found
    )


def verdicts_panel(shown: Shown) -> str:
    """What every verifier found about the proposal, worst first, with its evidence."""
    order = {"fail": 0, "unknown": 1, "pass": 2}
    results = sorted(shown.item.head.results, key=lambda row: (order[row.verdict], row.verifier))
    if not results:
        return '<section><h3>Verifiers</h3><p class="hint">No program looked at this proposal.</p></section>'
    rows = "".join(_verdict(row, shown.item.head.proposal_id) for row in results)
    return f'<section><h3>Verifiers <small>about the proposal</small></h3><ul class="verdicts">{rows}</ul></section>'


def _verdict(row: VerifierResult, proposal_id: str) -> str:
    soft = "" if row.hard else ' <small title="does not gate the release policy verified">advice</small>'
    return (
        f'<li class="{row.verdict}">{verdict_badge(row.verdict)}<span class="verifier">'
        f'{say(row.verifier.replace("_", " "))}{soft}</span><span class="evidence">{say(row.evidence)}</span>'
        f"{_places(row.marks, proposal_id)}</li>"
    )


def _places(marks: Sequence[Mark], proposal_id: str) -> str:
    """Where the evidence is: a button each, which the page gives its cut-out and makes seek to it."""
    places = ""
    for mark in marks:
        at = "" if mark.start_ns is None else f' data-at-ns="{mark.start_ns}"'
        image = "" if mark.image is None else f' data-image="{say(mark.image)}" data-proposal="{say(proposal_id)}"'
        numbers = f" <small>{say(when(mark))}</small>" if when(mark) else ""
        places += f'<button type="button" class="place"{at}{image}>{say(mark.title)}{numbers}</button>'
    return f'<span class="places">{places}</span>' if places else ""


def idle_panel(reason: str) -> str:
    """What the stage says when no item is shown."""
    return f'<div class="idle"><p>{say(reason)}</p></div>'


def rank_choices() -> list[tuple[str, int]]:
    """The verdict filter's choices."""
    return [("any verdict", -1), *((words, rank) for rank, words in enumerate(RANK_WORDS))]
