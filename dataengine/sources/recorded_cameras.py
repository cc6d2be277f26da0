"""Cameras of a recording: a second pass over one topic that gives each row its picture; one picture in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.message_fields import Node, decode_faults, decoder
from dataengine.sources.message_pictures import Picture, PictureForm, picture, picture_bytes
from dataengine.sources.message_video import decoded
from dataengine.sources.recordings import RecordingFiles
from schemas.episodes import CameraSpec
from schemas.errors import EpisodeError
from schemas.rigs import SourceKind


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PickedMessages:
    """The messages of one topic that the rows take. picks: (rows,) int64 message numbers, never going back."""

    files: RecordingFiles
    kind: SourceKind
    topic: str
    picks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.picks)

    def where(self, number: int) -> str:
        """A message in words."""
        return f"{self.files.name}: {self.topic} message {number}"

    def all(self) -> Iterator[tuple[int, Node]]:
        """Every message up to the last one taken, by number."""
        recording = self.files.open(self.kind)
        decode, last = decoder(recording.topics[self.topic]), int(self.picks[-1])
        for number, message in enumerate(recording.messages(frozenset([self.topic]))):
            if number > last:
                return
            try:
                yield number, decode(message.data)
            except decode_faults() as error:
                raise EpisodeError(f"{self.where(number)} does not decode ({error}). Drop the episode.") from None

    def taken(self) -> Iterator[tuple[int, int, bytes]]:
        """(number, rows that take it, stored bytes) of each message that is taken."""
        numbers, counts = np.unique(self.picks, return_counts=True)
        wanted = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        recording = self.files.open(self.kind)
        for number, message in enumerate(recording.messages(frozenset([self.topic]))):
            if number in wanted:
                yield number, wanted.pop(number), message.data
            if not wanted:
                return
        raise EpisodeError(f"{self.where(min(wanted))} is gone: the file has changed. Run the command again.")

    def decoded(self) -> Iterator[tuple[int, int, Node]]:
        """(number, rows that take it, message) of each message that is taken; no other one is decoded."""
        decode = decoder(self.files.open(self.kind).topics[self.topic])
        for number, count, data in self.taken():
            try:
                yield number, count, decode(data)
            except decode_faults() as error:
                raise EpisodeError(f"{self.where(number)} does not decode ({error}). Drop the episode.") from None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedJpegs:
    """JPEG messages, byte for byte."""

    spec: CameraSpec
    messages: PickedMessages

    def __len__(self) -> int:
        return len(self.messages)

    def jpegs(self) -> Iterator[bytes]:
        """The stored bytes, once for each row."""
        for _, count, message in self.messages.decoded():
            jpeg = picture_bytes(message)
            for _ in range(count):
                yield jpeg


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedArrays:
    """Raw, PNG or gray JPEG messages."""

    spec: CameraSpec
    messages: PickedMessages
    form: PictureForm

    def __len__(self) -> int:
        return len(self.messages)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """(height, width, 3) in the order the messages state, once for each row."""
        for array in _pictures(self.messages, self.form):
            yield np.asarray(array, np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedDepths:
    """Depth messages: 16UC1, 32FC1 or compressedDepth."""

    spec: CameraSpec
    messages: PickedMessages
    form: PictureForm

    def __len__(self) -> int:
        return len(self.messages)

    def depths(self) -> Iterator[NDArray[np.uint16] | NDArray[np.float32]]:
        """(height, width), once for each row."""
        for array in _pictures(self.messages, self.form):
            yield (
                array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array.astype(np.uint16, copy=False)
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedVideo:
    """CompressedVideo messages, decoded in order from the last key picture before the first row."""

    spec: CameraSpec
    messages: PickedMessages
    codec: str
    first_key: int  # message number

    def __len__(self) -> int:
        return len(self.messages)

    def arrays(self) -> Iterator[NDArray[np.uint8]]:
        """(height, width, 3) RGB, once for each row."""
        counts = np.bincount(self.messages.picks)
        where = f"{self.messages.files.name}: {self.messages.topic}"
        for number, array in decoded(self._coded(), self.codec, where):
            for _ in range(int(counts[number])):
                yield array

    def _coded(self) -> Iterator[tuple[int, bytes]]:
        for number, message in self.messages.all():
            if number >= self.first_key:
                yield number, picture_bytes(message)


def _pictures(messages: PickedMessages, form: PictureForm) -> Iterator[Picture]:
    for number, count, message in messages.decoded():
        array = picture(message, form, messages.where(number))
        for _ in range(count):
            yield array
