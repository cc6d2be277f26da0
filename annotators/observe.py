"""One episode, looked at by programs: what a worker does. It opens no database and asks no model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np
from pydantic import JsonValue

from annotators.evidence import Evidence, TableSeen, find_pick
from annotators.kinematics import commanded_events, gripper_events, segment
from annotators.look_at_things import look_around, look_at_things
from annotators.moves import Moves
from annotators.papers import Layout, Paper, Pixels, cards_box, enlarged, find_papers, lay_out
from annotators.perception import BoardReadings, Reader, board_crops, same_board
from annotators.placements import executed, placement_images
from annotators.sheets import jpeg, make_sheets
from annotators.things import ThingsView
from annotators.traces import UNREAD
from dataengine.episode_set import EpisodeRow, EpisodeSet
from schemas.annotations import Card, GripperEvent, SegmentList
from schemas.errors import EpisodeError
from schemas.scenes import PictureRef
from schemas.spans import frame_of_ns

_LOOKS = 6  # frames tried until a view is clear
_WHOLE_HEIGHT = 480  # a whole frame that is sent because nothing was found in it


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything about one episode that needs pixels or columns; small enough to send to the driver."""

    episode_id: str
    segments: SegmentList
    evidence: Evidence
    cards: tuple[Card, ...] = ()  # text is UNREAD where a model will be asked
    task: str = ""  # as it was noted: untrusted words
    crops: dict[str, bytes] = field(default_factory=dict, repr=False)  # PNG, or JPEG of sheets; see vlm.questions
    grasps: dict[str, int] = field(default_factory=dict)  # collage -> start_ns of its segment
    images: dict[str, JsonValue] = field(default_factory=dict)  # what a reviewer is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An episode that could not be looked at, and why."""

    episode_id: str
    reason: str


