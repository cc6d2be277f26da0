"""The plain pieces of a self-contained page: escaped text, tables, embedded pictures. No script, no outside file."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee6; --sheet: #ffffff; --ground: #f4f6f9;
  --good: #1a7f4b; --bad: #b3322c; --unsure: #9a6b00; --accent: #2f5fb3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #333c48; --sheet: #1a2029;
  --ground: #12161c; --good: #58c48b; --bad: #ef7d76; --unsure: #e0b252; --accent: #86aef5; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 10px; } h3 { font-size: 15px; margin: 16px 0 6px; }
p.lead { color: var(--soft); margin: 0 0 20px; }
section { background: var(--sheet); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px; margin: 0 0 16px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; color: var(--soft); font-weight: 600; } th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px;
  font: 12.5px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; margin: 8px 0; }
.trace { font-size: 16px; border-left: 3px solid var(--accent); padding: 2px 0 2px 12px; margin: 8px 0; }
.note { color: var(--soft); font-size: 13.5px; } .pass { color: var(--good); } .fail { color: var(--bad); } .unknown { color: var(--unsure); }
img { max-width: 100%; border-radius: 6px; display: block; } .wide { overflow-x: auto; }
.path { display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 18px; } .path div { flex: 1 1 100px; background: var(--sheet);
  border: 1px solid var(--line); border-radius: 8px; padding: 8px 10px; font-size: 13px; } .path b { display: block; }
.bar { display: inline-block; height: 8px; border-radius: 4px; background: var(--accent); vertical-align: middle; }
"""


def page(title: str, lead: str, body: Iterable[str]) -> str:
    """A whole document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><main><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{"".join(body)}</main></body></html>\n'
    )


def section(title: str, *parts: str) -> str:
    """One stage."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers are set to the right. Cells are escaped unless they are `Html`."""
    listed = [list(row) for row in rows]
    numeric = [bool(listed) and all(isinstance(row[at], int | float) for row in listed) for at in range(len(head))]
    kind = [' class="num"' if number else "" for number in numeric]
    top = "".join(f"<th{kind[at]}>{escape(word)}</th>" for at, word in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{kind[at]}>{_cell(cell)}</td>" for at, cell in enumerate(row)) + "</tr>" for row in listed
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


class Html(str):
    """Text that is markup already and must not be escaped."""

    __slots__ = ()


def _cell(value: object) -> str:
    match value:
        case Html():
            return value
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.3g}"
        case _:
            return escape(str(value))


def note(text: str) -> str:
    """A quiet sentence."""
    return f'<p class="note">{escape(text)}</p>'


def trace(text: str) -> str:
    """A reasoning trace; writing in a scene is untrusted, so it is escaped like all text."""
    return f'<p class="trace">{escape(text)}</p>'


def verbatim(text: str) -> str:
    """Text whose columns matter."""
    return f"<pre>{escape(text)}</pre>"


def picture(content: bytes, kind: str, words: str) -> str:
    """An embedded picture; `kind` is jpeg, png or svg+xml; `words` say what is seen."""
    return f'<img alt="{escape(words)}" src="data:image/{kind};base64,{base64.b64encode(content).decode()}">'
