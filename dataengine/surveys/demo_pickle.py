"""Survey of pickled demonstrations."""

from dataengine.inspected import InspectedKey, Inspection
from dataengine.rig_drafts import draft_rig
from dataengine.sources.demo_pickle import Demo, arrays_of, load_demos, pickle_names
from dataengine.sources.detection import Found
from dataengine.surveys.words import draft_column

_OUR_NAMES = {"actions": "action", "observations": "observation.state", "rewards": "next.reward"}


def survey(found: Found, folder: str) -> Inspection:
    """What the pickles of a folder hold; `folder` is where they lie below the one that was named."""
    names = pickle_names(found.root)
    first = load_demos(found.root / names[0], names[0])[0]
    num_episodes = num_rows = 0
    for name in names:
        for demo in load_demos(found.root / name, name):
            num_episodes += 1
            num_rows += _num_rows(demo)
    rows = dict(arrays_of(first))
    length = _num_rows(first)
    columns = [
        draft_column(key, values, name=_OUR_NAMES.get(key))
        for key, values in rows.items()
        if values.ndim in (1, 2) and len(values) == length
    ]
    notes = ["no rate, no instruction, no names and no pictures are stored", "read as plain data: nothing of it is run"]
    kept = sorted({key.split("/", 1)[0] for key, values in rows.items() if not values.ndim or len(values) != length})
    if kept:
        notes.append(f"{', '.join(kept)} is no column; it is kept as an imported text where it is init_state_dict")
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=num_episodes,
        num_rows=num_rows,
        rows=tuple(InspectedKey(key=key, shape=values.shape, dtype=str(values.dtype)) for key, values in rows.items()),
        cameras=(),
        rate_hz=None,
        timing="no stamps stored",
        tasks=(),
        notes=tuple(notes),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=None,
            rate_hz=None,
            columns=columns,
            cameras=[],
            task_key=None,
            has_task=False,
        ),
    )


def _num_rows(demo: Demo) -> int:
    """Rows of the actions, else of the observations, else of the longest array beside them."""
    beside = {key: len(values) for key, values in arrays_of(demo) if values.ndim and "/" not in key}
    return beside.get("actions") or beside.get("observations") or max(beside.values(), default=0)
