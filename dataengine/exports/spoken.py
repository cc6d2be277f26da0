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
from schemas.scenes import QuestionAnswer, SceneNotes
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

    @property
    def notes(self) -> SceneNotes:
        """What a row of `scene` holds."""
        return SceneNotes.model_validate_json(self.row.payload_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Questions about one picture of an episode, and what was released as their answers."""

    row: ReleasedRow
    frame: int  # of the episode as it is
    camera: str
    pairs: tuple[QuestionAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """All that was released about one episode."""

    episode: EpisodeRow
    traces: tuple[Said, ...]  # in order of time, never overlapping
    segments: tuple[Said, ...]  # in order of time, never overlapping
    scenes: tuple[Said, ...] = ()  # in order of time, never overlapping
    left_out: tuple[RejectedRow, ...]  # rows that cover no frame

    @property
    def is_silent(self) -> bool:
        """True where no row covers a frame."""
        return not self.traces and not self.segments and not self.scenes

    def of_field(self, field: str) -> tuple[Said, ...]:
        """The rows of `trace`, `segment` or `scene`."""
        return {"trace": self.traces, "segment": self.segments, "scene": self.scenes}[field]

    def retellings(self, said: Said) -> tuple[str, ...]:
        """Other words for a trace that were released with it; none for one that was corrected since they were found."""
        if said.row.field != "trace":
            return ()
        found = [one.notes.retold for one in self.scenes]
        return tuple(words for one in found if one and one.trace == said.row.text for words in one.words)

    def plans(self) -> list[str | None]:
        """The plan at each frame; None where there is none."""
        found: list[str | None] = [None] * self.episode.num_frames
        for said in self.scenes:
            found[said.first : said.stop] = [said.notes.plan_text() or None] * (said.stop - said.first)
        return found

    def questions(self) -> tuple[Questions, ...]:
        """Questions about pictures; those whose picture a trim cut off are not in it, see `cut_off`."""
        return tuple(one for one in self._asked() if 0 <= one.frame < self.episode.num_frames)

    def cut_off(self) -> tuple[RejectedRow, ...]:
        """Questions about pictures that are no longer there."""
        gone = [one for one in self._asked() if not 0 <= one.frame < self.episode.num_frames]
        reason = "{} questions about a picture that was trimmed off"
        return tuple(RejectedRow(episode=self.episode.episode_id, reason=reason.format(len(one.pairs))) for one in gone)

    def _asked(self) -> Iterator[Questions]:
        for said in self.scenes:
            notes = said.notes
            if notes.picture is not None and notes.questions:
                frame = notes.picture.frame - self.episode.start_frame
                yield Questions(row=said.row, frame=frame, camera=notes.picture.camera, pairs=notes.questions)

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
        found: dict[str, list[Said]] = {"trace": [], "segment": [], "scene": []}
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
            scenes=tuple(found["scene"]),
            left_out=tuple(left_out),
        )


def unknown_fields(
    annotations: AnnotationSet, known: Sequence[str] = ("trace", "segment", "scene")
) -> Sequence[RejectedRow]:
    """Rows of a field that an export does not know: one line for each field, with how many there are."""
    return [
        RejectedRow(episode="all", reason=f"{count} released rows of '{field}', which this export has no place for")
        for field, count in annotations.fields().items()
        if field not in known
    ]
