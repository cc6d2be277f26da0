"""The kept figures as tables in README.md and docs: `python -m benchmarks.tables` writes them again.

A table stands between `<!-- figures NAME WHICH -->` and `<!-- end -->`; WHICH is a regular expression that picks
figures by their names, all of them when it is left out, and `+ notes` behind it adds a column for what was measured.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"(<!-- figures (\w+)(?: (?!\+)([^\n]*?))?( \+ notes)? -->\n).*?(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A page with all of its tables as the results say now. Raises ValueError where WHICH picks no figure."""

    def block(found: re.Match[str]) -> str:
        opened, name, which, notes, closed = found.groups()
        kept = json.loads((RESULTS / f"{name}.json").read_text())
        rows = [row for row in kept["figures"] if re.search(which or "", row["figure"])]
        if not rows:
            raise ValueError(f"benchmarks/results/{name}.json has no figure that matches '{which}'.")
        lines = [_line(row, bool(notes)) for row in rows]
        head = ["what", "ours", "beside", "ratio", "asked", *(["measured on"] if notes else [])]
        days = sorted({row.get("date", kept.get("date", ""))[:10] for row in rows})  # older results: one for all rows
        origin = f"`{kept['command']}`, {kept['machine']}, {' to '.join(dict.fromkeys((days[0], days[-1])))}."
        return f"{opened}{_row(head)}\n{_row(['---'] * len(head))}\n" + "\n".join(lines) + f"\n\n{origin}\n{closed}"

    return _BLOCK.sub(block, text)


def _line(row: dict[str, Any], notes: bool) -> str:
    beside = "-" if row["peer"] is None else f"{_number(row['peer'])} ({row['peer_name']})"
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
    cells = [row["figure"], f"{_number(row['ours'])} {row['unit']}".strip(), beside, ratio, row["reach"] or "-"]
    return _row([*cells, *([row["note"] or "-"] if notes else [])])


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def main() -> None:
    """Rewrite the pages and name those that changed."""
    for page in PAGES:
        before = page.read_text(encoding="utf-8")
        after = with_tables(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)} has new figures.\n")


if __name__ == "__main__":
    main()