class Observer:
    """Looks at the episodes of one set. One per worker: it holds the OCR engine and open files."""

    def __init__(
        self,
        episodes: EpisodeSet,
        camera: str | None,
        *,
        wants_crops: bool,
        wants_sheets: bool = False,
        wants_scene: bool = False,
        things: ThingsView | None = None,
    ) -> None:
        self._episodes = episodes
        self._camera = camera
        self._wants_crops = wants_crops
        self._wants_sheets = wants_sheets
        self._wants_scene = wants_scene
        self._things = things
        self._reader = Reader() if camera and things is None and not (wants_sheets or wants_scene) else None

    def observe(self, episode_id: str) -> Observation | Failed:
        """Look at one episode; whatever is wrong with it becomes its own failure."""
        try:
            return self._observe(episode_id)
        except Exception as error:  # the isolation boundary: a bad episode is a row, the others go on
            return Failed(episode_id=episode_id, reason=f"{type(error).__name__}: {error}")

    def _observe(self, episode_id: str) -> Observation:
        columns, stamps_ns = self._episodes.columns(episode_id), self._episodes.stamps_ns(episode_id)
        if not len(stamps_ns):
            raise EpisodeError(f"'{episode_id}' has no rows.")
        rig = self._episodes.rig
        segments = segment(columns, rig, stamps_ns)
        events = gripper_events(columns, rig, stamps_ns)
        commanded = commanded_events(columns, rig, stamps_ns)
        evidence = Evidence(
            rate_hz=rig.rate_hz,
            events=events,
            commanded=commanded,
            stamps_ns=stamps_ns,
            end_effectors=tuple(end.name for end in rig.end_effectors),
            moves_over=Moves.of(columns, rig, stamps_ns),
            task=self._episodes.row(episode_id).task,
            executed=executed(segments),
            metadata=_noted(self._episodes.row(episode_id)),
        )
        if self._camera is not None and self._things is not None:
            return self._look_for_things(episode_id, self._camera, self._things, segments, evidence)
        if self._camera is not None and (self._wants_sheets or self._wants_scene):
            return self._leaf_through(episode_id, self._camera, segments, evidence)
        if self._camera is None or self._reader is None:
            return Observation(episode_id=episode_id, segments=segments, evidence=evidence)
        return self._look(episode_id, self._camera, self._reader, segments, evidence)

    def _leaf_through(self, episode_id: str, camera: str, segments: SegmentList, evidence: Evidence) -> Observation:
        """Pictures of the whole episode: contact sheets to name segments from, and its first and its last picture."""
        frame_at = lru_cache(maxsize=8)(lambda index: self._episodes.frame(episode_id, camera, index))
        row = self._episodes.row(episode_id)
        assert evidence.stamps_ns is not None
        crops: dict[str, bytes] = {}
        grasps: dict[str, int] = {}
        images: dict[str, JsonValue] = {}
        if self._wants_sheets:
            sheets = make_sheets(segments, evidence.stamps_ns, frame_at)
            crops, grasps = sheets.pictures, sheets.grasps
            images = {name: _image(camera, row.start_frame + at, None) for name, at in sheets.frames.items()}
        if self._wants_scene:
            closes = [event.stamp_ns for event in evidence.events or () if event.event == "close"]
            closed = frame_of_ns(closes[0], evidence.rate_hz) - row.start_frame if closes else None
            seen = look_around(
                frame_at=frame_at,
                camera=camera,
                num_frames=row.num_frames,
                closed=None if closed is None else min(max(closed, 0), row.num_frames - 1),
                first_frame=row.start_frame,
            )
            evidence = replace(evidence, scene=seen)
            crops = {**crops, "before": jpeg(frame_at(0)), "after": jpeg(frame_at(row.num_frames - 1))}
        return Observation(
            episode_id=episode_id,
            segments=segments,
            evidence=replace(evidence, frame_size=(frame_at(0).shape[1], frame_at(0).shape[0])),
            task=row.task,
            crops=crops,
            grasps=grasps,
            images=images,
        )

    def _look(
        self, episode_id: str, camera: str, reader: Reader, segments: SegmentList, evidence: Evidence
    ) -> Observation:
        frame_at = lru_cache(maxsize=16)(lambda index: self._episodes.frame(episode_id, camera, index))
        row = self._episodes.row(episode_id)
        num_frames = row.num_frames
        first_close, last_open = _grasp_span(evidence.events or (), row, evidence.rate_hz)
        start, layout = _clear_view(frame_at, np.linspace(0, first_close, _LOOKS).astype(int).tolist())
        later = np.linspace(num_frames - 1, last_open, _LOOKS).astype(int).tolist()
        # Both looks at the board are of before the first grasp: a trace says nothing that only the future shows.
        sooner = np.linspace(first_close, 0, _LOOKS).astype(int).tolist()
        again, board_again = _second_look(frame_at, sooner, start, layout)
        readings: BoardReadings | None = None
        crops: dict[str, bytes] = {}
        if self._wants_crops:
            crops = model_crops(frame_at(start), frame_at(again), layout, board_again)
        elif layout.board and board_again:
            readings = reader.board(*board_crops(frame_at(start), frame_at(again), layout.board, board_again))
        cards = tuple(self._card(reader, frame_at(start), layout, index) for index in range(len(layout.cards)))
        pick = find_pick(frame_at(start), layout, later, frame_at, reader.card)
        carried = _carried(evidence.events or (), row, evidence.rate_hz)
        grasp = find_pick(frame_at(start), layout, carried, frame_at, lambda frame, paper: None)
        before = row.start_frame  # pictures are named by their place in the recording, which a later trim leaves alone
        images = _images(camera, frame_at(start).shape, layout, before + start, board_again, before + again)
        for name, moment in (("grasp", grasp), ("after", pick)):
            if moment:
                images[name] = _image(camera, before + moment.frame, None)
        return Observation(
            episode_id=episode_id,
            segments=segments,
            evidence=replace(
                evidence,
                readings=readings,
                cards_read=tuple(card.text for card in cards),
                pick=pick,
                table=_table(camera, before + start, frame_at(start).shape, layout),
                grasp=grasp,
                board_frames=(start, again) if layout.board else None,
                frame_size=(frame_at(start).shape[1], frame_at(start).shape[0]),
            ),
            cards=cards,
            crops=crops,
            images=images,
        )

    def _look_for_things(
        self, episode_id: str, camera: str, things: ThingsView, segments: SegmentList, evidence: Evidence
    ) -> Observation:
        row = self._episodes.row(episode_id)
        closed, opened = _last_grasp(evidence.events or (), row, evidence.rate_hz)
        frame_at = lru_cache(maxsize=16)(lambda index: self._episodes.frame(episode_id, camera, index))
        seen = look_at_things(
            frame_at=frame_at,
            camera=camera,
            view=things,
            task=row.task,
            early=np.linspace(0, row.num_frames // 3 if closed is None else closed, _LOOKS).astype(int).tolist(),
            closed=closed,
            late=np.linspace(row.num_frames - 1, opened, _LOOKS).astype(int).tolist(),
            first_frame=row.start_frame,
        )
        crops: dict[str, bytes] = {}
        if self._wants_crops:  # whole and unscaled: boxes are pixels of these
            whole = {"before": seen.picture.frame, "after": seen.after_frame}
            crops = {name: png(frame_at(frame - row.start_frame)) for name, frame in whole.items()}
        return Observation(
            episode_id=episode_id,
            segments=segments,
            evidence=replace(evidence, placement=seen, frame_size=(seen.picture.width, seen.picture.height)),
            crops=crops,
            images=placement_images(row.task, seen),
        )

    def _card(self, reader: Reader, frame: Pixels, layout: Layout, index: int) -> Card:
        paper = layout.cards[index]
        text = None if self._wants_crops else reader.card(frame, paper)
        return Card(text=text or UNREAD, position=layout.position(index), box_xyxy=paper.box(frame.shape))


def _grasp_span(events: Sequence[GripperEvent], row: EpisodeRow, rate_hz: int) -> tuple[int, int]:
    """Frames of the first closing and of the last opening; a third and the end of the episode where unknown."""
    num_frames = row.num_frames
    closes = [event.stamp_ns for event in events if event.event == "close"]
    opens = [event.stamp_ns for event in events if event.event == "open"]
    first_close = frame_of_ns(closes[0], rate_hz) - row.start_frame if closes else num_frames // 3
    last_open = frame_of_ns(opens[-1], rate_hz) - row.start_frame if opens else num_frames - 1
    return min(first_close, num_frames - 1), min(last_open, num_frames - 1)


def _last_grasp(events: Sequence[GripperEvent], row: EpisodeRow, rate_hz: int) -> tuple[int | None, int]:
    """Frames of the last closing that an opening followed, and of that opening; None and the end where unknown."""
    last = row.num_frames - 1
    opens = [event for event in events if event.event == "open"]
    if not opens:
        return None, last
    closes = [event for event in events if event.event == "close" and event.stamp_ns < opens[-1].stamp_ns]
    frames = [frame_of_ns(event.stamp_ns, rate_hz) - row.start_frame for event in (*closes[-1:], opens[-1])]
    within = [min(max(frame, 0), last) for frame in frames]
    return (within[0] if closes else None), within[-1]


def _carried(events: Sequence[GripperEvent], row: EpisodeRow, rate_hz: int) -> list[int]:
    """Frames in which the card that was let go last is on its way, late ones first; none where nothing was let go."""
    opens = [event for event in events if event.event == "open"]
    if not opens:
        return []
    last = opens[-1]
    closes = [
        event.stamp_ns
        for event in events
        if (event.event, event.end_effector) == ("close", last.end_effector) and event.stamp_ns < last.stamp_ns
    ]
    if not closes:
        return []
    ends = (frame_of_ns(stamp_ns, rate_hz) - row.start_frame for stamp_ns in (last.stamp_ns, closes[-1]))
    stop, start = (min(max(frame, 0), row.num_frames - 1) for frame in ends)
    # Not sooner: half-way from grasp to release a slow hand may still hold the card over its place.
    return [stop - (stop - start) // 8, stop - (stop - start) // 4]


def _noted(row: EpisodeRow) -> dict[str, str]:
    """What was noted when the episode was collected."""
    return {name: str(words) for name, words in {"task": row.task, **row.metadata}.items() if words}


def _clear_view(frame_at: Callable[[int], Pixels], indices: Sequence[int]) -> tuple[int, Layout]:
    """The first frame that shows the board and three cards; otherwise the one that shows most."""
    best: tuple[int, Layout] | None = None
    for index in indices:
        layout = lay_out(find_papers(frame_at(index)))
        if layout.board is not None and len(layout.cards) == 3:
            return index, layout
        if best is None or (layout.board is not None, len(layout.cards)) > (
            best[1].board is not None,
            len(best[1].cards),
        ):
            best = (index, layout)
    if best is None:
        raise EpisodeError("there is no frame to look at.")
    return best


def _second_look(
    frame_at: Callable[[int], Pixels], indices: Sequence[int], start: int, layout: Layout
) -> tuple[int, Paper | None]:
    """Another frame that shows the same board unhidden; the same frame where no other does."""
    if layout.board is None:
        return start, None
    for index in indices:
        other = lay_out(find_papers(frame_at(index)))
        if index != start and same_board(other, layout.board):
            return index, other.board
    return start, layout.board


def model_crops(first: Pixels, second: Pixels, layout: Layout, board_again: Paper | None) -> dict[str, bytes]:
    """PNG bytes of what a model is shown; the whole frame for the cards where geometry found none.

    Without a board that was located nobody is asked about it: a whole frame shows the cards as well, and a reading
    that saw them is not blind.
    """
    box = (0, 0, first.shape[1], first.shape[0])
    height = _WHOLE_HEIGHT
    if layout.cards:
        box = cards_box(first.shape, layout.cards)
        height = max(192, box[3] - box[1])
    crops = {"cards": png(enlarged(first, box, height=height))}
    if layout.board is not None and board_again is not None:
        tight, loose = board_crops(first, second, layout.board, board_again)
        crops |= {"board_first": png(tight), "board_second": png(loose)}
    return crops


def png(picture: Pixels) -> bytes:
    """A picture as it is sent to a model."""
    written, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not written:
        raise EpisodeError(f"a crop of {picture.shape[1]}x{picture.shape[0]} can not be encoded.")
    return data.tobytes()


def _images(
    camera: str, shape: Sequence[int], layout: Layout, start: int, board_again: Paper | None, again: int
) -> dict[str, JsonValue]:
    """Crops a reviewer is shown: {"board": {"camera", "frame", "box_xyxy"}, "card_left": ..., ...}."""
    images: dict[str, JsonValue] = {}
    if layout.board is not None and board_again is not None:
        images["board"] = _image(camera, start, layout.board.box(shape, 0.1))
        images["board_again"] = _image(camera, again, board_again.box(shape, 0.15))
    for index, card in enumerate(layout.cards):
        place = layout.position(index)
        name = f"card_{place}" if place != "unknown" else f"card_{index + 1}"
        images[name] = _image(camera, start, card.box(shape, 0.2))
    return images


def _table(camera: str, frame: int, shape: Sequence[int], layout: Layout) -> TableSeen:
    return TableSeen(
        picture=PictureRef(camera=camera, frame=frame, width=shape[1], height=shape[0]),
        board=layout.board.box(shape) if layout.board else None,
        cards=tuple(card.box(shape) for card in layout.cards),
    )


def _image(camera: str, frame: int, box: tuple[int, int, int, int] | None) -> dict[str, JsonValue]:
    return {"camera": camera, "frame": frame, "box_xyxy": list(box) if box else None}
