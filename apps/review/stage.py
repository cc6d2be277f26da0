"""The middle of the page: the episode's video, what was cut out of it, and the timeline.

The video is the dataset's own file. Shards hold many episodes one after another, so the page gets where this one starts
and ends and stays inside. Nothing is copied or re-encoded.
"""

import base64
import io
import json
import logging
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from apps.review.desk import Desk, Shown
from apps.review.markup import say
from apps.review.timeline import curves, timeline
from apps.review.videos import VIDEOS
from schemas.annotations import ReasoningTrace
from schemas.errors import EngineError

_log = logging.getLogger(__name__)
_LEAST_SHOWN = 96  # pixels: smaller cut-outs are enlarged without smoothing, so that every pixel is seen
_AHEAD = 16  # items drawn before the page opens: half a second, most of it for the decoder's own start


def stage(desk: Desk, shown: Shown) -> str:
    """Video, controls, timeline and cut-outs of the item's episode."""
    item, episodes = shown.item, desk.episodes
    row = episodes.row(item.episode_id)
    cameras = [_camera(desk, item.episode_id, name) for name in episodes.cameras]
    buttons = "".join(
        f'<button type="button" data-camera="{index}" aria-pressed="{"true" if index == 0 else "false"}">'
        f"{say(camera['name'])}</button>"
        for index, camera in enumerate(cameras)
    )
    segments = desk.segments(shown)
    drawn = desk.drawn.get(("curves", item.episode_id), lambda: _curves(desk, item.episode_id))
    lanes = timeline(episodes, item.episode_id, drawn, segments, item.head.results)
    crops = _crops(desk, shown)
    screen = (
        '<video muted playsinline preload="auto" aria-label="the episode"></video>'
        if cameras
        else '<p class="hint">These episodes have no camera.</p>'
    )
    return f"""
<div class="stage" data-fps="{episodes.rate_hz}" data-frames="{row.num_frames}" data-key="{say(shown.token.key)}"
     data-first="{row.start_frame}" data-first-ns="{row.start_ns}" data-proposal="{say(item.head.proposal_id)}"
     data-boxes="{say(json.dumps(_boxes(desk, shown)))}"
     data-cameras="{say(json.dumps(cameras))}">
  <div class="stage-head"><h2 title="{say(item.episode_id)}">{say(item.episode_id)}</h2>
    <span class="task" tabindex="0">{say(row.task)}</span><span class="spacer"></span>
    <div class="cameras">{buttons}</div></div>
  <div class="screen-row"><div class="screen">{screen}</div>
    <div class="crops" aria-label="cut out of the video">{crops}</div></div>
  {_TRANSPORT}
  {lanes}
</div>"""


def draw_ahead(desk: Desk) -> None:
    """Draw, as nobody, what the first people will see: they come together, and all would wait for it."""
    for row in desk.queue(desk.wanted(), reviewer="", track="review")[:_AHEAD]:
        try:
            stage(desk, desk.look(row.item_id, reviewer=""))
        except (EngineError, OSError, ValueError) as error:  # one damaged episode must not keep the page from opening
            _log.warning("%s can not be drawn (%s: %s)", row.item_id, type(error).__name__, error)


_TRANSPORT = """
  <div class="transport">
    <button type="button" data-act="first" title="to the start (Home)">|&#9664;&#xFE0E;</button>
    <button type="button" data-act="prev" title="one frame back (left arrow)">&#9664;&#xFE0E; 1</button>
    <button type="button" data-act="play" class="play" title="play or pause (space)">Play</button>
    <button type="button" data-act="next" title="one frame on (right arrow)">1 &#9654;&#xFE0E;</button>
    <button type="button" data-act="slower" title="slower (,)">&minus;</button>
    <output class="speed" aria-label="speed">1&times;</output>
    <button type="button" data-act="faster" title="faster (.)">+</button>
    <span class="spacer"></span>
    <output class="clock">frame 0</output>
  </div>"""


def _camera(desk: Desk, episode_id: str, name: str) -> dict[str, Any]:
    path, start_s, end_s = desk.episodes.video_clip(episode_id, name)
    return {"name": name, "url": VIDEOS + quote(str(path.relative_to(desk.videos))), "start": start_s, "end": end_s}


