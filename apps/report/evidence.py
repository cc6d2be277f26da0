"""Evidence of a quality verdict: the pictures of the moment, and the curve of the number that went wrong."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from apps.report.page import Html, note, picture
from apps.report.pictures import filmstrip
from dataengine.quality import QualityRow
from dataengine.quality.recordings import ACTION, STATE, ArtifactRecordings
from schemas.errors import EngineError

_WIDTH, _HEIGHT = 440, 120
_POINTS = 400  # drawn of a curve
_AROUND_S = 1.5  # shown before and after a moment
_STRIP = 5


def evidence(recordings: ArtifactRecordings, row: QualityRow) -> str:
    """Markup of one failed verdict; a picture that cannot be read is said, not hidden."""
    try:
        match row.check:
            case "frozen_camera" | "black_camera" | "washed_out_camera":
                return _strip(recordings, row.episode_id, row.stream, _around(recordings, row))
            case "not_finite" | "jump" | "stuck_joint" | "static_episode" | "action_lag":
                whole = row.frame is None or row.check == "static_episode"
                places = _whole(recordings, row.episode_id) if whole else _around(recordings, row)
                return _curve_of(recordings, row) + _first_camera(recordings, row.episode_id, places)
            case "dropped_frames":
                return _steps(recordings, row)
            case "duplicate_episode":
                other = row.other or row.episode_id
                strips = [
                    _first_camera(recordings, episode_id, _whole(recordings, episode_id))
                    for episode_id in dict.fromkeys((row.episode_id, other))
                ]
                return "".join(strips)
            case "length_outlier":
                return _first_camera(recordings, row.episode_id, _whole(recordings, row.episode_id))
            case _:
                return ""
    except EngineError as error:
        return note(f"No picture: {error}")


def _num_frames(recordings: ArtifactRecordings, episode_id: str) -> int:
    if recordings.episodes is not None:
        return recordings.episodes.row(episode_id).num_frames
    assert recordings.store is not None
    start, stop = recordings.store.span(episode_id)
    return stop - start


def _frame(recordings: ArtifactRecordings, episode_id: str, camera: str, index: int) -> NDArray[np.uint8]:
    if recordings.episodes is not None:
        return recordings.episodes.frame(episode_id, camera, index)
    assert recordings.store is not None
    return recordings.store.frame(camera, recordings.store.span(episode_id)[0] + index)


def _around(recordings: ArtifactRecordings, row: QualityRow) -> list[int]:
    """Before, within and after the moment."""
    num, rate_hz = _num_frames(recordings, row.episode_id), recordings.rig.rate_hz
    start = row.frame or 0
    stop = min(num - 1, start + row.num_frames)
    margin = max(1, round(min(0.5, row.num_frames / rate_hz) * rate_hz))
    places = np.linspace(max(0, start - margin), min(num - 1, stop + margin), _STRIP)
    return sorted({*places.round().astype(int).tolist()})


def _whole(recordings: ArtifactRecordings, episode_id: str) -> list[int]:
    return sorted({*np.linspace(0, _num_frames(recordings, episode_id) - 1, _STRIP).round().astype(int).tolist()})


def _first_camera(recordings: ArtifactRecordings, episode_id: str, indices: Sequence[int]) -> str:
    cameras = list(recordings.rig.cameras)
    if recordings.episodes is not None:
        cameras = list(recordings.episodes.cameras)
    elif recordings.store is not None:
        cameras = list(recordings.store.cameras)
    return _strip(recordings, episode_id, cameras[0], indices) if cameras else ""


def _strip(recordings: ArtifactRecordings, episode_id: str, camera: str, indices: Sequence[int]) -> str:
    frames = [_frame(recordings, episode_id, camera, index) for index in indices]
    rows = ", ".join(map(str, indices))
    words = f"{camera} of {episode_id}, rows {rows}"
    return picture(filmstrip(frames, height=96), "jpeg", words) + note(words)


def _curve_of(recordings: ArtifactRecordings, row: QualityRow) -> str:
    """The offending dimension, and its partner where state and action are compared."""
    columns = recordings.read(row.episode_id).columns
    rate_hz, dim = recordings.rig.rate_hz, row.dim or 0
    if row.check == "action_lag":
        dim = _liveliest(columns[ACTION])
        series = {"action": columns[ACTION][:, dim]}
        if STATE in columns and columns[STATE].shape[1] > dim:
            series["state"] = columns[STATE][:, dim]
        return str(curve(series, rate_hz=rate_hz))
    if row.stream not in columns:
        return ""
    series = {row.stream: columns[row.stream][:, dim]}
    if row.check == "stuck_joint" and ACTION in columns and columns[ACTION].shape[1] > dim:
        series["action"] = columns[ACTION][:, dim]
    if row.check == "static_episode" or row.frame is None:
        return str(curve(series, rate_hz=rate_hz))
    margin = round(_AROUND_S * rate_hz)
    window = (max(0, row.frame - margin), min(len(series[row.stream]), row.frame + row.num_frames + margin))
    return str(curve(series, rate_hz=rate_hz, window=window, mark=(row.frame, row.frame + row.num_frames)))


def _liveliest(values: NDArray[np.generic]) -> int:
    """The dimension whose motion stands out most from its own steps."""
    rows = values.astype(np.float64)
    steps = np.abs(np.diff(rows, axis=0)).max(axis=0)
    spread = np.divide(np.ptp(rows, axis=0), steps, out=np.zeros(rows.shape[1]), where=steps > 0)
    return int(np.argmax(spread))


def _steps(recordings: ArtifactRecordings, row: QualityRow) -> str:
    """Spacing of the recorded stamps."""
    stamps = recordings.read(row.episode_id).stamps_ns.get(row.stream)
    if stamps is None or len(stamps) < 3:
        return ""
    steps = np.diff(stamps) / 1e6
    mark = None if row.frame is None else (row.frame - 1, row.frame)
    return str(curve({"ms between stamps": steps}, rate_hz=recordings.rig.rate_hz, mark=mark))


def curve(
    series: Mapping[str, NDArray[np.generic]],
    *,
    rate_hz: int,
    window: tuple[int, int] | None = None,
    mark: tuple[int, int] | None = None,
) -> Html:
    """One small plot with a shared axis; `window` and `mark` are rows. Values that are not finite leave a gap."""
    start, stop = window or (0, max(len(values) for values in series.values()))
    shown = {name: values[start:stop].astype(np.float64) for name, values in series.items()}
    finite = np.concatenate([values[np.isfinite(values)] for values in shown.values()])
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span = high - low or 1.0
    parts = [f'<svg class="curve" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    if mark is not None:
        left, right = (_x(at - start, stop - start) for at in mark)
        parts.append(
            f'<rect class="mark" x="{left:.1f}" y="0" width="{max(2.0, right - left):.1f}" height="{_HEIGHT}"/>'
        )
    for number, values in enumerate(shown.values()):
        parts.append(f'<path class="line{number}" d="{_path(values, low, span)}"/>')
    parts.append("</svg>")
    legend = " ".join(f'<span class="key{number}">{escape(name)}</span>' for number, name in enumerate(shown))
    words = f"{low:.4g} to {high:.4g}; {start / rate_hz:.2f} s to {stop / rate_hz:.2f} s"
    return Html(f'{"".join(parts)}<p class="note">{legend} {escape(words)}</p>')


def _x(at: float, num: int) -> float:
    return _WIDTH * at / max(1, num - 1)


def _path(values: NDArray[np.float64], low: float, span: float) -> str:
    """Pen moves; of a long curve the lowest and highest of each stretch are kept, so that no spike is lost."""
    num = len(values)
    places: NDArray[np.int64] = np.arange(num)
    if num > 2 * _POINTS:
        edges = np.linspace(0, num, _POINTS + 1).astype(int)
        filled = np.where(np.isfinite(values), values, low)
        kept = {int(a + np.argmin(filled[a:b])) for a, b in pairwise(edges.tolist()) if b > a}
        kept |= {int(a + np.argmax(filled[a:b])) for a, b in pairwise(edges.tolist()) if b > a}
        kept |= set(np.flatnonzero(~np.isfinite(values))[:_POINTS].tolist())
        places = np.asarray(sorted(kept))
    pen, out = "M", []
    for at in places.tolist():
        if not np.isfinite(values[at]):
            pen = "M"
            continue
        y = 6 + (_HEIGHT - 12) * (1 - (values[at] - low) / span)
        out.append(f"{pen}{_x(at, num):.1f} {y:.1f}")
        pen = "L"
    return "".join(out)
