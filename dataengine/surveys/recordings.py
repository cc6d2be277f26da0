"""Survey of recordings (MCAP, ROS 1 bags, rosbag2 sqlite): topics, rates, gaps, and a rig that proposes columns."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import yaml
from numpy.typing import NDArray

from dataengine.inspected import InspectedCamera, InspectedKey, InspectedTopic, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.message_fields import Node, child, decode_faults, decoder, field_names, numbers, numeric_paths
from dataengine.sources.message_pictures import PictureForm, picture_form
from dataengine.sources.recorded_fit import first_message
from dataengine.sources.recorded_streams import PictureStream
from dataengine.sources.recordings import Recording, RecordingFiles, Topic, find_recordings
from dataengine.surveys.recording_drafts import clock_lines, clock_notes, with_lines
from dataengine.surveys.words import broken_notes
from dataengine.sync import measured_hz
from schemas.errors import EpisodeError, SourceError
from schemas.rigs import Clock, SourceKind

_MAX_DIMS = 64  # of a proposed column; more is a scan or a map, no state
_MAX_WHOLE = 16  # numbers of a message taken as one column; of longer ones (covariances) each field is one
_COMMANDS = re.compile(r"command|cmd|action|leader|target|desired|goal|teleop|setpoint", re.IGNORECASE)
_GAP_STEPS = 3.0  # a step of more than this many median steps is a gap


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Value:
    """A value that could be a column: its key, the first message's numbers and what they are called."""

    key: str
    topic: Topic
    row: NDArray[np.generic]
    labels: tuple[str, ...]
    has_joints: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Camera:
    """A topic of pictures and the form of its first one."""

    topic: Topic
    form: PictureForm


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """All recordings of a folder: the first that can be read, and how many messages all of them hold."""

    first: Recording | None
    first_name: str
    counts: dict[str, int]
    broken: dict[str, str]


def survey(found: Found, folder: str) -> Inspection:
    """What the recordings hold; `folder` is where they lie below the one that was named."""
    files = find_recordings(found.root, found.kind)
    opened = _open_all(files, found.kind)
    if opened.first is None:
        return _nothing_readable(found.kind, folder, files, opened)
    topics = _topics(opened.first)
    values, cameras, notes = _contents(opened.first)
    lasting = {topic.name: topic for topic in topics}
    columns = [value for value in values if value.topic.num_messages > 1]
    names = _names(columns)
    main = columns[0].topic.name if columns else None
    notes += clock_notes(opened.first)
    if not columns:
        notes.append("no topic could be robot state: nothing to convert without joint states or commands")
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=len(files),
        num_rows=opened.counts.get(main, 0) if main else 0,
        rows=tuple(
            InspectedKey(key=value.key, shape=(value.topic.num_messages, len(value.row)), dtype=str(value.row.dtype))
            for value in values
        ),
        cameras=tuple(
            InspectedCamera(
                key=each.topic.name, height=each.form.height, width=each.form.width, encoding=each.form.encoding
            )
            for each in cameras
        ),
        rate_hz=None,
        timing=_timing(opened.first_name, topics),
        tasks=(),
        notes=(*opened.first.notes, *broken_notes(opened.broken), *notes),
        draft_rig_yaml=_draft(found.kind, columns, names, cameras, lasting),
        topics=topics,
    )


def _open_all(files: Sequence[RecordingFiles], kind: SourceKind) -> _Opened:
    first: Recording | None = None
    first_name = ""
    counts: dict[str, int] = {}
    broken: dict[str, str] = {}
    for each in files:
        try:
            recording = each.open(kind)
        except EpisodeError as error:
            broken[each.name] = str(error).removeprefix(f"{each.name}: ")
            continue
        for topic in recording.topics.values():
            counts[topic.name] = counts.get(topic.name, 0) + topic.num_messages
        if first is None:
            first, first_name = recording, each.name
    return _Opened(first=first, first_name=first_name, counts=counts, broken=broken)


