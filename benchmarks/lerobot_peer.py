"""LeRobot 0.6.1's own writer, for comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.episodes import Episode


def write_lerobot(root: Path, episodes: Sequence[Episode], *, streaming: bool) -> None:
    """Write `episodes` frame by frame through LeRobotDataset, with its default settings."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    first = episodes[0]
    features: dict[str, Any] = {
        key: {"dtype": column.dtype.name, "shape": (column.shape[1],), "names": None}
        for key, column in first.columns.items()
    }
    for key, stream in first.cameras.items():
        shape = (stream.spec.height, stream.spec.width, 3)
        names = ["height", "width", "channels"]
        features[f"observation.images.{key}"] = {"dtype": "video", "shape": shape, "names": names}
    dataset: Any = LeRobotDataset.create(
        "local/bench", fps=first.rate_hz, features=features, root=root, streaming_encoding=streaming
    )
    for episode in episodes:
        pictures = {key: list(stream.arrays()) for key, stream in episode.cameras.items()}  # type: ignore[union-attr]  # arrays in memory, all of them
        for row in range(episode.num_frames):
            frame: dict[str, Any] = {key: column[row] for key, column in episode.columns.items()}
            frame |= {f"observation.images.{key}": rows[row] for key, rows in pictures.items()}
            dataset.add_frame({**frame, "task": episode.meta.task})
        dataset.save_episode()
    dataset.finalize()
