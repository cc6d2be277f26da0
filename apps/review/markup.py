"""Small pieces of the page as HTML. Every word that comes from data goes through `say`."""

import html
import re
import time
from typing import Literal

from annotators.ledger.rows import RANK_DISAGREEMENT, RANK_FAIL, RANK_RARE, RANK_UNKNOWN
from schemas.annotations import Mark
from schemas.spans import NS_PER_S

VERDICTS = {"pass": ("\u2713", "passed"), "fail": ("\u2715", "failed"), "unknown": ("?", "could not tell")}
STATUSES = {
    "open": ("\u25cb", "waiting"),
    "accepted": ("\u2713", "accepted"),
    "edited": ("\u270e", "edited"),
    "rejected": ("\u2715", "rejected"),
    "skipped": ("\u21b7", "skipped"),
    "disputed": ("\u2260", "reviewers disagree"),
}
RANKS = {
    RANK_FAIL: ("fail", "a verifier failed"),
    RANK_DISAGREEMENT: ("disagree", "models disagree"),
    RANK_UNKNOWN: ("unknown", "a verifier could not tell"),
}


def say(text: object) -> str:
    """Text that was read from pictures, files or people, safe inside HTML and inside attributes.

    The component that shows it expands `${...}` and `{{...}}`, so those signs are escaped as well.
    """
    return html.escape(str(text), quote=True).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def notice(words: str, *, kind: Literal["warning", "info"] = "warning") -> str:
    """A sentence that lies over the page for a while; each is a new one, so that the same words are shown again."""
    return f'<p role="alert" class="{kind}" data-at="{time.time_ns()}">{say(words)}</p>'


def verdict_badge(verdict: str) -> str:
    """A verdict as sign, colour and word."""
    sign, word = VERDICTS[verdict]
    return f'<span class="badge {verdict}"><b aria-hidden="true">{sign}</b> {word}</span>'


def when(mark: Mark) -> str:
    """When a mark is and what was measured there, for people."""
    times = [mark.start_ns, mark.end_ns]
    words = " to ".join(f"{at_ns / NS_PER_S:.2f}" for at_ns in times if at_ns is not None)
    return ", ".join(part for part in (f"{words} s" if words else "", mark.number or "") if part)


def rank_badge(rank: int, *, conflict: bool, is_blank: bool = False) -> str:
    """Why an item stands where it stands in the queue."""
    if is_blank and not conflict:
        return '<span class="badge unknown"><b aria-hidden="true">?</b> nothing is proposed</span>'
    if conflict:
        return '<span class="badge disagree"><b aria-hidden="true">!</b> differs from what a person said</span>'
    quiet = "a rare kind of scene" if rank == RANK_RARE else "audit: nothing suspicious"
    name, words = RANKS.get(rank, ("rest", quiet))
    sign = {"fail": "\u2715", "disagree": "\u2260", "unknown": "?"}.get(name, "\u00b7")
    return f'<span class="badge {name}"><b aria-hidden="true">{sign}</b> {words}</span>'


def markdown(text: str) -> str:
    """The Markdown that guidelines are written in: headings, lists, bold, emphasis and code. Everything is escaped."""
    blocks = [_block(block.splitlines()) for block in re.split(r"\n\s*\n|\n(?=#)|(?<=\n)(?=#)", text) if block.strip()]
    return "".join(blocks)


def _block(lines: list[str]) -> str:
    if lines[0].startswith("#"):
        rest = _block(lines[1:]) if any(line.strip() for line in lines[1:]) else ""
        return f"<h4>{_inline(lines[0].lstrip('# '))}</h4>{rest}"
    if lines[0].startswith("- "):
        points = re.split(r"(?m)^- ", "\n".join(lines))[1:]
        return "<ul>" + "".join(f"<li>{_inline(' '.join(point.split()))}</li>" for point in points) + "</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _inline(text: str) -> str:
    safe = say(text)
    for mark, tag in ((r"\*\*(.+?)\*\*", "b"), (r"\*(.+?)\*", "em"), (r"`(.+?)`", "code")):
        safe = re.sub(mark, rf"<{tag}>\1</{tag}>", safe)
    return safe