def _nothing_readable(kind: SourceKind, folder: str, files: Sequence[RecordingFiles], opened: _Opened) -> Inspection:
    return Inspection(
        kind=kind,
        folder=folder,
        num_episodes=len(files),
        num_rows=0,
        rows=(),
        cameras=(),
        rate_hz=None,
        timing="no recording can be read",
        tasks=(),
        notes=tuple(broken_notes(opened.broken)),
        draft_rig_yaml=_draft(kind, [], [], [], {}),
    )


def _topics(recording: Recording) -> tuple[InspectedTopic, ...]:
    """Counts, rates and gaps of every topic by the stamps with which messages were written."""
    stamps: dict[str, list[int]] = {name: [] for name in recording.topics}
    for message in recording.messages(frozenset(recording.topics)):
        stamps[message.topic].append(message.log_ns)
    return tuple(_topic(topic, np.sort(np.asarray(stamps[name], np.int64))) for name, topic in recording.topics.items())


def _topic(topic: Topic, stamps: NDArray[np.int64]) -> InspectedTopic:
    steps = np.diff(stamps) / 1e9
    median = float(np.median(steps)) if len(steps) else 0.0
    gaps = steps[steps > _GAP_STEPS * median] if median else steps[:0]
    return InspectedTopic(
        name=topic.name,
        type_name=topic.type_name,
        encoding=topic.encoding,
        num_messages=len(stamps),
        rate_hz=round(measured_hz(stamps), 3),
        jitter_s=float(np.percentile(np.abs(steps - median), 95)) if len(steps) else 0.0,
        num_gaps=len(gaps),
        longest_gap_s=float(steps.max()) if len(steps) else 0.0,
    )


def _contents(recording: Recording) -> tuple[list[_Value], list[_Camera], list[str]]:
    """Numbers and pictures of each topic's first message, commands last, and what was passed over."""
    values: list[_Value] = []
    cameras: list[_Camera] = []
    notes: list[str] = []
    silent = [topic.name for topic in recording.topics.values() if not topic.num_messages]
    if silent:
        notes.append(f"{len(silent)} topics have no message: {', '.join(silent[:3])}{' ...' if silent[3:] else ''}")
    for topic in recording.topics.values():
        if not topic.num_messages or not (topic.picture_kind or topic.may_be_state):
            continue
        try:
            if topic.picture_kind:
                cameras.append(_Camera(topic=topic, form=_form(recording, topic)))
            else:
                values += _values(topic, first_message(recording, topic.name))
        except (EpisodeError, SourceError) as error:
            notes.append(f"{topic.name} is left out: {error}")
    values.sort(key=lambda value: (_is_command(value), value.topic.short_type not in ("JointState", "JointStates")))
    unsaid = [each.topic.name for each in cameras if each.form.channel_order is None and not each.form.is_depth]
    if unsaid:
        notes.append(f"the colour order is not stored: {', '.join(unsaid)}")
    return values, cameras, notes


def _form(recording: Recording, topic: Topic) -> PictureForm:
    """The form of the first picture; of video, of the first key picture."""
    if topic.picture_kind != "video":
        return picture_form(first_message(recording, topic.name), topic.picture_kind or "", f"{topic.name} message 0")
    decode, stream = decoder(topic), PictureStream(ours=topic.name, topic=topic, episode=topic.name)
    for number, message in enumerate(recording.messages(frozenset([topic.name]))):
        try:
            stream.add(decode(message.data), number)
        except decode_faults() as error:
            raise EpisodeError(f"message {number} does not decode ({error})") from None
        if stream.form is not None:
            return stream.form
    raise EpisodeError(f"its {topic.num_messages} messages hold no key picture")


def _values(topic: Topic, message: Node) -> list[_Value]:
    whole = numbers(message)
    found = [("", whole)] if whole is not None and 1 < len(whole) <= _MAX_WHOLE else list(numeric_paths(message))
    rows = []
    for path, row in found:
        if row is None or len(row) > _MAX_DIMS or path.endswith("covariance"):
            continue
        node = message
        for name in path.split(".")[1:]:
            node = child(node, name)
        joints = _joints(message, len(row))
        rows.append(
            _Value(
                key=f"{topic.name}{path}",
                topic=topic,
                row=row,
                labels=joints or _leaves(node),
                has_joints=bool(joints),
            )
        )
    return rows


