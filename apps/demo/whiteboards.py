"""A small image-text set in LLaVA's layout: pictures of whiteboards, questions about them, and their answers.

It stands in the demo for the image-text half of a co-training corpus. Only in-domain equations and handwriting are
used, so that open-world trials stay unseen. Randomness is keyed by (seed, row): the same arguments give the same bytes.
"""

import json
from pathlib import Path

from dataengine.artifacts import write_atomic

WHITEBOARD_SIZE = (320, 240)


def write_whiteboards(out: Path, *, num_rows: int, seed: int) -> Path:
    """Write `num_rows` pictures, then `conversations.json`, to `out`; returns the JSON. Keeps one that is there."""
    from apps.sim.game import STYLES, equations
    from dataengine.rendered.handwriting import write
    from dataengine.rendered.keyed import keyed_rng

    listing = out / "conversations.json"
    if listing.exists() and len(json.loads(listing.read_text())) == num_rows:
        return listing
    (out / "images").mkdir(parents=True, exist_ok=True)
    pool, styles = equations("in-domain"), STYLES["in-domain"]
    rows = []
    for row in range(num_rows):
        rng = keyed_rng("whiteboard", seed, row)
        equation = pool[int(rng.integers(len(pool)))]
        picture = write(equation.text, style=str(rng.choice(styles)), size=WHITEBOARD_SIZE, height=0.3, rng=rng)
        name = f"images/board_{row:05d}.png"
        picture.save(out / name)
        questions = {
            "What is written on the whiteboard?": f"The board reads {equation.text}.",
            "Solve what is written on the whiteboard.": f"{equation.text}={equation.answer}.",
        }
        question = sorted(questions)[row % len(questions)]
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": questions[question]}]
        rows.append({"id": f"board_{row:05d}", "image": name, "conversations": turns})
    write_atomic(listing, json.dumps(rows, indent=1).encode())
    return listing
