"""One draw on one self-contained HTML page, exactly as the model gets it: nothing is fetched, nothing is left out."""

import base64
import io
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from dataengine.mix.build import ImageTokens
from dataengine.mix.lineage import LineageNode, lineage
from dataengine.mix.mix import Mix
from dataengine.mix.robot_items import ACTION, STATE
from dataengine.mix.sampling import RobotReader
from schemas.chat import IGNORE, IMAGE_TOKEN, Image, RenderedChat, Tokenizer, render_chat
from schemas.errors import MixError
from schemas.mixes import Sample

_STYLE = Path(__file__).with_name("sample_page.css")
_WIDTH, _HEIGHT = 210.0, 70.0  # of one plot, in its own units
_MAX_BAR = 3.0  # z-scores beyond this are drawn at the edge, with their number beside


def sample_html(mix: Mix, position: int, tokenizer: Tokenizer, image_tokens: ImageTokens) -> str:
    """The page of one draw. Raises MixError when the tokenizer is not the one the mix was counted with."""
    if tokenizer.fingerprint != mix.lock.tokenizer_fingerprint:
        raise MixError(
            f"mix '{mix.ref}' was counted with tokenizer {mix.lock.tokenizer_fingerprint[:12]}, "
            f"not {tokenizer.fingerprint[:12]}. Show it with that one."
        )
    sample = mix.sample(position)
    chat = render_chat(
        sample.messages, tokenizer, [image_tokens(picture.shape[1], picture.shape[0]) for picture in sample.images]
    )
    title = f"Draw {position} of {mix.ref}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=key>{escape(sample.draw.source)} &middot; <code>{escape(sample.item_key)}</code></p>",
        _pictures(sample),
        _chat(chat, tokenizer),
        *_numbers(mix, sample),
        "<section class=lineage><h2><b>Lineage</b>where it comes from</h2>"
        f"<ul>{_node(lineage(mix, position))}</ul></section>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE.read_text()}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _pictures(sample: Sample) -> str:
    names = [part.name for message in sample.messages for part in message.parts if isinstance(part, Image)]
    figures = []
    for name, pixels in zip(names, sample.images, strict=True):
        height, width = pixels.shape[:2]
        file = io.BytesIO()
        PilImage.fromarray(pixels).save(file, "PNG")
        data = base64.b64encode(file.getvalue()).decode()
        figures.append(
            f'<figure><img alt="{escape(name)}" width={width} height={height} src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(name)}, {width} x {height}</figcaption></figure>"
        )
    return f"<section><h2><b>Pictures</b>upright RGB</h2><div class=pictures>{''.join(figures)}</div></section>"


def _chat(chat: RenderedChat, tokenizer: Tokenizer) -> str:
    """Every token in its own box; those that carry a loss are marked, runs of picture places are counted."""
    boxes = []
    tokens = [(tokenizer.decode([token]), label != IGNORE) for token, label in zip(chat.ids, chat.labels, strict=True)]
    for (text, said), group in groupby(tokens):
        count = len(list(group))
        if text == IMAGE_TOKEN:
            boxes.append(f"<span class=picture>{escape(text)} x {count}</span>")
            continue
        kind = "said" if said else ("" if text.startswith("<|") else "words")
        shown = escape(text).replace("\n", "&#8629;\n")
        boxes += [f'<span class="{kind}">{shown}</span>'] * count
    return (
        f"<section><h2><b>Chat</b>{len(chat.ids)} tokens, {chat.num_supervised} supervised</h2>"
        f"<div class=chat>{''.join(boxes)}</div>"
        "<p class=legend><i>marked</i> tokens carry a loss; all others are only read.</p></section>"
    )


