"""Depth pictures of one episode, beside those of its source: bit for bit in the store, within a step in the video."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.proofs.findings import Finding, finding
from dataengine.proofs.metadata import content_of
from dataengine.proofs.packets import episode_packets, source_packets
from dataengine.sinks.depth import MAX_M, MIN_M, MOST, SHIFT_M, depth_pictures
from dataengine.sinks.pictures import is_upright_rgb, upright
from dataengine.video_reader import VideoReader
from schemas.episodes import CameraStream, DepthStream, Episode, VideoFile

_EVERY = 7  # of the video's pictures, one is looked at; of the store's, all
_ROUNDING_M = 1e-6  # of float32 at the ends
_FLOAT_STEPS = 0.01  # of a step, lost where the formula is computed in float32


def episode_depth(
    episode: Episode, key: str, stream: CameraStream, *, episodes: EpisodeSet | None, store: FrameStore | None
) -> Iterator[Finding]:
    """Counts, and every measured pixel; `stream` is a depth camera."""
    assert isinstance(stream, VideoFile) or hasattr(stream, "depths")
    episode_id, rows = episode.meta.episode_id, episode.num_frames
    reader, first = None, 0
    if episodes is not None:
        found = episode_packets(episodes, episode_id, key)
        packets = found.digests
        detail = f"{len(packets)} for {rows} rows"
        yield Finding(check="frames == rows", stream=key, ok=len(packets) == rows, detail=detail)
        if len(packets) != rows:
            return
        content = content_of(episodes, episode_id)
        noted = content.staged.cameras[key].video if content is not None else None
        if noted is not None:
            odd = ["packets have another hash than the commit noted"] if noted.packets != found.content else []
            yield finding("video packets are those that were committed", odd, key)
        if isinstance(stream, VideoFile) and is_upright_rgb(stream.spec):
            same = packets == source_packets(stream, rate_hz=episode.rate_hz)
            yield Finding(check="video packets are byte-identical", stream=key, ok=same, detail="packets differ")
        path, start_s, _ = episodes.video_clip(episode_id, key)
        reader, first = VideoReader(path, rate_hz=episode.rate_hz), round(start_s * episode.rate_hz)
    start = store.span(episode_id)[0] if store is not None else 0
    worst_steps, beyond, differs = 0.0, 0, []
    for index, raw in enumerate(_pictures(stream)):
        depth = upright(raw, stream.spec.orientation)
        if store is not None:
            stored = store.depth(key, start + index)
            if stored.dtype != depth.dtype or stored.tobytes() != depth.tobytes():
                differs.append(index)
        if reader is not None:
            beyond += _num_beyond(depth, stream.spec.depth_unit_m or 1.0)
        if reader is not None and index % _EVERY == 0:
            steps = _steps_off(depth, reader.depth_m(first + index), stream.spec.depth_unit_m or 1.0)
            worst_steps = max(worst_steps, steps)
    if reader is not None:
        reader.close()
        ok = worst_steps <= 1 + _FLOAT_STEPS
        detail = f"{worst_steps:.2f} steps of the 12-bit codes away"
        yield Finding(check="video depth is within a quantisation step", stream=key, ok=ok, detail=detail)
        yield _reach(key, beyond, kept=store is not None)
    if store is not None:
        detail = f"{len(differs)} of {rows} pictures differ, the first at row {differs[0]}" if differs else ""
        yield Finding(check="depth of the frame store is bit-equal", stream=key, ok=not differs, detail=detail)


def _pictures(stream: CameraStream) -> Iterator[NDArray[Any]]:
    if isinstance(stream, VideoFile):
        return depth_pictures(stream)
    depths: DepthStream = stream  # type: ignore[assignment]  # told apart by `depths`, which the caller has checked
    return depth_pictures(depths)


def _num_beyond(depth: NDArray[Any], unit_m: float) -> int:
    """Measured pixels that are nearer or farther than the format's codes reach."""
    metres = depth.astype(np.float64) * unit_m
    measured = np.isfinite(metres) & (metres > 0)
    return int(np.count_nonzero(measured & ((metres < MIN_M - _ROUNDING_M) | (metres > MAX_M + _ROUNDING_M))))


def _reach(key: str, beyond: int, *, kept: bool) -> Finding:
    """No fault of the conversion, which can not put more into the format, but nobody should be surprised by it."""
    note = ""
    if beyond:
        where = "the frame store has them as recorded" if kept else "a frame store would keep them (--sink both)"
        note = f"{beyond} pixels lie beyond {MIN_M:g}..{MAX_M:g} m and are stored as the nearest of those; {where}"
    return Finding(check="depth is within the reach of the video's format", stream=key, ok=True, note=note)


def _steps_off(depth: NDArray[Any], decoded_m: NDArray[np.float32], unit_m: float) -> float:
    """The largest difference at a measured pixel, in steps of the logarithmic code there."""
    if depth.shape != decoded_m.shape:
        return float("inf")
    metres = depth.astype(np.float64) * unit_m
    measured = np.isfinite(metres) & (metres > 0)
    metres = np.clip(metres[measured], MIN_M, MAX_M)  # the format reaches no farther
    step = (metres + SHIFT_M) * np.log((MAX_M + SHIFT_M) / (MIN_M + SHIFT_M)) / MOST
    off = np.abs(metres - decoded_m[measured]) / step
    return float(off.max(initial=0.0))
