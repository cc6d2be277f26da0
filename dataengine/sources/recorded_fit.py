"""Whether a rig fits a folder of recordings, and which of its optional parts the recordings have."""

from collections import Counter
from collections.abc import Sequence

from dataengine.sources.columns import num_dims
from dataengine.sources.message_fields import FieldPath, Node, decode_faults, decoder, field_names, no_topic, numbers
from dataengine.sources.optional_parts import without
from dataengine.sources.recordings import Recording, RecordingFiles, listing
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Feature, Rig, SourceKind

_NUM_PROBED = 20  # recordings looked into to see which optional parts this folder has


def check_fit(files: Sequence[RecordingFiles], kind: SourceKind, rig: Rig | None) -> Rig:
    """The rig without optional parts that most recordings lack.

    Raises RigError where there is no rig or it fits no recording, SourceError where none can be read or none holds
    what could be robot state.
    """
    misfit: RigError | SourceError | None = None
    broken: EpisodeError | None = None
    sets: Counter[frozenset[str]] = Counter()
    step = max(len(files) // _NUM_PROBED, 1)
    spread = files[::step]
    for number, each in enumerate([*spread, *files]):  # all of them only when none of the spread ones fits
        if number >= len(spread) and (sets or rig is None):
            break
        try:
            recording = each.open(kind)
            if not any(topic.may_be_state and topic.num_messages > 1 for topic in recording.topics.values()):
                misfit = misfit or no_state(each, recording)
                if rig is None:
                    continue
            if rig is None:
                raise RigError(
                    f"recordings state no rate of rows and not which topics are state and action ({each.name} has: "
                    f"{listing(recording.topics)}). Pass a rig: start from the draft of `dataengine inspect`."
                )
            fault = _misfit(recording, each.name, rig)
            if fault is None:
                sets[present_parts(recording, rig)] += 1
            misfit = misfit or (RigError(fault) if fault else None)
        except EpisodeError as error:
            broken = broken or error
        except SourceError as error:
            misfit = misfit or error
    if sets and rig is not None:
        present = sets.most_common(1)[0][0]
        return without(rig, features=rig.features.keys() - present, cameras=rig.cameras.keys() - present)
    if misfit is not None:
        raise misfit
    raise SourceError(f"none of the {len(files)} recordings can be read. The first: {broken}")


def no_state(files: RecordingFiles, recording: Recording) -> SourceError:
    """The refusal of a recording in which nothing could be what a robot measured or was told."""
    pictures = any(topic.picture_kind and topic.num_messages for topic in recording.topics.values())
    what = "pictures but no robot state" if pictures else "no robot state"
    return SourceError(
        f"{files.name} has {what}: {listing(recording.topics)}. Record the joint states or commands as well."
    )


def present_parts(recording: Recording, rig: Rig) -> frozenset[str]:
    """Our names of the features and cameras of which the recording has messages, and not only empty ones."""
    features = {
        ours
        for ours, feature in rig.features.items()
        if (path := _path(recording, feature)) is not None
        and recording.topics[path.topic].num_messages
        and not (feature.optional and _is_empty(recording, path))
    }
    cameras = {
        ours
        for ours, camera in rig.cameras.items()
        if camera.key in recording.topics and recording.topics[camera.key].num_messages
    }
    return frozenset(features | cameras)


def first_message(recording: Recording, topic: str) -> Node:
    """The first message of a topic; None where there is none. Raises EpisodeError for one that does not decode."""
    decode = decoder(recording.topics[topic])
    message = next(iter(recording.messages(frozenset([topic]))), None)
    try:
        return decode(message.data) if message is not None else None
    except decode_faults() as error:
        raise EpisodeError(f"the first message of {topic} does not decode ({error}). Drop the episode.") from None


def _path(recording: Recording, feature: Feature) -> FieldPath | None:
    return FieldPath.of(feature.key, recording.topics)


def _is_empty(recording: Recording, path: FieldPath) -> bool:
    found = numbers(path.value(first_message(recording, path.topic)))
    return found is None or not len(found)


def _misfit(recording: Recording, name: str, rig: Rig) -> str | None:
    """Why the rig cannot read this recording, in one sentence; None where it can."""
    where = f"in rig '{rig.name}'"
    for ours, feature in rig.features.items():
        path = _path(recording, feature)
        if path is None or not recording.topics[path.topic].num_messages:
            if feature.optional:
                continue
            lacking = (
                no_topic(feature.key, recording.topics) if path is None else f"{feature.key}, which has no message"
            )
            return f"'{ours}' reads {lacking} in {name}. Correct its key under features: {where}"
        fault = _feature_misfit(recording, path, ours, feature)
        if fault is not None:
            return f"{fault} in {name}. Correct it under features: {where}"
    for ours, camera in rig.cameras.items():
        topic = recording.topics.get(camera.key)
        if topic is None or not topic.num_messages:
            if camera.optional:
                continue
            has = [each.name for each in recording.topics.values() if each.picture_kind and each.num_messages]
            return (
                f"camera '{ours}' reads {camera.key}, of which {name} has no message (pictures: "
                f"{', '.join(has) or 'none'}). Correct its key under cameras: {where}"
            )
        if topic.picture_kind is None:
            reads = f"camera '{ours}' reads {camera.key}, which is {topic.type_name}."
            return f"{reads} Correct its key under cameras: {where}"
    return None


def _feature_misfit(recording: Recording, path: FieldPath, ours: str, feature: Feature) -> str | None:
    message = first_message(recording, path.topic)
    found = numbers(path.value(message))
    if found is None:
        return f"'{ours}' reads {feature.key}, but {path.topic} has {', '.join(field_names(message)) or 'no fields'}"
    expected = len(feature.joints) or num_dims(feature)
    if feature.joints and feature.names and len(feature.joints) != len(feature.names):
        return f"'{ours}' lists {len(feature.joints)} joints and {len(feature.names)} names"
    is_whole = feature.columns is None and not feature.joints
    if is_whole and expected is not None and len(found) and len(found) != expected:
        return f"'{ours}' has {len(found)} dimensions, but the rig names {expected},"
    return None