def _numbers(mix: Mix, sample: Sample) -> list[str]:
    """State and actions as the model gets them; nothing for image-text."""
    if sample.state is None or sample.actions is None or sample.action_is_pad is None:
        return []
    reader = mix.reader(sample.draw.source)
    names: dict[str, Sequence[str]] = {}
    if isinstance(reader, RobotReader):
        names = {key: feature.names for key, feature in reader.episodes.rig.features.items()}
    padded = int(sample.action_is_pad.sum())
    steps = len(sample.action_is_pad)
    mask = "".join(f"<i{' class=pad' if pad else ''}></i>" for pad in sample.action_is_pad)
    plots = "".join(
        f"<div><b>{escape(name)}</b> {values.min():.2f} to {values.max():.2f}"
        f"{_curve(values, sample.action_is_pad)}</div>"
        for name, values in zip(_names(names.get(ACTION, ()), sample.actions.shape[1]), sample.actions.T, strict=True)
    )
    bars = "".join(
        f"<div><b>{escape(name)}</b> {value:+.2f}{_bar(float(value))}</div>"
        for name, value in zip(_names(names.get(STATE, ()), len(sample.state)), sample.state, strict=True)
    )
    embodiment = escape(sample.embodiment or "")
    return [
        f"<section><h2><b>State</b>z-scores, normaliser {embodiment}</h2><div class=plots>{bars}</div></section>",
        f"<section><h2><b>Actions</b>{steps} steps, -1 to 1 over the training split; {padded} padded</h2>"
        f"<div class=mask title='padding mask'>{mask}</div><div class=plots>{plots}</div>"
        "<p class=legend><i class=pad>padded</i> steps lie beyond the end of the episode, repeat its last action, "
        "and carry no loss.</p></section>",
    ]


def _names(names: Sequence[str], count: int) -> list[str]:
    return list(names) if len(names) == count else [f"dimension {number}" for number in range(count)]


def _curve(values: NDArray[np.float32], is_pad: NDArray[np.bool_]) -> str:
    """One dimension of a chunk; the plot spans -1.1 to 1.1, or more where values lie outside."""
    reach = max(1.1, float(np.abs(values).max()))
    step = _WIDTH / max(1, len(values) - 1)
    points = [f"{n * step:.1f},{_HEIGHT / 2 * (1 - float(v) / reach):.1f}" for n, v in enumerate(values)]
    real = len(values) - int(is_pad.sum())
    pad_start = max(0, real - 1) * step
    shade = f"<rect class=padground x={pad_start:.1f} y=0 width={_WIDTH - pad_start:.1f} height={_HEIGHT} />"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}">{shade if is_pad.any() else ""}'
        f"<rect class=frame x=0 y=0 width={_WIDTH} height={_HEIGHT} rx=3 />"
        f"<line class=zero x1=0 x2={_WIDTH} y1={_HEIGHT / 2} y2={_HEIGHT / 2} />"
        f'<polyline class=real points="{" ".join(points[:real])}" />'
        f'<polyline class=padded points="{" ".join(points[max(0, real - 1) :])}" /></svg>'
    )


def _bar(value: float) -> str:
    """One z-score as a bar from the middle."""
    middle, height = _WIDTH / 2, 10.0
    end = middle * (1 + max(-_MAX_BAR, min(_MAX_BAR, value)) / _MAX_BAR)
    left, width = min(middle, end), abs(end - middle)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}"><rect class=frame x=0 y=0 width={_WIDTH} height={height} rx=3 />'
        f"<rect class=bar x={left:.1f} y=2 width={width:.1f} height={height - 4} />"
        f"<line class=zero x1={middle} x2={middle} y1=0 y2={height} /></svg>"
    )


def _node(node: LineageNode) -> str:
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in node.facts)
    below = "".join(_node(child) for child in node.came_from)
    return (
        f"<li><span class=kind>{escape(node.kind)}</span><code>{escape(node.name)}</code>"
        + (f"<dl>{facts}</dl>" if facts else "")
        + (f"<ul>{below}</ul>" if below else "")
        + "</li>"
    )
