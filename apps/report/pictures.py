"""Pictures of the report: filmstrips of episodes, loss curves."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def filmstrip(frames: Sequence[NDArray[np.uint8]], *, height: int = 180) -> bytes:
    """Frames side by side as one JPEG, each scaled to `height` pixels."""
    scaled = []
    for frame in frames:
        image = Image.fromarray(frame)
        scaled.append(image.resize((round(image.width * height / image.height), height), Image.Resampling.LANCZOS))
    gap = 4
    strip = Image.new("RGB", (sum(image.width + gap for image in scaled) - gap, height), (127, 127, 127))
    left = 0
    for image in scaled:
        strip.paste(image, (left, 0))
        left += image.width + gap
    out = io.BytesIO()
    strip.save(out, "JPEG", quality=85)
    return out.getvalue()


def curves(
    series: dict[str, tuple[Sequence[float], Sequence[float]]], *, x_label: str, marks: dict[str, float]
) -> bytes:
    """Loss curves as SVG: name -> (x, y); `marks` are named vertical lines, e.g. where a stage begins."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(series), figsize=(3.4 * len(series), 2.5), layout="constrained", squeeze=False)
    for axis, (name, (x, y)) in zip(axes[0], series.items(), strict=True):
        axis.plot(x, y, linewidth=0.8, color="#9db7e4")
        smooth = _smoothed(np.asarray(y, dtype=np.float64))
        axis.plot(x, smooth, linewidth=1.8, color="#2f5fb3")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel(x_label, fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        for word, at in marks.items():
            axis.axvline(at, color="#888888", linewidth=0.8, linestyle=":")
            axis.annotate(word, (at, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top", rotation=90)
    out = io.BytesIO()
    figure.savefig(out, format="svg")
    plt.close(figure)
    return out.getvalue()


def _smoothed(y: NDArray[np.float64], keep: float = 0.9) -> NDArray[np.float64]:
    """Exponential moving average, started at the first value."""
    out = np.empty_like(y)
    level = y[0] if len(y) else 0.0
    for at, value in enumerate(y):
        level = keep * level + (1 - keep) * value if np.isfinite(value) else level
        out[at] = level
    return out
