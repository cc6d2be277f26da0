"""RLDS datasets as TFDS writes them (Open X-Embodiment, BridgeData V2, DROID): one record per episode, in shards.

Keys of a rig are those of a step ("observation/image_0", "action") or of the episode ("episode_metadata/file_path").
Every split is read. An episode's id hashes its record, so that a copy in a second split has the same id and is
rejected by name instead of being counted twice. No rate and no units are stored: the rig states them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from dataengine.sources.content import episode_id, files_stamp, folder_fingerprint, natural_key
from dataengine.sources.hdf5_cameras import colour_question
from dataengine.sources.joined_columns import joined_columns, keys_of, num_rows_lost
from dataengine.sources.metadata import MetadataTable, csv_files
from dataengine.sources.optional_parts import without
from dataengine.sources.rlds_cameras import camera_stream
from dataengine.sources.tfds_features import STEPS, TfdsFeature, TfdsInfo, column_of, texts_of
from dataengine.sources.tfrecords import MIN_RECORD_BYTES, ShardIndex, Values, index_shard, parse_example, read_record
from schemas.episodes import CameraStream, Episode
from schemas.errors import EpisodeError, RigError, SourceError
from schemas.rigs import Camera, Rig, SourceKind

_SHARD = re.compile(r"(?P<stem>.+)\.tfrecord(?:-(?P<number>\d+)-of-(?P<total>\d+))?")
_NUM_SHARDS = 99_999  # the five digits of a file name
_NUM_RECORDS = 1_000_000  # of one shard, which TFDS keeps near 1 GB
_LABEL_DIMS = 64  # above it a tensor is an embedding, not something about the robot
_MARKS = ("is_first", "is_last", "is_terminal", "discount")  # of the format: where an episode begins and ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of a split: its records, and how many dataset_info.json says there are."""

    file: str
    split: str
    number: int
    index: ShardIndex
    declared: int | None

    def names(self) -> list[str]:
        """Every record that is there or should be: one that is lost becomes a rejected row, not a silence."""
        found = len(self.index.records) + (self.index.fault is not None)
        return [f"{self.split}-{self.number:05d}/{place:06d}" for place in range(max(found, self.declared or 0))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlds:
    """One version of a TFDS dataset; where each record begins is known from opening it."""

    root: Path
    rig: Rig
    table: MetadataTable
    info: TfdsInfo
    shards: dict[str, Shard]  # "train-00000" -> shard
    kind: SourceKind = "rlds"

    @classmethod
    def open(cls, root: Path, rig: Rig) -> "Rlds":
        """Read the metadata, find every record, and check the rig against features.json."""
        info = TfdsInfo.read(root)
        rig = _without_absent(rig, info)
        _check_rig(rig, info)
        shards = {f"{shard.split}-{shard.number:05d}": shard for shard in find_shards(root, info)}
        aliases = {name: (name,) for shard in shards.values() for name in shard.names()}
        return cls(root=root, rig=rig, table=MetadataTable.of(rig, root, aliases), info=info, shards=shards)

    def names(self) -> list[str]:
        """`train-00000/000000` and so on: split, shard, record."""
        return [name for shard in self.shards.values() for name in shard.names()]

    def num_bytes(self, name: str) -> int:
        """The length of an episode's record; 0 for one that is not there."""
        key, _, place = name.rpartition("/")
        records = self.shards[key].index.records
        return records[int(place)].num_bytes if int(place) < len(records) else 0

    def stamps(self) -> dict[str, str]:
        """Size and date of each record's shard and of the metadata, and its row of the CSV."""
        words = self.root / "features.json"
        return {
            name: files_stamp([self.root / shard.file, words], self.table.row(name))
            for shard in self.shards.values()
            for name in shard.names()
        }

    def fingerprint(self) -> str:
        """Identity of metadata, its CSV and records: the checksums stored beside them stand for every byte."""
        records = [f"{shard.file} {each}" for shard in self.shards.values() for each in shard.index.records]
        files = [self.root / shard.file for shard in self.shards.values()]
        return folder_fingerprint(
            self.root,
            whole=[*self.root.glob("*.json"), *csv_files(self.rig, self.root)],
            pixels=[path for path in files if path.is_file()],
            low_dim=records,
        )

    def not_taken(self) -> tuple[str, ...]:
        """What features.json declares for each step and the rig does not name."""
        columns = [key for feature in self.rig.features.values() for key in keys_of(feature)]
        cameras = [camera.key for camera in self.rig.cameras.values()]
        taken = {*columns, *cameras, self.rig.task_key, *_MARKS}
        words = {"image": " (camera)", "text": " (text)"}
        return tuple(f"{key}{words.get(each.kind, '')}" for key, each in self.info.steps.items() if key not in taken)

    def read(self, name: str) -> Episode:
        """One episode; its record is held in memory, nothing else. Raises EpisodeError for a damaged or odd one."""
        data = self._record(name)
        values = parse_example(data, name)
        steps = {key.removeprefix(f"{STEPS}/"): value for key, value in values.items() if key.startswith(f"{STEPS}/")}
        wanted = {key for feature in self.rig.features.values() for key in keys_of(feature)}
        arrays = {key: column_of(name, key, self.info.steps[key], _present(name, key, steps)) for key in wanted}
        columns = joined_columns(name, self.rig, arrays)
        kept = len(next(iter(columns.values()))) if columns else 0
        _check_ends(name, steps, kept + num_rows_lost(self.rig))
        cameras = {ours: self._camera(name, ours, camera, steps, kept) for ours, camera in self.rig.cameras.items()}
        tasks = self._tasks(values, steps)[: kept + num_rows_lost(self.rig)]
        return Episode(
            meta=self.table.meta(
                episode_id=episode_id(self.info.name, xxhash.xxh3_128(data).hexdigest()),
                raw_name=name,
                raw_task=next((task for task in tasks if task), None),
                raw_words=self._words(name, values),
            ),
            rate_hz=self.rig.rate_hz,
            columns=columns,
            cameras=cameras,
            imported={"task": tuple(tasks[:kept])} if len(set(tasks)) > 1 else {},
        )

    def _record(self, name: str) -> bytes:
        key, _, place = name.rpartition("/")
        shard = self.shards[key]
        records = shard.index.records
        if int(place) < len(records):
            return read_record(self.root / shard.file, records[int(place)], name)
        what = shard.index.fault or f"holds {len(records)} records, dataset_info.json says {shard.declared}"
        raise EpisodeError(f"{name}: {shard.file} {what}. Copy that file again.")

    def _camera(self, name: str, ours: str, camera: Camera, steps: Mapping[str, Values], kept: int) -> CameraStream:
        rows = _present(name, camera.key, steps)
        if not isinstance(rows, list):
            raise EpisodeError(f"{name}: {camera.key} holds numbers, no pictures. Correct cameras: in the rig.")
        if len(rows) != kept + num_rows_lost(self.rig):
            raise EpisodeError(
                f"{name}: camera '{ours}' has {len(rows)} pictures for {kept + num_rows_lost(self.rig)} steps. "
                f"Export the dataset again or drop the episode."
            )
        return camera_stream(name, ours, camera, self.info.steps[camera.key], rows[:kept])

    def _tasks(self, values: Mapping[str, Values], steps: Mapping[str, Values]) -> list[str]:
        """The instruction of each step, or of the episode."""
        key = self.rig.task_key
        if key is None:
            return []
        return texts_of(steps[key]) if key in steps else texts_of(values.get(key, []))

    def _words(self, name: str, values: Mapping[str, Values]) -> dict[str, str]:
        """What the record says for the words of metadata.keys; "split" is a key too."""
        known = {"split": name.rpartition("/")[0].rpartition("-")[0]}
        known |= {key: _word(value) for key, value in values.items() if key in self.info.episode and len(value)}
        return {word: known[key] for word, key in self.rig.metadata.keys.items() if key in known}


def _word(value: Values) -> str:
    return texts_of(value)[0] if isinstance(value, list) else str(value[0])


def _present(name: str, key: str, steps: Mapping[str, Values]) -> Values:
    if key not in steps:
        raise EpisodeError(f"{name}: no {key} in the record. Drop the episode or take it out of the rig.")
    return steps[key]


def _check_ends(name: str, steps: Mapping[str, Values], num_rows: int) -> None:
    """One record is one episode: it begins once, and ends at its last step."""
    for key, place in (("is_first", 0), ("is_last", num_rows - 1)):
        flags = steps.get(key)
        if flags is None or isinstance(flags, list):
            continue
        inside = np.flatnonzero(flags).tolist()
        if len(flags) != num_rows or any(row != place for row in inside):
            raise EpisodeError(
                f"{name}: {key} is true at step {inside[:3]} of {num_rows}, so this is no single whole episode. "
                f"Export the dataset again or drop the episode."
            )


def find_shards(root: Path, info: TfdsInfo) -> list[Shard]:
    """Every shard of every split, also those of a complete set that are not there. Raises SourceError for none."""
    found: dict[tuple[str, int], str] = {}
    totals: dict[str, int] = {split: len(lengths) for split, lengths in info.declared.items()}
    patterns: dict[str, str] = {}
    for path in sorted(root.glob("*.tfrecord*"), key=lambda path: natural_key(path.name)):
        match = _SHARD.fullmatch(path.name)
        if match is None or path.name.startswith("."):
            continue
        split = _split_of(match["stem"], info)
        found[split, int(match["number"] or 0)] = path.name
        if match["total"]:
            totals[split] = max(totals.get(split, 0), int(match["total"]))
            patterns[split] = f"{match['stem']}.tfrecord-%05d-of-{match['total']}"
    if not found:
        raise SourceError(f"{root.name} holds no *.tfrecord file. Check the path.")
    for split, total in totals.items():
        if total > _NUM_SHARDS:
            raise SourceError(
                f"{root.name} says that split {split} has {total} shards. Correct the names of its files."
            )
    shards: list[Shard] = []
    for split in sorted({split for split, _ in found} | set(totals), key=_split_order):
        numbers = {number for each, number in found if each == split} | set(range(totals.get(split, 0)))
        for number in sorted(numbers):
            lengths = info.declared.get(split, ())
            default = patterns.get(split, f"{info.name}-{split}.tfrecord-%05d-of-{totals.get(split, 1):05d}")
            file = found.get((split, number)) or default % number
            declared = lengths[number] if number < len(lengths) else None
            shard = Shard(file=file, split=split, number=number, index=index_shard(root / file), declared=declared)
            _check_declared(root, shard)
            shards.append(shard)
    return shards


def _check_declared(root: Path, shard: Shard) -> None:
    """Each declared record becomes a name, so a wrong number must not become a billion of them."""
    path, most = root / shard.file, _NUM_RECORDS
    if shard.index.fault is None:  # whole: a record that is lost takes no room, but no file of 1 kB lost a million
        most = min(most, path.stat().st_size // MIN_RECORD_BYTES)
    if (shard.declared or 0) > max(most, len(shard.index.records)):
        raise SourceError(
            f"dataset_info.json says {shard.declared} records in {shard.file}, which holds {len(shard.index.records)} "
            f"and has room for {most} at most. Copy dataset_info.json again."
        )


def _split_of(stem: str, info: TfdsInfo) -> str:
    """The split a file name tells; the dataset's name before it may have been changed."""
    declared = next((split for split in info.declared if stem == split or stem.endswith(f"-{split}")), None)
    return declared or stem.removeprefix(f"{info.name}-")


def _split_order(split: str) -> tuple[int, str]:
    """Training data first: where an episode occurs twice, its first place is kept."""
    return (0 if split == "train" else 1, split)


def low_dim_steps(info: TfdsInfo) -> list[str]:
    """Tensors of a step that say something about the robot: no flags of the format, no embeddings."""
    flags = ("is_first", "is_last", "is_terminal", "discount", "reward")
    return [
        key
        for key, feature in info.steps.items()
        if feature.kind == "tensor" and key not in flags and (feature.num_values or _LABEL_DIMS + 1) <= _LABEL_DIMS
    ]


def _without_absent(rig: Rig, info: TfdsInfo) -> Rig:
    """The rig without the optional features and cameras that features.json does not have."""
    return without(
        rig,
        features={
            name
            for name, feature in rig.features.items()
            if feature.optional and any(key not in info.steps for key in keys_of(feature))
        },
        cameras={name for name, camera in rig.cameras.items() if camera.optional and camera.key not in info.steps},
    )


def _check_rig(rig: Rig, info: TfdsInfo) -> None:
    where = f"in rig '{rig.name}'"
    has = ", ".join(key for key, each in info.steps.items() if each.kind == "tensor")
    for ours, feature in rig.features.items():
        parts = [_tensor(ours, key, info.steps, f"(has: {has}). Correct its key {where}") for key in keys_of(feature)]
        dims = sum(part.num_values or 0 for part in parts)
        if feature.columns is None and feature.names and len(feature.names) != dims:
            raise RigError(
                f"'{ours}' has {dims} dimensions in features.json, but the rig names {len(feature.names)}. "
                f"Correct names: under features: {where}"
            )
    images = [key for key, each in info.steps.items() if each.kind == "image"]
    for ours, camera in rig.cameras.items():
        if camera.key not in images:
            raise RigError(
                f"camera '{ours}' reads {camera.key}, not in features.json (has: {', '.join(images) or 'none'}). "
                f"Correct its key under cameras: {where}"
            )
        if camera.channel_order == "unknown" and camera.depth_unit_m is None:
            raise RigError(colour_question(rig.name, ours))
    texts = [key for key, each in {**info.steps, **info.episode}.items() if each.kind == "text"]
    if rig.task_key is not None and rig.task_key not in texts:
        raise RigError(f"task_key '{rig.task_key}' is no text in features.json. Correct task_key {where}")


def _tensor(ours: str, key: str, steps: Mapping[str, TfdsFeature], hint: str) -> TfdsFeature:
    feature = steps.get(key)
    if feature is None or feature.kind != "tensor":
        raise RigError(f"'{ours}' reads {key}, which is no tensor in features.json {hint}")
    if feature.num_values is None:
        raise RigError(f"'{ours}' reads {key}, whose length differs from step to step, {hint}")
    return feature