def _joints(message: Node, num_dims: int) -> tuple[str, ...]:
    named = child(message, "name")
    if isinstance(named, str) or named is None or len(named) != num_dims:
        return ()
    labels = tuple(str(each) for each in named)
    return labels if len(set(labels)) == len(labels) and all(labels) else ()


def _leaves(node: Node, prefix: str = "") -> tuple[str, ...]:
    """Names of the numbers of a message; () for plain arrays."""
    rows: list[str] = []
    for name in field_names(node):
        row = numbers(child(node, name))
        if name not in ("header", "timestamp") and row is not None:
            inner = _leaves(child(node, name), f"{prefix}{name}_")
            rows += inner or (
                [f"{prefix}{name}"] if len(row) == 1 else [f"{prefix}{name}_{i}" for i in range(len(row))]
            )
    return tuple(rows)


def _is_command(value: _Value) -> bool:
    return bool(_COMMANDS.search(value.topic.name))


def _names(columns: Sequence[_Value]) -> list[str]:
    """Our names: the first measured value is proposed as the state, the first commanded one as the action."""
    names: list[str] = []
    for value in columns:
        usual = "action" if _is_command(value) else "observation.state"
        slug = re.sub(r"\W+", "_", value.key).strip("_")
        names.append(usual if usual not in names else f"observation.{slug}")
    return names


def _timing(name: str, topics: Sequence[InspectedTopic]) -> str:
    lasting = [topic for topic in topics if topic.num_messages > 1]
    if not lasting:
        return f"{name}: no topic has two messages"
    rates = ", ".join(f"{topic.name} {topic.rate_hz:g} Hz" for topic in lasting[:6])
    return f"{name}, by the time of writing: {rates}{' ...' if lasting[6:] else ''}"


def _draft(
    kind: SourceKind,
    columns: Sequence[_Value],
    names: Sequence[str],
    cameras: Sequence[_Camera],
    topics: dict[str, InspectedTopic],
) -> str:
    lines = _extra_lines(columns, cameras, topics)
    text = draft_rig(
        kind=kind,
        name="mylab",
        robot_type=None,
        rate_hz=None,
        columns=[
            DraftColumn(
                name=name,
                key=value.key,
                labels=value.labels,
                low=value.row.astype(np.float64),
                high=value.row.astype(np.float64),
            )
            for name, value in zip(names, columns, strict=True)
        ],
        cameras=[
            DraftCamera(
                name=re.sub(r"\W+", "_", each.topic.name).strip("_"),
                key=each.topic.name,
                channel_order="unknown" if each.form.is_depth else each.form.channel_order,
            )
            for each in cameras
        ],
        task_key=None,
        has_task=False,
    )
    return with_lines(text, lines) + clock_lines([topic for topic in topics.values() if topic.num_messages > 1])


def _extra_lines(
    columns: Sequence[_Value], cameras: Sequence[_Camera], topics: dict[str, InspectedTopic]
) -> dict[str, list[str]]:
    """What stands below the key of a slow stream, of named joints and of a depth camera."""
    lines: dict[str, list[str]] = {}
    default_s = Clock().max_age_s
    for topic, keys in [
        *((value.topic, value.key) for value in columns),
        *((each.topic, each.topic.name) for each in cameras),
    ]:
        longest = topics[topic.name].longest_gap_s
        if longest > default_s:
            lines.setdefault(keys, []).append(
                f"    max_age_s: {np.ceil(longest * 100) / 100:g}  # ? as seen; how old may its value be"
            )
    for value in columns:
        if value.has_joints:
            listed = yaml.safe_dump(list(value.labels), default_flow_style=True, width=10_000).strip()
            lines.setdefault(value.key, []).append(f"    joints: {listed}  # by name, whatever their order")
    for each in cameras:
        if each.form.is_depth:
            unit = "1.0" if each.form.encoding.startswith("32FC1") else "0.001"
            lines.setdefault(each.topic.name, []).append(f"    depth_unit_m: {unit}  # ? as ROS has it (REP 118)")
    return lines
