"""A folder of recordings (MCAP, ROS 1 bags, rosbag2 sqlite) as episodes: streams aligned to the rig's clock.

First pass: stamps of all topics, numbers of the features, form of the pictures. Second pass, by whoever writes them:
the pictures that rows take, one at a time.
"""

import logging
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dataengine.sources.columns import check_column
from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint, hash_files
from dataengine.sources.hdf5_cameras import colour_question
from dataengine.sources.message_fields import FieldPath
from dataengine.sources.metadata import MetadataTable, csv_files
from dataengine.sources.recorded_cameras import (
    PickedMessages,
    RecordedArrays,
    RecordedDepths,
    RecordedJpegs,
    RecordedVideo,
)
from dataengine.sources.recorded_fit import check_fit, present_parts
from dataengine.sources.recorded_streams import (
    AnyStream,
    PictureStream,
    TextStream,
    TopicStamps,
    ValueStream,
    collect,
)
from dataengine.sources.recordings import Recording, RecordingFiles, find_recordings, listing
from dataengine.sync import Alignment, Stream, align, linear
from schemas.episodes import CameraSpec, CameraStream, Episode, EpisodeMeta
from schemas.errors import EpisodeError, RigError
from schemas.rigs import Camera, Feature, Rig, SourceKind

_log = logging.getLogger(__name__)
ALIGNMENT = "alignment"  # key under which an episode tells which stamps it took and what was trimmed


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEpisodes:
    """Recordings in or below a folder, or the one file named; each is an episode."""

    root: Path
    kind: SourceKind
    rig: Rig
    declared: Rig  # the rig as given, optional parts included
    table: MetadataTable
    files: dict[str, RecordingFiles]

    @classmethod
    def open(cls, root: Path, kind: SourceKind, rig: Rig | None) -> "RecordedEpisodes":
        """List the recordings and check the rig against some. Raises RigError when it fits none, or there is none."""
        files = {each.name: each for each in find_recordings(root, kind)}
        resolved = check_fit(list(files.values()), kind, rig)
        assert rig is not None  # check_fit refused it
        for note in dict.fromkeys(note for each in files.values() for note in each.notes):
            _log.warning(note)
        folder = root if root.is_dir() else root.parent
        table = MetadataTable.of(rig, folder, {name: _aliases(name) for name in files})
        return cls(root=root, kind=kind, rig=resolved, declared=rig, table=table, files=files)

    def names(self) -> list[str]:
        """Files or bag folders relative to the folder, in natural order."""
        return list(self.files)

    def stamps(self) -> dict[str, str]:
        """Sizes and dates of each episode's files and its row of the CSV."""
        return {
            name: files_stamp([*each.paths, *([each.metadata] if each.metadata else [])], self.table.row(name))
            for name, each in self.files.items()
        }

    def num_bytes(self, name: str) -> int:
        """Bytes of one recording's files; of those that are there."""
        return sum(path.stat().st_size for path in self.files[name].paths if path.is_file())

    def fingerprint(self) -> str:
        """Identity of every byte of every recording, and of what lies beside them."""
        folder = self.root if self.root.is_dir() else self.root.parent
        beside = [each.metadata for each in self.files.values() if each.metadata]
        whole = [path for each in self.files.values() for path in each.paths]
        return folder_fingerprint(folder, whole=[*whole, *beside, *csv_files(self.rig, folder)], pixels=[])

    def read(self, name: str) -> Episode:
        """One recording as an episode. Raises EpisodeError for a cut one, a gap, or streams that do not meet."""
        files = self.files[name]
        recording = files.open(self.kind)
        differences = self._differences(recording)
        if differences:
            raise EpisodeError(f"{name}: {differences[0]}")
        streams, words = self._streams(name, recording), self._word_paths(recording)
        by_topic: dict[str, list[AnyStream]] = {}
        for stream in [*streams.values(), *words.values()]:
            by_topic.setdefault(_topic(stream), []).append(stream)
        stamps = collect(recording, by_topic, name)
        return self._episode(name, recording, streams, words, stamps)

    def _differences(self, recording: Recording) -> list[str]:
        """Parts that this recording lacks, or has although the others do not."""
        mine = present_parts(recording, self.declared)
        rows = []
        parts: dict[str, Feature | Camera] = {**self.declared.features, **self.declared.cameras}
        for ours, part in parts.items():
            expected = ours in self.rig.features or ours in self.rig.cameras
            if expected and ours not in mine:
                has = listing(recording.topics)
                rows.append(f"no message for '{ours}' ({part.key}; has: {has}). Drop the episode.")
            if not expected and ours in mine:
                rows.append(f"has {part.key}, which most recordings here lack. Convert it from a folder of its own.")
        return rows

    def _streams(self, name: str, recording: Recording) -> dict[str, ValueStream | PictureStream]:
        streams: dict[str, ValueStream | PictureStream] = {}
        for ours, feature in self.rig.features.items():
            path = FieldPath.of(feature.key, recording.topics)
            assert path is not None  # `_differences`
            as_float = recording.topics[path.topic].encoding == "json"
            streams[ours] = ValueStream(ours=ours, feature=feature, path=path, as_float=as_float, episode=name)
        for ours, camera in self.rig.cameras.items():
            streams[ours] = PictureStream(ours=ours, topic=recording.topics[camera.key], episode=name)
        return streams

    def _word_paths(self, recording: Recording) -> dict[str, TextStream]:
        """The instruction (key "task") and metadata words that lie in messages."""
        wanted = {**self.rig.metadata.keys, **({"task": self.rig.task_key} if self.rig.task_key else {})}
        found: dict[str, TextStream] = {}
        for word, key in wanted.items():
            path = None if key in recording.words else FieldPath.of(key, recording.topics)
            if path is not None:
                found[word] = TextStream(path=path)
        return found

    def _episode(
        self,
        name: str,
        recording: Recording,
        streams: dict[str, ValueStream | PictureStream],
        words: dict[str, TextStream],
        stamps: dict[str, TopicStamps],
    ) -> Episode:
        measured = {_topic(stream) for stream in streams.values()}  # when an instruction was said does not matter
        chosen = {topic: each.chosen(self.rig.clock, name) for topic, each in stamps.items() if topic in measured}
        timed = {ours: self._timed(ours, stream, chosen[_topic(stream)][0]) for ours, stream in streams.items()}
        alignment = align(list(timed.values()), self.rig.clock, self.rig.rate_hz, episode=name)
        notes = _notes(recording, streams, {topic: word for topic, (_, word) in chosen.items()}, alignment)
        for note in notes:
            _log.info("%s: %s", name, note)
        tasks = words["task"].texts if "task" in words else []
        return Episode(
            meta=self._meta(name, recording, words),
            rate_hz=self.rig.rate_hz,
            columns={
                ours: self._column(name, stream, timed[ours], alignment)
                for ours, stream in streams.items()
                if isinstance(stream, ValueStream)
            },
            cameras={
                ours: self._camera(name, stream, alignment)
                for ours, stream in streams.items()
                if isinstance(stream, PictureStream)
            },
            stamps_ns={ours: stream.stamps_ns[alignment.picks[ours]] for ours, stream in timed.items()},
            imported={ALIGNMENT: tuple(notes), **({"task": tuple(tasks)} if len(tasks) > 1 else {})},
            skew=alignment.skew,
        )

    def _timed(self, ours: str, stream: ValueStream | PictureStream, stamps: NDArray[np.int64]) -> Stream:
        return Stream(
            name=ours,
            stamps_ns=stamps[np.asarray(stream.numbers, np.int64)],
            max_age_ns=self._max_age_ns(ours),
            linear=ours in self.rig.features and self.rig.features[ours].align == "linear",
        )

    def _meta(self, name: str, recording: Recording, words: dict[str, TextStream]) -> EpisodeMeta:
        """Words from messages (the first one said) and from the records beside them."""
        keys = {**self.rig.metadata.keys, **({"task": self.rig.task_key} if self.rig.task_key else {})}
        told = {word: recording.words[key] for word, key in keys.items() if key in recording.words}
        told |= {word: stream.texts[0] for word, stream in words.items() if stream.texts}
        return self.table.meta(
            episode_id=episode_id(PurePosixPath(name).stem, hash_files(self.files[name].paths)),
            raw_name=name,
            raw_task=told.get("task"),
            raw_words=told,
        )

    def _max_age_ns(self, ours: str) -> int:
        part: Feature | Camera = self.rig.features[ours] if ours in self.rig.features else self.rig.cameras[ours]
        return round((part.max_age_s or self.rig.clock.max_age_s) * 1e9)

    def _column(self, name: str, stream: ValueStream, timed: Stream, alignment: Alignment) -> NDArray[np.generic]:
        values = stream.values()
        rows = linear(values, timed, alignment) if timed.linear else values[alignment.picks[stream.ours]]
        return check_column(name, stream.ours, stream.feature, rows)

    def _camera(self, name: str, stream: PictureStream, alignment: Alignment) -> CameraStream:
        form, camera = stream.form, self.rig.cameras[stream.ours]
        assert form is not None  # `align` refuses a stream without messages
        numbers = np.asarray(stream.numbers, np.int64)
        picked = PickedMessages(
            files=self.files[name],
            kind=self.kind,
            topic=stream.topic.name,
            picks=numbers[alignment.picks[stream.ours]],
        )
        self._check_depth(stream.ours, camera, form.is_depth, form.encoding)
        is_jpeg = form.store == "jpeg" and not form.is_gray
        spec = CameraSpec(
            name=stream.ours,
            height=form.height,
            width=form.width,
            encoding="jpeg" if is_jpeg else "raw",
            channel_order="rgb"
            if form.is_depth
            else self._order(stream.ours, camera, form.channel_order, form.encoding),
            orientation=camera.orientation,
            depth_unit_m=camera.depth_unit_m,
        )
        if form.is_depth:
            return RecordedDepths(spec=spec, messages=picked, form=form)
        if stream.codec is not None:
            first_key = max(key for key in stream.keys if key <= int(picked.picks[0]))
            return RecordedVideo(spec=spec, messages=picked, codec=stream.codec, first_key=first_key)
        if is_jpeg:
            return RecordedJpegs(spec=spec, messages=picked)
        return RecordedArrays(spec=spec, messages=picked, form=form)

    def _order(self, ours: str, camera: Camera, stated: str | None, encoding: str) -> str:
        """The colour order: what the messages say, else what the rig says; the two may not differ."""
        asked = camera.jpeg_channel_order or camera.channel_order
        if stated is None and asked == "unknown":
            raise RigError(colour_question(self.rig.name, ours))
        if stated is not None and asked not in ("unknown", stated):
            raise RigError(
                f"rig '{self.rig.name}' says channel_order: {asked} for camera '{ours}', but its messages say "
                f"'{encoding}', which is {stated}. Write {stated}, or unknown to take what they say."
            )
        return stated or asked

    def _check_depth(self, ours: str, camera: Camera, is_depth: bool, encoding: str) -> None:
        if is_depth and camera.depth_unit_m is None:
            raise RigError(
                f"camera '{ours}' holds depth ('{encoding}'). Write depth_unit_m: under it (0.001 for millimetres, "
                f"1.0 for metres), or leave it out of rig '{self.rig.name}'."
            )
        if camera.depth_unit_m is not None and not is_depth:
            raise RigError(
                f"camera '{ours}' has depth_unit_m, but its messages hold colour ('{encoding}'). "
                f"Remove it in rig '{self.rig.name}'."
            )