def _boxes(desk: Desk, shown: Shown) -> dict[str, Any] | None:
    """The picture that boxes are about, and the boxes that the proposal cut out of it; None for no camera."""
    cameras, first = desk.episodes.cameras, desk.episodes.row(shown.item.episode_id).start_frame
    if not cameras:
        return None
    named = [
        (name, spec)
        for name, spec in _ordered(shown.item.head.proposal.images)
        if isinstance(spec, dict) and spec.get("camera") in cameras and isinstance(spec.get("frame"), int)
    ]
    about: dict[str, Any] = next(
        (spec for name, spec in named if name.startswith("card")), named[0][1] if named else {}
    )
    camera, frame = about.get("camera", cameras[0]), about.get("frame", first)
    standing = shown.start.boxed_in if isinstance(shown.start, ReasoningTrace) else None
    if standing is not None and standing.camera in cameras:
        camera, frame = standing.camera, standing.frame
    cut = {
        name.removeprefix("card_"): spec["box_xyxy"]
        for name, spec in named
        if (name == "board" or name.startswith("card_"))
        and spec.get("box_xyxy")
        and (spec["camera"], spec["frame"]) == (camera, frame)
    }
    return {"camera": list(cameras).index(camera), "name": camera, "frame": max(0, frame - first), "cut": cut}


def _crops(desk: Desk, shown: Shown) -> str:
    figures = [
        _figure(desk, shown.item.episode_id, name, spec)
        for name, spec in _ordered(shown.item.head.proposal.images)
        if isinstance(spec, dict)
    ]
    return "".join(figures) or '<p class="hint">This proposal names no cut-outs.</p>'


def _ordered(images: dict[str, Any]) -> list[tuple[str, Any]]:
    """The board first, then the cards from left to right, or what is moved and where to; then the rest."""
    order = ("board", "board_again", "card_left", "card_middle", "card_right", "target", "reference", "before", "after")
    return sorted(images.items(), key=lambda pair: (order.index(pair[0]) if pair[0] in order else 99, pair[0]))


def _curves(desk: Desk, episode_id: str) -> str:
    with desk.looking:
        return curves(desk.episodes, episode_id)


def _figure(desk: Desk, episode_id: str, name: str, spec: dict[str, Any]) -> str:
    """One cut-out at full resolution, or why there is none."""
    words = name.replace("_", " ")
    try:
        about = json.dumps([spec["camera"], spec["frame"], spec.get("box_xyxy")])
        return desk.drawn.get(("cut", episode_id, name, about), lambda: _drawn(desk, episode_id, name, words, spec))
    except (EngineError, KeyError, ValueError, TypeError, IndexError) as error:
        # A proposal's picture may name what these episodes lack; the item can still be decided from the video.
        return f'<figure class="crop missing"><figcaption>{say(words)}: {say(error)}</figcaption></figure>'


def _drawn(desk: Desk, episode_id: str, name: str, words: str, spec: dict[str, Any]) -> str:
    """The cut-out; a click on it seeks to its frame."""
    index = int(spec["frame"]) - desk.episodes.row(episode_id).start_frame
    if index < 0:
        raise IndexError("this picture was trimmed off")
    with desk.looking:  # decoding is not for several threads at once, cutting and encoding are
        frame = desk.episodes.frame(episode_id, str(spec["camera"]), index)
    picture = _cut(frame, spec.get("box_xyxy"))
    height, width = picture.shape[:2]
    grown = "tiny" if height < _LEAST_SHOWN else "plain"
    kind = "wide" if name.startswith("board") or spec.get("box_xyxy") is None else "narrow"
    return (
        f'<figure class="crop {kind}" data-name="{say(name)}" data-seek="{index}" tabindex="-1" '
        f'title="click to see frame {index}">'
        f'<img class="{grown}" src="{_data_url(picture)}" width="{width}" height="{height}" alt="{say(words)}">'
        f"<figcaption>{say(words)} <span>frame {index}</span></figcaption></figure>"
    )


def _cut(frame: NDArray[np.uint8], box: list[int] | None) -> NDArray[np.uint8]:
    if box is None:
        return frame
    x0, y0, x1, y1 = (int(value) for value in box)
    part = frame[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
    if part.size == 0:
        raise ValueError(f"the box {box} holds no pixel of a {frame.shape[1]}x{frame.shape[0]} picture")
    return part


def _data_url(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    # A third of the time of the usual level 6, and a fifth more bytes.
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
