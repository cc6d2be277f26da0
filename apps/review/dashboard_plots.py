"""The dashboard's plots, drawn as SVG. Every word from data goes through `say`; colours are in the style sheet."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from apps.review.markup import say
from schemas.shares import Share

_WIDTH = 560
_NAMES = 210  # for the words at the left
_PLOT = 270  # for what is drawn; the rest is for the number at the right
_ROW = 24
_MOST_HOURS = 48
_MOST_LETTERS = 32


def bar_plot(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """One bar per row: what it is about, how much, and how that is written."""
    most = max((value for _, value, _ in rows), default=0) or 1
    body = ""
    for number, (name, value, words) in enumerate(rows):
        top = number * _ROW
        width = max(0.0, value / most * _PLOT)
        body += (
            _name(name, top) + f'<rect class="bar" x="{_NAMES}" y="{top + 5}" width="{width:.1f}" height="14" rx="2"/>'
        )
        body += f'<text class="value" x="{_NAMES + width + 6:.1f}" y="{top + 16}">{say(words)}</text>'
    return _svg(title, body, len(rows) * _ROW)


def interval_plot(title: str, rows: Sequence[tuple[str, Share]], *, bound: float | None = None) -> str:
    """Shares as dots with their 95 % intervals, on one axis from 0; `bound` is drawn as a line across."""
    if not rows:
        return ""
    known = [share for _, share in rows if share.of]
    most = max([0.1, *(share.high for share in known), *([bound * 1.3] if bound else [])])
    body = ""
    for number, (name, share) in enumerate(rows):
        top = number * _ROW
        middle = top + _ROW / 2
        body += _name(name, top)
        if share.value is None:
            body += f'<text class="value" x="{_NAMES}" y="{top + 16}">not known yet</text>'
            continue
        low, high, dot = (_NAMES + one / most * _PLOT for one in (share.low, share.high, share.value))
        body += f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        body += f'<circle class="dot" cx="{dot:.1f}" cy="{middle}" r="4"/>'
        words = f"{share.value:.1%} of {share.of:,}"
        body += f'<text class="value" x="{_NAMES + _PLOT + 6}" y="{top + 16}">{words}</text>'
    height = len(rows) * _ROW
    if bound is not None:
        x = _NAMES + bound / most * _PLOT
        body += f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}"/>'
    ticks = [(_NAMES, "0 %"), (_NAMES + _PLOT / 2, f"{most / 2:.1%}"), (_NAMES + _PLOT, f"{most:.1%}")]
    body += _axis(ticks, height)
    return _svg(title, body, height + 18)


def level_plot(title: str, rows: Sequence[tuple[str, float | None, str]]) -> str:
    """Agreement from 0 (chance) to 1 (always), one bar per row; below chance it reaches to the left."""
    if not rows:
        return ""
    low = min([0.0, *(value for _, value, _ in rows if value is not None)])
    zero = _NAMES + (0.0 - low) / (1 - low) * _PLOT
    body = ""
    for number, (name, value, words) in enumerate(rows):
        top = number * _ROW
        body += _name(name, top)
        if value is not None:
            end = _NAMES + (value - low) / (1 - low) * _PLOT
            left, width = min(zero, end), abs(end - zero)
            body += f'<rect class="bar" x="{left:.1f}" y="{top + 5}" width="{width:.1f}" height="14" rx="2"/>'
        body += f'<text class="value" x="{_NAMES + _PLOT + 6}" y="{top + 16}">{say(words)}</text>'
    height = len(rows) * _ROW
    body += f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}"/>'
    body += _axis([(zero, "0"), (_NAMES + _PLOT, "1")], height)
    return _svg(title, body, height + 18)


def hour_plot(title: str, hourly: Sequence[tuple[str, int]]) -> str:
    """Decisions per hour, the last two days that had any; hours without any are drawn as nothing."""
    if not hourly:
        return ""
    counts = dict(hourly)
    last = datetime.fromisoformat(hourly[-1][0]).replace(tzinfo=UTC)
    hours = [last - timedelta(hours=back) for back in reversed(range(_MOST_HOURS))]
    values = [counts.get(hour.isoformat()[:13], 0) for hour in hours]
    most = max(values)
    step = _WIDTH / _MOST_HOURS
    body = ""
    for number, (hour, value) in enumerate(zip(hours, values, strict=True)):
        height = value / most * 90
        body += (
            f'<rect class="bar" x="{number * step + 1:.1f}" y="{100 - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}"><title>{hour:%d %b %H}:00 UTC: {value:,}</title></rect>'
        )
        if hour.hour % 12 == 0:
            body += f'<text class="tick" x="{number * step:.1f}" y="114">{hour:%d %b %H}:00</text>'
    body += f'<text class="tick" x="0" y="9">{most:,} an hour</text>'
    return _svg(title, body, 118)


def _name(name: str, top: float) -> str:
    short = name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "\u2026"
    return f'<text class="name" x="{_NAMES - 8}" y="{top + 16}"><title>{say(name)}</title>{say(short)}</text>'


def _axis(ticks: Sequence[tuple[float, str]], height: float) -> str:
    return "".join(f'<text class="tick middle" x="{x:.1f}" y="{height + 13}">{words}</text>' for x, words in ticks)


def _svg(title: str, body: str, height: float) -> str:
    """A drawing; none where there is nothing to draw."""
    if not body:
        return ""
    return f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{say(title)}">{body}</svg>'