def _topic(stream: AnyStream) -> str:
    return stream.topic.name if isinstance(stream, PictureStream) else stream.path.topic


def _aliases(name: str) -> tuple[str, ...]:
    """What a CSV may call an episode: its path, its file or folder, and that without the suffix."""
    path = PurePosixPath(name)
    return (name, path.name, path.stem)


def _notes(
    recording: Recording,
    streams: dict[str, ValueStream | PictureStream],
    stamp_words: dict[str, str],
    alignment: Alignment,
) -> list[str]:
    """Which stamps were taken, and everything that is in the recording but not in the rows."""
    notes = list(recording.notes)
    notes += [
        f"stamps: {word} of {', '.join(topic for topic, mine in stamp_words.items() if mine == word)}"
        for word in sorted(set(stamp_words.values()))
    ]
    if alignment.num_trimmed_start or alignment.num_trimmed_end:
        notes.append(
            f"trimmed {alignment.num_trimmed_start} rows at the start and {alignment.num_trimmed_end} at the end, "
            f"where a stream has no fresh value"
        )
    for ours, stream in streams.items():
        if isinstance(stream, PictureStream) and stream.keys and stream.keys[0]:
            notes.append(f"'{ours}': {stream.keys[0]} pictures before its first key picture can not be decoded")
    return notes
