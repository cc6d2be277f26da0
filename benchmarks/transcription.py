"""How well the backends that run offline copy writing from real pictures, which nobody drew for them.

Pictures: 60 formulas of im2latex and 3 pages of Tesseract's tests, as found in the sample data. Formulas are compared
sign by sign without their layout: LaTeX commands (but names of functions), braces, blanks and what is not ASCII are
dropped on both sides, so letters, digits and operators count, and Greek does not. Pages are compared with their ground
truth, blanks folded. None of it looks like a whiteboard in front of a robot; it says how far
these readers carry beyond the simulator they were tuned on.

The sample data is no part of the project (DATAENGINE_SAMPLES, else ../shared/samples); without it nothing is measured.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from annotators.calls import CallStore
from annotators.families import load_family
from annotators.observe import png
from annotators.perception import Reader
from annotators.vlm.answers import BoardAnswer, parse
from annotators.vlm.local import Local, LocalClient, nano_model_dir
from annotators.vlm.mending import MendingClient
from annotators.vlm.questions import questions
from annotators.vlm.stored import StoredClient
from benchmarks.figures import Figure, report
from schemas.intervals import wilson_interval

SAMPLES = Path(os.environ.get("DATAENGINE_SAMPLES", "../shared/samples")) / "vqa_ocr"
_FUNCTIONS = "sin|cos|tan|sinh|cosh|tanh|arcsin|arccos|arctan|ln|log|exp|det|lim|max|min|dim|ker"
_DRAWS = 2_000  # of the bootstrap
_HEIGHT = 96  # of a formula as it is read: small print is enlarged, as boards are

type Pixels = NDArray[np.uint8]
type Plain = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Writing:
    """One picture and what stands in it."""

    picture: Pixels
    text: str


def formulas(num: int) -> list[Writing]:
    """Rendered formulas with their LaTeX."""
    folder = SAMPLES / "im2latex"
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()[:num]]
    return [Writing(picture=_picture(folder / row["image"]), text=row["latex"]) for row in rows]


def pages() -> list[Writing]:
    """Scanned pages with their text."""
    folder = SAMPLES / "tesseract_test"
    words = {"8071_093.3B": "8071_093.3B.txt", "eurotext": "eurotext.txt", "phototest": "phototest.gold.txt"}
    return [
        Writing(picture=_picture(folder / f"{name}.tif"), text=(folder / told).read_text("utf-8", "replace"))
        for name, told in words.items()
    ]


def _picture(path: Path) -> Pixels:
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")  # transparent paper is white
    return np.asarray(Image.alpha_composite(ground, picture).convert("RGB"))


def _enlarged(picture: Pixels) -> Pixels:
    scale = max(1.0, _HEIGHT / picture.shape[0])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def signs(text: str) -> str:
    """Letters, digits and operators in order; LaTeX commands, braces, layout and blanks dropped."""
    text = re.sub(rf"\\({_FUNCTIONS})\b", r"\1", text)
    text = re.sub(r"\\label\s*\{[^}]*\}|\\(?:begin|end)\s*\{[^}]*\}|\\[A-Za-z]+|\\.", "", text)
    return re.sub(r"[^!-~]|[{}$^_&~\\]", "", text)


def folded(text: str) -> str:
    """Words with one blank between them."""
    return " ".join(text.split())


def edits(said: str, right: str) -> int:
    """Signs to insert, drop or change until both are the same."""
    row = list(range(len(said) + 1))
    for at, sign in enumerate(right, 1):
        above, row[0] = row[0], at
        for place, other in enumerate(said, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (sign != other))
    return row[-1]


def read_line(shown: Sequence[Writing]) -> list[str]:
    """As perception reads a board: one line, found in the picture."""
    reader = Reader()
    return [reader.found_line(_enlarged(one.picture)) or "" for one in shown]


def read_page(shown: Sequence[Writing]) -> list[str]:
    """The same recogniser over every line that it finds, top to bottom."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "error"})
    told = []
    for one in shown:
        found = engine(np.ascontiguousarray(one.picture[:, :, ::-1]))
        lines = zip(found.boxes, found.txts, strict=True) if found.txts else []
        told.append(" ".join(text for _, text in sorted(lines, key=lambda line: float(line[0][:, 1].min()))))
    return told


def ask_nano(shown: Sequence[Writing]) -> list[str]:
    """As `annotate --vlm nano` asks about a board."""
    client = LocalClient(Local(path=nano_model_dir()), workers=0)
    family = load_family("math-matching")
    asked = [
        questions(family, client.speaker, {"board_first": png(_enlarged(one.picture))})["board_first"] for one in shown
    ]
    with tempfile.TemporaryDirectory() as folder, CallStore.open(f"sqlite:///{folder}/calls.db") as store:
        answers = {one.request.key: one.answer for one in MendingClient(StoredClient(client, store)).ask(asked)}
    said = [parse(answers[request.key], BoardAnswer) for request in asked]
    return [one.writing or "" if one else "" for one in said]


def _figures(name: str, shown: Sequence[Writing], said: Sequence[str], plain: Plain, note: str) -> list[Figure]:
    right = [plain(one.text) for one in shown]
    read = [plain(text) for text in said]
    wrong = np.array([edits(text, truth) for text, truth in zip(read, right, strict=True)])
    lengths = np.array([len(truth) for truth in right])
    draws = np.random.default_rng(0).integers(len(right), size=(_DRAWS, len(right)))
    rates = 100 * wrong[draws].sum(axis=1) / lengths[draws].sum(axis=1)
    low, high = np.percentile(rates, [2.5, 97.5])
    exact = sum(text == truth for text, truth in zip(read, right, strict=True))
    least, most = wilson_interval(exact, len(right))
    return [
        Figure(
            figure=f"character error rate: {name}",
            ours=float(100 * wrong.sum() / lengths.sum()),
            peer=None,
            peer_name="none",
            unit="%",
            repeats=len(right),
            note=f"{int(wrong.sum()):,} of {int(lengths.sum()):,} signs, 95 % interval {low:.1f}..{high:.1f} %; {note}",
        ),
        Figure(
            figure=f"exact match: {name}",
            ours=100 * exact / len(right),
            peer=None,
            peer_name="none",
            unit="%",
            repeats=len(right),
            note=f"{exact} of {len(right)}, 95 % interval {100 * least:.1f}..{100 * most:.1f} %",
        ),
    ]


def measure(quick: bool) -> list[Figure]:
    """Every backend on every kind of picture it can be asked about."""
    if not SAMPLES.is_dir():
        missing = Figure(
            figure="character error rate",
            ours=float("nan"),
            peer=None,
            peer_name="none",
            unit="%",
            repeats=0,
            note="the sample data is absent: set DATAENGINE_SAMPLES",
        )
        return [missing]
    lines, papers = formulas(6 if quick else 60), pages()
    figures = _figures("perception, formulas", lines, read_line(lines), signs, "one line, as boards are read")
    figures += _figures("nano, formulas", lines, ask_nano(lines), signs, "with the board prompt of math-matching")
    if not quick:
        figures += _figures("perception's recogniser, pages", papers, read_page(papers), folded, "every line it finds")
        figures += _figures("nano, pages", papers, ask_nano(papers), folded, "with the board prompt of math-matching")
    return figures


if __name__ == "__main__":
    report("transcription", measure, __doc__)
