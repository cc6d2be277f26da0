"""The first pass over a recording: every topic's stamps, the numbers of features, the form of pictures."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.message_fields import FieldPath, Node, decode_faults, decoder, field_names, numbers, stamp_ns
from dataengine.sources.message_pictures import PictureForm, picture_bytes, picture_form
from dataengine.sources.message_video import codec_of, decoded, is_key_picture
from dataengine.sources.recordings import Message, Recording, Topic
from schemas.errors import EpisodeError, SourceError
from schemas.rigs import Clock, Feature

_BLOCK_ROWS = 4096  # small arrays joined into one: 900,000 messages of an hour would cost 100 bytes each on top
_UNSET, _NO_FIELD = 0, -1


@dataclass(slots=True, kw_only=True)
class TopicStamps:
    """The stamps of one topic's messages, in ns."""

    topic: str
    header: "array[int]" = field(default_factory=lambda: array("q"))
    log: "array[int]" = field(default_factory=lambda: array("q"))
    publish: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, message: Message, node: Node) -> None:
        stamp = stamp_ns(node)
        self.header.append(_NO_FIELD if stamp is None else stamp)
        self.log.append(message.log_ns)
        self.publish.append(message.publish_ns)

    def chosen(self, clock: Clock, episode: str) -> tuple[NDArray[np.int64], str]:
        """The stamps that count and which ones they are. Raises EpisodeError where they go back."""
        stamps, word = self._kind(clock, episode)
        back = np.flatnonzero(np.diff(stamps) < 0)
        if len(back):
            place = int(back[0])
            back_s = (stamps[place] - stamps[place + 1]) / 1e9
            advice = "set clock.stamp: log in the rig" if word == "header" else "record it again"
            raise EpisodeError(
                f"{episode}: {word} stamps of {self.topic} go back by {back_s:.3f} s at message {place + 1}. "
                f"Drop the episode, or {advice}."
            )
        return stamps, word

    def _kind(self, clock: Clock, episode: str) -> tuple[NDArray[np.int64], str]:
        log = np.asarray(self.log, np.int64)
        if clock.stamp == "log":
            return log, "log"
        if clock.stamp == "publish":
            return np.asarray(self.publish, np.int64), "publish"
        header = np.asarray(self.header, np.int64)
        if not len(header) or (header == _NO_FIELD).all():
            return log, "log (no header stamp)"
        if (header == _UNSET).all():
            return log, "log (header stamps are 0)"
        if (header <= _UNSET).any():
            raise EpisodeError(
                f"{episode}: message {int(np.argmax(header <= _UNSET))} of {self.topic} has no header stamp, others "
                f"have one. Set clock.stamp: log in the rig."
            )
        return header, "header"


@dataclass(slots=True, kw_only=True)
class ValueStream:
    """The numbers of one feature, message by message."""

    ours: str
    feature: Feature
    path: FieldPath
    as_float: bool  # JSON does not tell 1 from 1.0
    episode: str
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    labels: tuple[str, ...] | None = None
    _order: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    _rows: list[NDArray[Any]] = field(default_factory=list)
    _blocks: list[NDArray[Any]] = field(default_factory=list)

    def add(self, node: Node, number: int) -> None:
        """Take one message. Raises EpisodeError where it has no such numbers, or names them differently."""
        row = numbers(self.path.value(node))
        if row is None:
            has = ", ".join(field_names(node)) or "no fields"
            raise EpisodeError(
                f"{self._where(number)} has no numbers at {self.feature.key} (has: {has}). Correct the key in the rig."
            )
        if self.feature.joints:
            picked = self._by_name(node, row, number)
            if picked is None:
                return  # another publisher's message on the same topic: none of these joints
            row = picked
        else:
            self._check_order(node, number)
        if not len(row):
            raise EpisodeError(
                f"{self._where(number)}: {self.feature.key} is empty. Record it, or mark the feature optional."
            )
        if self._width is not None and len(row) != self._width:
            raise EpisodeError(
                f"{self._where(number)}: {self.feature.key} has {len(row)} values, {self._width} before. "
                f"List joints: in the rig, or drop the episode."
            )
        self.numbers.append(number)
        self._rows.append(row.astype(np.float64) if self.as_float and row.dtype.kind != "b" else row)
        if len(self._rows) == _BLOCK_ROWS:
            self._close_block()

    def values(self) -> NDArray[Any]:
        """(messages, dims)."""
        if self._rows:
            self._close_block()
        return np.concatenate(self._blocks) if self._blocks else np.zeros((0, 0))

    @property
    def _width(self) -> int | None:
        if self._rows:
            return len(self._rows[0])
        return self._blocks[0].shape[1] if self._blocks else None

    def _close_block(self) -> None:
        self._blocks.append(np.stack(self._rows))
        self._rows.clear()

    def _by_name(self, node: Node, row: NDArray[Any], number: int) -> NDArray[Any] | None:
        labels = self.path.labels(node)
        if labels is None:
            raise EpisodeError(
                f"{self._where(number)} does not name its values, but the rig lists joints: for '{self.ours}'. "
                f"Use columns: instead."
            )
        order = self._order.get(labels)
        if order is None:
            order = self._order[labels] = self._order_of(labels, number)
        if not order:
            return None
        if len(row) != len(labels):
            if not len(row):
                return row
            raise EpisodeError(
                f"{self._where(number)} has {len(row)} values for {len(labels)} names. Drop the episode."
            )
        return row[order]

    def _order_of(self, labels: tuple[str, ...], number: int) -> list[int]:
        known = [joint for joint in self.feature.joints if joint in labels]
        if known and len(known) != len(self.feature.joints):
            missing = next(joint for joint in self.feature.joints if joint not in labels)
            raise EpisodeError(
                f"{self._where(number)} has no '{missing}' (has: {', '.join(labels)}). Correct joints: in the rig."
            )
        return [labels.index(joint) for joint in known]

    def _check_order(self, node: Node, number: int) -> None:
        labels = self.path.labels(node)
        if not len(self.numbers):
            self.labels = labels
        elif labels != self.labels:
            raise EpisodeError(
                f"{self._where(number)} names its values in another order than the first one. List them under joints: "
                f"of '{self.ours}' in the rig."
            )

    def _where(self, number: int) -> str:
        return f"{self.episode}: {self.path.topic} message {number}"


