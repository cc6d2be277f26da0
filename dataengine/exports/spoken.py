"""A release laid on the frames of its episodes: which rows are true of which frames, and which fit none."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dataengine.annotation_set import AnnotationSet, ReleasedRow
from dataengine.episode_set import EpisodeRow, EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import ArtifactError
from schemas.records import InputRef, RejectedRow
from schemas.refs import Ref
from schemas.spans import frame_of_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One released row and the frames [first, stop) of its episode that lie in its span."""

    row: ReleasedRow
    first: int
    stop: int

    @property
    def moves(self) -> tuple[str, ...]:
        """The move primitives of a segment; those nobody could name are no words."""
        moves = json.loads(self.row.payload_json).get("moves") or ()
        return tuple(move for move in moves if move != "unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """All that was released about one episode."""

    episode: EpisodeRow
    traces: tuple[Said, ...]  # in order of time, never overlapping
    segments: tuple[Said, ...]  # in order of time, never overlapping
    left_out: tuple[RejectedRow, ...]  # rows that cover no frame

    @property
    def is_silent(self) -> bool:
        """True where no row covers a frame."""
        return not self.traces and not self.segments

    def of_field(self, field: str) -> tuple[Said, ...]:
        """The rows of `trace` or of `segment`."""
        return self.traces if field == "trace" else self.segments

    def words(self, field: str) -> list[str | None]:
        """The text of one field at each frame; None where nothing was released."""
        found: list[str | None] = [None] * self.episode.num_frames
        for said in self.of_field(field):
            found[said.first : said.stop] = [said.row.text] * (said.stop - said.first)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A released set and the very episodes that it is about."""

    episodes: EpisodeSet
    annotations: AnnotationSet

    @classmethod
    def open(cls, workspace: Workspace, ref: Ref) -> "Pair":
        """Open `annotations/ref` and its episodes. Raises RefError or ArtifactError where either is not there."""
        annotations = AnnotationSet.open(workspace, ref)
        stated = next((row for row in annotations.record.inputs if row.kind == "episodes"), None)
        if stated is None:
            raise ArtifactError(
                f"annotations '{ref}' do not name their episodes. Release them again with this program."
            )
        episodes = EpisodeSet.open(workspace, Ref.parse(stated.ref))
        if episodes.fingerprint != stated.fingerprint:
            raise ArtifactError(
                f"annotations '{ref}' were released about other episodes '{stated.ref}' (then "
                f"{stated.fingerprint[:12]}, here {episodes.fingerprint[:12]}). Release them again."
            )
        return cls(episodes=episodes, annotations=annotations)

    def inputs(self) -> list[InputRef]:
        """Both, pinned by content."""
        return [
            InputRef(kind="annotations", ref=str(self.annotations.ref), fingerprint=self.annotations.fingerprint),
            InputRef(kind="episodes", ref=str(self.episodes.ref), fingerprint=self.episodes.fingerprint),
        ]

    def each(self) -> Iterator[Spoken]:
        """Every episode in dataset order, silent ones too."""
        for episode_id in self.episodes.ids():
            yield self.of(episode_id)

    def of(self, episode_id: str) -> Spoken:
        """What was said about one episode, by frame."""
        episode, rate_hz = self.episodes.row(episode_id), self.episodes.rate_hz
        found: dict[str, list[Said]] = {"trace": [], "segment": []}
        left_out = []
        for row in self.annotations.rows(episode_id):
            first, stop = (
                min(max(frame_of_ns(stamp, rate_hz) - episode.start_frame, 0), episode.num_frames)
                for stamp in (row.start_ns, row.end_ns)
            )
            if first < stop:
                found[row.field].append(Said(row=row, first=first, stop=stop))
            else:
                reason = f"{row.field} [{row.start_ns}, {row.end_ns}) ns covers no frame at {rate_hz} Hz"
                left_out.append(RejectedRow(episode=episode_id, reason=reason))
        return Spoken(
            episode=episode,
            traces=tuple(found["trace"]),
            segments=tuple(found["segment"]),
            left_out=tuple(left_out),
        )


def unknown_fields(annotations: AnnotationSet) -> Sequence[RejectedRow]:
    """Rows of a field that no export knows: one line for each field, with how many there are."""
    known = ("trace", "segment")
    return [
        RejectedRow(episode="all", reason=f"{count} released rows of '{field}', which no export has a place for")
        for field, count in annotations.fields().items()
        if field not in known
    ]
