"""From an item to a sample: pixels scaled, words rendered, numbers normalised, the end of an episode padded."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dataengine.annotation_set import AnnotationSet
from dataengine.episode_set import EpisodeSet
from dataengine.mix.packed_rows import PackedRows
from dataengine.mix.pixels import decode_picture, scaled
from dataengine.mix.robot_items import ACTION, STATE, FrameAddress, FrameItems, reasoning_text, robot_messages
from dataengine.mix.splits import Split
from dataengine.workspace import Workspace
from schemas.mixes import Draw, HfSource, ImageTextSource, LlavaSource, MixLock, RenderedSource, RobotSource, Sample
from schemas.normalization import Normalizer
from schemas.refs import Ref


class SourceReader(Protocol):
    """The items of one source and one split."""

    def __len__(self) -> int: ...
    @property
    def tokens(self) -> NDArray[np.int64]:
        """Supervised tokens of every item."""
        ...

    def sample(self, draw: Draw) -> Sample: ...


class RobotReader:
    """Frames of robot episodes, with what the robot thinks there and the chunk of actions that follows."""

    def __init__(self, source: RobotSource, lock: MixLock, folder: Path, workspace: Workspace, split: Split) -> None:
        self.source = source
        self.episodes = EpisodeSet.open(workspace, Ref.parse(source.episodes))
        named = source.annotations if source.reasoning != "none" else None
        self.annotations = AnnotationSet.open(workspace, Ref.parse(named)) if named else None
        self.items = FrameItems(folder, source.name, split)
        self.normalizer = Normalizer.from_json(lock.normalizers[self.episodes.rig.name])
        self._size = lock.spec.image_size

    def __len__(self) -> int:
        return len(self.items)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Supervised tokens of every item."""
        return self.items.tokens

    def address(self, item: int) -> FrameAddress:
        """Where an item lies."""
        return self.items.address(item)

    def sample(self, draw: Draw) -> Sample:
        """The sample of one frame."""
        place = self.items.address(draw.item)
        columns = self.episodes.columns(place.episode_id)
        images = tuple(
            scaled(self.episodes.frame(place.episode_id, camera, place.frame), self._size)
            for camera in self.source.cameras
        )
        actions, is_pad = chunk(columns[ACTION], place.frame, self.source.chunk_steps)
        task = self.episodes.row(place.episode_id).task
        return Sample(
            draw=draw,
            item_key=f"{place.episode_id}#{place.frame}",
            messages=robot_messages(self.source, task, reasoning_text(self.annotations, place.annotation_row)),
            images=images,
            embodiment=self.normalizer.embodiment,
            state=self.normalizer.state(columns[STATE][place.frame]),
            actions=self.normalizer.action(actions),
            action_is_pad=is_pad,
        )


def chunk(actions: NDArray[np.generic], start: int, steps: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """`steps` rows from `start` on, (steps, A), and which of them lie beyond the end and repeat the last action."""
    wanted = np.arange(start, start + steps)
    last = len(actions) - 1
    return actions[np.minimum(wanted, last)].astype(np.float32), wanted > last


class ImageTextReader:
    """Rows of an image-text source, from the mix itself."""

    def __init__(self, source: ImageTextSource, number: int, lock: MixLock, folder: Path, split: Split) -> None:
        self.source = source
        self.rows = PackedRows(folder, number, split)
        self._size = lock.spec.image_size

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Supervised tokens of every item."""
        return self.rows.tokens

    def sample(self, draw: Draw) -> Sample:
        """The sample of one row."""
        return Sample(
            draw=draw,
            item_key=f"{self.source.name}#{self.rows.row_id(draw.item)}",
            messages=self.rows.messages(draw.item),
            images=tuple(
                scaled(decode_picture(content, at_least=self._size), self._size)
                for content in self.rows.pictures(draw.item)
            ),
        )


def open_reader(
    number: int, lock: MixLock, folder: Path, workspace: Workspace, split: Split
) -> RobotReader | ImageTextReader:
    """The reader of source `number` of a mix."""
    match lock.spec.sources[number]:
        case RobotSource() as source:
            return RobotReader(source, lock, folder, workspace, split)
        case LlavaSource() | HfSource() | RenderedSource() as source:
            return ImageTextReader(source, number, lock, folder, split)
