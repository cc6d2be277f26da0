"""The page of `inspect`: what raw data is, a picture of each camera, and the draft rig with its questions."""

from html import escape
from itertools import groupby
from pathlib import Path

from apps.report.page import note, page, picture, section, table, verbatim
from dataengine.artifacts import write_atomic
from dataengine.inspected import InspectedPicture, Inspection

_NO_PICTURE = "No picture: none was asked for, or no episode that can be read has one."
_SHOWN = 20  # tasks and notes
_STYLE = """<style>
.cameras { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 14px; }
.cameras figure { margin: 0; } .cameras img { width: 100%; image-rendering: auto; background: var(--ground); }
.cameras figcaption { color: var(--soft); font-size: 13.5px; margin-top: 4px; } .ask { color: var(--unsure); font-weight: 600; }
</style>"""  # noqa: E501 - a style sheet


def write_inspection_page(path: Path, inspection: Inspection, *, name: str, without_pictures: str = "") -> Path:
    """Write one self-contained page to `path` and return it.

    `name` is what was inspected, for the title; `without_pictures` says why there are none.
    """
    cameras = _cameras(inspection, without_pictures)
    body = [_STYLE, _facts(inspection), cameras, _topics(inspection), _keys(inspection), _rig(inspection)]
    lead = "What the files say. What they cannot say is asked in the draft rig below."
    write_atomic(path, page(f"Inspect {name}", lead, body).encode())
    return path


def _facts(found: Inspection) -> str:
    rows = [
        ("format", found.kind),
        ("found in", found.folder),
        ("episodes", f"{found.num_episodes:,}"),
        ("rows", f"{found.num_rows:,}"),
        ("rate", found.rate_text),
        ("timing: spacing, jitter, gaps", found.timing),
        *(("task", task) for task in found.tasks[:_SHOWN]),
    ]
    if len(found.tasks) > _SHOWN:
        rows.append(("task", f"and {len(found.tasks) - _SHOWN} more"))
    notes = "".join(f"<li>{escape(text)}</li>" for text in found.notes)
    return section("What it is", table(("", ""), rows), f"<h3>Noticed</h3><ul>{notes}</ul>" if notes else "")


def _cameras(found: Inspection, why: str) -> str:
    if not found.pictures:
        said = why or ("The data holds no camera." if not found.cameras else _NO_PICTURE)
        listed = [(row.key, f"{row.width}x{row.height}", row.encoding) for row in found.cameras]
        return section("Cameras", note(said), table(("camera", "size", "stored as"), listed) if listed else "")
    parts = []
    for camera, shown in groupby(found.pictures, key=lambda row: row.camera):
        parts.append(_camera(camera, list(shown)))
    return section("Cameras", *parts)


def _camera(name: str, shown: list[InspectedPicture]) -> str:
    figures = "".join(
        f"<figure>{picture(row.png, 'png', f'{name}: {row.words}') if row.png else ''}"
        f"<figcaption>{escape(row.words)}</figcaption></figure>"
        for row in shown
    )
    asked = any(row.channel_order for row in shown)
    question = (
        '<p class="ask">Which one shows the right colours? Look at skin, wood, something red.</p>' if asked else ""
    )
    return f'<h3>{escape(name)}</h3>{question}<div class="cameras">{figures}</div>'


def _topics(found: Inspection) -> str:
    if not found.topics:
        return ""
    rows = [
        (row.name, row.type_name, row.num_messages, row.rate_hz, 1000 * row.jitter_s, row.num_gaps, row.longest_gap_s)
        for row in found.topics
    ]
    head = ("topic", "type", "messages", "Hz", "jitter, ms", "gaps", "longest step, s")
    return section("Topics of the first readable recording", table(head, rows))


def _keys(found: Inspection) -> str:
    rows = [(row.key, "x".join(map(str, row.shape)) or "one value", row.dtype) for row in found.rows]
    return section("Keys of the first readable episode", table(("key", "shape", "stored as"), rows))


def _rig(found: Inspection) -> str:
    questions = [line for line in found.draft_rig_yaml.splitlines() if "# ?" in line]
    return section(
        f"Draft rig: {len(questions)} lines to answer",
        note(
            "Save it as FILE.yaml (inspect --rig-out FILE.yaml), answer each line that has a '?', then --rig FILE.yaml."
        ),
        verbatim(found.draft_rig_yaml),
    )
