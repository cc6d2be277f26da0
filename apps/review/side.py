"""What stands beside the fields: what the verifiers found, the guideline, where the proposal comes from, remarks; and a
reviewer's own decisions."""

from collections.abc import Sequence

from annotators.ledger import OwnDecision
from apps.review.desk import Shown
from apps.review.markup import markdown, say
from apps.review.panels import verdicts_panel
from schemas.annotations import render_payload

_FATES = {
    "stands": ("\u2713", "stands", "accepted"),
    "confirmed": ("\u2713", "somebody said the same since", "accepted"),
    "waits": ("\u2026", "others have to decide as well", "open"),
    "skipped": ("\u21b7", "skipped", "open"),
    "undone": ("\u21ba", "taken back", "open"),
    "replaced": ("\u21bb", "replaced by a later one of yours", "open"),
    "overturned": ("!", "overturned", "fail"),
}


def side_panel(shown: Shown) -> str:
    """Four panes behind tabs; the page remembers which one is open."""
    remarks = shown.remarks
    flags = sum(row.kind == "flag" for row in remarks)
    count = f" ({len(remarks)}{', flagged' if flags else ''})" if remarks else ""
    panes = (
        ("verifiers", "Verifiers", verdicts_panel(shown)),
        ("guideline", "Guideline", _guideline(shown)),
        ("origin", "Origin", _origin(shown)),
        ("remarks", f"Remarks{count}", _remarks(shown)),
    )
    tabs = "".join(
        f'<button type="button" role="tab" id="tab-{name}" aria-controls="pane-{name}" data-tab="{name}">{say(words)}'
        "</button>"
        for name, words, _ in panes
    )
    bodies = "".join(
        f'<div role="tabpanel" id="pane-{name}" aria-labelledby="tab-{name}" tabindex="0">{body}</div>'
        for name, _, body in panes
    )
    return (
        f'<div class="side"><div class="tabs" role="tablist" aria-label="beside the fields">{tabs}</div>{bodies}</div>'
    )


def _guideline(shown: Shown) -> str:
    found = shown.guideline
    if found is None:
        family = shown.item.head.proposal.family
        return f'<p class="hint">The family {say(family)} ships no guideline.</p>'
    return f'<article class="guideline">{markdown(found.text)}<p class="version">{say(found.version)}</p></article>'


def _origin(shown: Shown) -> str:
    """Who proposed it: enough to ask again."""
    stored = shown.item.head
    made = stored.proposal.provenance
    calls = ", ".join(made.call_keys)
    facts = (
        ("family", stored.proposal.family),
        ("by", f"{made.backend} {made.model}"),
        ("when", stored.created[:19].replace("T", " ") + " UTC"),
        ("prompt", made.prompt_hash or "none"),
        ("calls", calls or "none"),
        ("proposal", stored.proposal_id),
        ("run", stored.run_id),
        ("others", str(len(shown.item.proposals) - 1)),
    )
    rows = "".join(f'<dt>{say(name)}</dt><dd title="{say(value)}">{say(value)}</dd>' for name, value in facts)
    return f'<dl class="origin">{rows}</dl>'


def _remarks(shown: Shown) -> str:
    rows = "".join(
        f'<li class="{row.kind}"><b>{say(row.reviewer)}</b> <small>{row.kind}, '
        f"{say(row.created[:16].replace('T', ' '))}</small><br>{say(row.words)}</li>"
        for row in shown.remarks
    )
    asks = (
        '<button type="button" data-ask="flag">Flag for the lead</button> '
        '<button type="button" data-ask="comment">Comment</button>'
    )
    listing = f'<ul class="remarks">{rows}</ul>' if rows else '<p class="hint">Nobody said anything yet.</p>'
    return f"{listing}{asks}"


def own_panel(rows: Sequence[OwnDecision], current: str | None) -> str:
    """A reviewer's decisions, newest first; a click opens the item again."""
    if not rows:
        return '<p class="hint">You decided nothing yet.</p>'
    return '<div class="queue own">' + "".join(_own_row(row, current) for row in rows) + "</div>"


def _own_row(row: OwnDecision, current: str | None) -> str:
    sign, words, colour = _FATES[row.fate]
    why = ""
    if row.by is not None and row.fate in ("overturned", "confirmed"):
        said = "" if row.by.payload is None else render_payload(row.by.payload)
        note = f": \u201c{row.by.note}\u201d" if row.by.note else ""
        words = f"{words} by {row.by.reviewer} ({row.by.action}{f', {row.by.reason}' if row.by.reason else ''})"
        why = f"<small>{say(words)}{say(note)} {say(said)}</small>" if row.fate == "overturned" else ""
    mark = ' aria-current="true"' if row.decision.item_id == current else ""
    stem, _, tail = row.episode_id.rpartition("-")
    when = row.decision.created[5:16].replace("T", " ")
    return (
        f'<button type="button" class="queue-row" data-item="{say(row.decision.item_id)}"{mark} '
        f'title="{say(row.episode_id)}: you said {say(row.decision.action)}, {say(words)}">'
        f'<b class="dot {colour}" aria-hidden="true">{sign}</b><span class="name">{say(stem or tail)}'
        f"<small>{say(row.field)}: {say(row.decision.action)}, {say(row.fate)}</small>{why}</span>"
        f'<small class="who">{say(when)}</small></button>'
    )
