"""Survey of RLDS datasets."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.detection import Found
from dataengine.sources.rlds import Shard, find_shards
from dataengine.sources.rlds_cameras import encoding_of, picture_size
from dataengine.sources.tfds_features import STEPS, TfdsInfo, column_of, texts_of
from dataengine.sources.tfrecords import Values, parse_example, read_record
from dataengine.surveys.words import broken_notes, draft_column
from schemas.errors import EpisodeError

_LOOKED_AT = 20  # records of each shard set read for tasks and row counts
_FLAGS = ("is_first", "is_last", "is_terminal", "discount", "reward")
_MOST_DIMS = 64  # above it a tensor is an embedding, not something about the robot


def survey(found: Found, folder: str) -> Inspection:
    """What features.json and the first records say; `folder` is where they lie below the one that was named."""
    info = TfdsInfo.read(found.root)
    shards = find_shards(found.root, info)
    records, broken = _first_records(found, shards)
    steps = records[0] if records else {}
    columns = _columns(info, steps)
    texts = [key for key, each in info.steps.items() if each.kind == "text"]
    tasks = {text for record in records for key in texts[:1] for text in texts_of(record.get(key, [])) if text}
    num_records = sum(len(shard.index.records) for shard in shards)
    read_rows = [_num_rows(record) for record in records]
    return Inspection(
        kind=found.kind,
        folder=folder,
        num_episodes=sum(len(shard.names()) for shard in shards),
        num_rows=round(float(np.mean(read_rows)) * num_records) if read_rows else 0,
        rows=tuple(_keys(info, steps)),
        cameras=tuple(_cameras(info, steps)),
        rate_hz=None,
        timing="no stamps stored",
        tasks=tuple(sorted(tasks)),
        notes=(*_notes(info, shards, records, texts), *broken_notes(broken)),
        draft_rig_yaml=draft_rig(
            kind=found.kind,
            name="mylab",
            robot_type=None,
            rate_hz=None,
            columns=columns,
            cameras=[
                DraftCamera(name=key.replace("/", "_").removeprefix("observation_"), key=key, channel_order=None)
                for key, each in info.steps.items()
                if each.kind == "image" and each.shape[2:] in ((), (3,), (None,))
            ],
            task_key=texts[0] if texts else None,
            has_task=bool(tasks),
        ),
    )


def _first_records(found: Found, shards: Sequence[Shard]) -> tuple[list[dict[str, Values]], dict[str, str]]:
    """Steps of the first readable records, and what was met on the way."""
    records: list[dict[str, Values]] = []
    broken: dict[str, str] = {}
    for shard in shards:
        for name, record in zip(shard.names(), shard.index.records, strict=False):
            if len(records) == _LOOKED_AT:
                return records, broken
            try:
                values = parse_example(read_record(found.root / shard.file, record, name), name)
            except EpisodeError as error:
                broken[name] = str(error).removeprefix(f"{name}: ")
                continue
            prefix = f"{STEPS}/"
            records.append({key.removeprefix(prefix): each for key, each in values.items() if key.startswith(prefix)})
    return records, broken


def _num_rows(steps: Mapping[str, Values]) -> int:
    flags = steps.get("is_first", steps.get("is_last"))
    return (
        len(flags)
        if flags is not None
        else max((len(each) for each in steps.values() if isinstance(each, list)), default=0)
    )


def _columns(info: TfdsInfo, steps: Mapping[str, Values]) -> list[DraftColumn]:
    """Tensors that say something about the robot: no flags of the format, no embeddings."""
    return [
        draft_column(
            key,
            column_of("the first record", key, each, steps[key]),
            name=key if key == "action" else f"observation.{key.removeprefix('observation/').replace('/', '_')}",
        )
        for key, each in info.steps.items()
        if each.kind == "tensor" and key in steps and key not in _FLAGS and 0 < (each.num_values or 0) <= _MOST_DIMS
    ]


def _keys(info: TfdsInfo, steps: Mapping[str, Values]) -> list[InspectedKey]:
    num_rows = _num_rows(steps)
    rows = [
        InspectedKey(
            key=key,
            shape=(num_rows, *(size or -1 for size in each.shape)),
            dtype=each.dtype or each.kind,
        )
        for key, each in info.steps.items()
    ]
    return rows + [
        InspectedKey(key=key, shape=tuple(size or -1 for size in each.shape), dtype=each.dtype or each.kind)
        for key, each in info.episode.items()
    ]


def _cameras(info: TfdsInfo, steps: Mapping[str, Values]) -> list[InspectedCamera]:
    cameras = []
    for key, each in info.steps.items():
        pictures = steps.get(key)
        if each.kind != "image" or not isinstance(pictures, list) or not pictures:
            continue
        height, width = picture_size(pictures[0])
        encoding = encoding_of(pictures[0]) or "unknown: neither JPEG nor PNG"
        cameras.append(InspectedCamera(key=key, height=height, width=width, encoding=encoding))
    return cameras


def _notes(
    info: TfdsInfo, shards: Sequence[Shard], records: Sequence[Mapping[str, Values]], texts: Sequence[str]
) -> list[str]:
    notes = ["no rate, no units and no dimension names are stored"]
    splits = Counter[str]()
    for shard in shards:
        splits[shard.split] += len(shard.index.records)
    notes.append("splits: " + ", ".join(f"{split} {count}" for split, count in splits.items()))
    same = Counter((each.num_bytes, each.crc) for shard in shards for each in shard.index.records)
    copies = sum(same.values()) - len(same)
    if copies:
        notes.append(f"{copies} of {sum(same.values())} records are copies of others: `convert` rejects the copies")
    notes += [f"{shard.file} {shard.index.fault}" for shard in shards if shard.index.fault]
    notes += [
        f"{shard.file} holds {len(shard.index.records)} records, dataset_info.json says {shard.declared}"
        for shard in shards
        if shard.declared not in (None, len(shard.index.records)) and not shard.index.fault
    ]
    dummy = sum(_ends_in_zeros(record) for record in records)
    if dummy:
        notes.append(f"{dummy} of {len(records)} episodes end with an action of zeros: a terminal step, kept as it is")
    wide = [key for key, each in info.steps.items() if (each.num_values or 0) > _MOST_DIMS and each.kind == "tensor"]
    notes += [f"{key} has more than {_MOST_DIMS} numbers a step and is not in the draft" for key in wide]
    narrow = [key for key, each in info.steps.items() if each.dtype == "float64" and each.encoding == "none"]
    notes += [f"{key} is declared float64, but TFRecord holds float32" for key in narrow]
    notes += [f"{key} is of a kind that is not read" for key, each in info.steps.items() if each.kind == "other"]
    if len(texts) > 1:
        notes.append(f"instructions are in {', '.join(texts)}; the draft takes the first")
    return notes


def _ends_in_zeros(steps: Mapping[str, Values]) -> bool:
    action = steps.get("action")
    if action is None or isinstance(action, list) or not _num_rows(steps):
        return False
    rows = action.reshape(_num_rows(steps), -1) if len(action) % _num_rows(steps) == 0 else action.reshape(-1, 1)
    return bool(not rows[-1].any() and rows.any())
