"""Looking at one placement, or at any episode: which frames show it, what lay there, and what the hand closed on."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from annotators.open_scenes import OpenScene
from annotators.papers import Pixels
from annotators.placements import Asked, PlacementSeen, moved_nouns, read_instruction
from annotators.things import Thing, ThingsView, find_things
from schemas.scenes import PictureRef, SceneObject

_CHANGED = 42  # of 255, in one channel: noise and shadows change less, a hand or a thing more


def look_at_things(
    *,
    frame_at: Callable[[int], Pixels],
    camera: str,
    view: ThingsView,
    task: str,
    early: Sequence[int],
    closed: int | None,
    late: Sequence[int],
    first_frame: int,
) -> PlacementSeen:
    """What became of a placement.

    Args:
        early, late: frames from before the grasp and from after the release, best first.
        closed: the frame in which the hand began to close on what it carried; None where no hand did.
        first_frame: where the episode begins in its recording.
    """
    asked = read_instruction(task)
    start, things = _clearest(frame_at, early, view, asked)
    end, later = _clearest(frame_at, late, view, asked)
    before, after = _objects(things), _objects(later)
    shape = frame_at(start).shape
    return PlacementSeen(
        view=view,
        picture=PictureRef(camera=camera, frame=first_frame + start, width=shape[1], height=shape[0]),
        before=before,
        after=after,
        after_frame=first_frame + end,
        moved=moved_nouns(before, after),
        touched=None if closed is None else _changed(frame_at(start), frame_at(closed)),
    )


def look_around(
    *, frame_at: Callable[[int], Pixels], camera: str, num_frames: int, closed: int | None, first_frame: int
) -> OpenScene:
    """The first and the last picture of any episode; `closed` is the frame in which a hand first began to close."""
    start, end = frame_at(0), num_frames - 1
    return OpenScene(
        picture=PictureRef(camera=camera, frame=first_frame, width=start.shape[1], height=start.shape[0]),
        after_frame=first_frame + end,
        touched=None if closed is None else _changed(start, frame_at(closed)),
        ended=_changed(start, frame_at(end)),
    )


def _clearest(
    frame_at: Callable[[int], Pixels], indices: Sequence[int], view: ThingsView, asked: Asked | None
) -> tuple[int, tuple[Thing, ...]]:
    """The first frame that shows both things of the instruction; otherwise the one that shows most."""
    best: tuple[int, tuple[Thing, ...]] | None = None
    for index in indices:
        things = find_things(frame_at(index), view)
        nouns = [thing.noun for thing in things]
        if asked is not None and asked.target in nouns and asked.reference in nouns:
            return index, things
        if best is None or _worth(things, asked) > _worth(best[1], asked):
            best = index, things
    assert best is not None  # every episode has a row
    return best


def _worth(things: Sequence[Thing], asked: Asked | None) -> tuple[bool, int]:
    return asked is not None and asked.target in [thing.noun for thing in things], len(things)


def _objects(things: Sequence[Thing]) -> tuple[SceneObject, ...]:
    return tuple(SceneObject(noun=thing.noun, box_xyxy=thing.box) for thing in things)


def _changed(before: Pixels, now: Pixels) -> NDArray[np.bool_]:
    """Where two frames differ, at half their size."""
    difference = np.abs(now.astype(np.int16) - before.astype(np.int16)).max(axis=2) > _CHANGED
    height, width = (side - side % 2 for side in difference.shape)
    return np.asarray(difference[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) >= 0.5)
