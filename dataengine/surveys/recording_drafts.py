"""What only the rig of a recording needs: lines under single keys, and the clock as a question with its facts."""

from collections.abc import Mapping, Sequence

import yaml

from dataengine.inspected import InspectedTopic
from dataengine.sources.message_fields import decode_faults, decoder, stamp_ns
from dataengine.sources.recordings import Recording, Topic
from schemas.errors import SourceError

_SHOWN = 8
_SAME_CLOCK_S = 0.5  # transport takes milliseconds; more between two topics is two clocks


def with_lines(draft: str, lines: Mapping[str, Sequence[str]]) -> str:
    """The draft with more lines below the `key:` of some features and cameras."""
    rows: list[str] = []
    for row in draft.splitlines():
        rows.append(row)
        if row.startswith("    key: "):
            rows += lines.get(str(yaml.safe_load(row)["key"]), ())
    return "\n".join(rows) + "\n"


def clock_lines(topics: Sequence[InspectedTopic]) -> str:
    """The clock, with the rates that were measured."""
    rows = [f"#   {topic.name}: {topic.rate_hz:g} Hz" for topic in topics[:_SHOWN]]
    more = [f"#   and {len(topics) - _SHOWN} more topics"] if topics[_SHOWN:] else []
    lines = [
        "clock:",
        "  reference: null  # ? the feature or camera whose stamps are the rows; null: an even grid at rate_hz",
        "  stamp: header  # or log, where the clocks behind the header stamps differ",
        "  max_age_s: 0.1  # a row whose newest value of some stream is older is no row",
        "# measured in the first recording; the reference must run at rate_hz:",
        *rows,
        *more,
    ]
    return "\n".join(lines) + "\n"


def clock_notes(recording: Recording) -> list[str]:
    """Whether the header stamps come from clocks that differ: what was measured together would not meet."""
    behind_s: dict[str, float] = {}
    for topic in recording.topics.values():
        if topic.num_messages > 1 and (topic.picture_kind or topic.may_be_state):
            try:
                found = _behind_s(recording, topic)
            except SourceError:  # a type that is not read: the topic is left out, with its reason
                continue
            if found is not None:
                behind_s[topic.name] = found
    if not behind_s or max(behind_s.values()) - min(behind_s.values()) <= _SAME_CLOCK_S:
        return []
    most, least = max(behind_s, key=behind_s.__getitem__), min(behind_s, key=behind_s.__getitem__)
    return [
        f"header stamps come from clocks that differ: those of {most} are {behind_s[most]:.3f} s before they were "
        f"written, those of {least} {behind_s[least]:.3f} s; set clock.stamp: log"
    ]


def _behind_s(recording: Recording, topic: Topic) -> float | None:
    """Seconds from the first message's header stamp to its log stamp; None where it has none."""
    message = next(iter(recording.messages(frozenset([topic.name]))), None)
    if message is None:
        return None
    try:
        stamp = stamp_ns(decoder(topic)(message.data))
    except decode_faults():
        return None  # the topic is left out, with its reason
    return (message.log_ns - stamp) / 1e9 if stamp else None