@dataclass(slots=True, kw_only=True)
class PictureStream:
    """The form of one camera's pictures, and where its video can be entered."""

    ours: str
    topic: Topic
    episode: str
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    form: PictureForm | None = None
    codec: str | None = None
    keys: list[int] = field(default_factory=list)

    def add(self, node: Node, number: int) -> None:
        """Take one message. Raises EpisodeError for one that is no picture, or not like the first."""
        where = f"{self.episode}: {self.topic.name} message {number}"
        kind = self.topic.picture_kind
        if kind is None:
            raise EpisodeError(f"{where} is {self.topic.type_name}, no picture. Correct cameras: in the rig.")
        if kind == "video":
            self._add_video(node, number, where)
            return
        found = picture_form(node, kind, where)
        if self.form is None:
            self.form = found
        elif found != self.form:
            raise EpisodeError(
                f"{where} is {found.width}x{found.height} '{found.encoding}', the first one {self.form.width}x"
                f"{self.form.height} '{self.form.encoding}'. Drop the episode."
            )
        self.numbers.append(number)

    def _add_video(self, node: Node, number: int, where: str) -> None:
        found = picture_form(node, "video", where)
        codec = codec_of(found.encoding, where)
        data = picture_bytes(node)
        if is_key_picture(data, codec):
            self.keys.append(number)
        if not self.keys:
            return  # it leans on pictures before the recording began; said in the episode's notes
        if self.form is None:
            [(_, first)] = decoded([(number, data)], codec, where)
            self.codec = codec
            self.form = PictureForm(
                store="video", encoding=found.encoding, height=first.shape[0], width=first.shape[1], channel_order="rgb"
            )
        if codec != self.codec:
            raise EpisodeError(f"{where} is {codec}, the first one {self.codec}. Drop the episode.")
        self.numbers.append(number)


@dataclass(slots=True, kw_only=True)
class TextStream:
    """The texts at one path, each once, in order."""

    path: FieldPath
    texts: list[str] = field(default_factory=list)

    def add(self, node: Node, number: int) -> None:
        """Take one message; what is no text counts as none."""
        value = self.path.value(node)
        text = value.strip() if isinstance(value, str) else ""
        if text and text not in self.texts:
            self.texts.append(text)


type AnyStream = ValueStream | PictureStream | TextStream


def collect(recording: Recording, streams: Mapping[str, list[AnyStream]], episode: str) -> dict[str, TopicStamps]:
    """One pass over the topics of `streams`, each message decoded once. Returns each topic's stamps."""
    try:
        decoders: dict[str, Callable[[bytes], Node]] = {name: decoder(recording.topics[name]) for name in streams}
    except SourceError as error:  # of this recording: others may define the type
        raise EpisodeError(f"{episode}: {error}") from None
    stamps = {name: TopicStamps(topic=name) for name in streams}
    for message in recording.messages(frozenset(streams)):
        name = message.topic
        number = len(stamps[name].log)
        try:
            node = decoders[name](message.data)
        except decode_faults() as error:
            raise EpisodeError(
                f"{episode}: {name} message {number} does not decode ({error}). Drop the episode."
            ) from None
        stamps[name].add(message, node)
        for stream in streams[name]:
            stream.add(node, number)
    return stamps
