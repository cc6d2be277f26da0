"""DexVLA, TinyVLA and ChatVLA: one HDF5 file per episode, with `substep_reasonings` of one text per row.

Layout as `dataengine.sources.aloha_hdf5` describes it and DexVLA's loader reads it (data_utils/utils.py). Beside the
files: `substep_reasonings.json`, {task: {file: [text of each run of rows]}}, of which `/substeps` is the index; and
`rig.yaml` with `metadata.csv`, with which `dataengine convert` reads the folder back bit for bit.
"""

import csv
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from dataengine.exports.folder import FolderDraft, begin_folder
from dataengine.exports.frame_pictures import FramePictures, encoded_note
from dataengine.exports.report import ExportReport, Field
from dataengine.exports.spoken import Pair, Spoken, unknown_fields
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.records import RejectedRow
from schemas.refs import Ref
from schemas.rigs import Rig

_KEYS = {
    "observation.state": "observations/qpos",
    "action": "action",
    "observation.velocity": "observations/qvel",
    "observation.effort": "observations/effort",
    "action.base": "base_action",
}
_VELOCITY = _KEYS["observation.velocity"]
_TEXT = h5py.string_dtype("utf-8")
_METADATA = ("operator", "session", "station", "scene", "outcome", "licence")


def export_dexvla(
    *,
    annotations: Ref,
    out: Path,
    workspace: Workspace,
    reasoning: Field = "trace",
    on_progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write every episode that has released rows of the field `reasoning` into the folder `out`.

    Raises RefError or ArtifactError where the release or its episodes are missing or do not fit, UsageError where there
    is nothing to say, a column that DexVLA needs is absent, or `out` holds something else.
    """
    pair = Pair.open(workspace, annotations)
    ids = pair.episodes.ids()
    options = {"reasoning": reasoning}
    with begin_folder(out, form="dexvla", inputs=pair.inputs(), options=options) as begun:
        if isinstance(begun, ExportReport):
            return begun
        writer = _Writer(begun, pair, reasoning)
        for number, spoken in enumerate(pair.each(), 1):
            writer.add(spoken)
            if on_progress is not None:
                on_progress(number, len(ids))
        return writer.publish()


def hdf5_key(feature: str) -> str:
    """Where a feature of ours lies in the layout."""
    return _KEYS.get(feature) or f"observations/{feature.removeprefix('observation.')}"


class _Writer:
    """Writes one episode after the other, and keeps what the files beside them will say."""

    def __init__(self, draft: FolderDraft, pair: Pair, reasoning: Field) -> None:
        self.draft = draft
        self.pair = pair
        self.reasoning = reasoning
        self.pictures = [
            FramePictures(episodes=pair.episodes, camera=camera, plain=False) for camera in pair.episodes.cameras
        ]
        self.substeps: dict[str, dict[str, list[str]]] = {}  # task -> file -> texts
        self.rows: list[dict[str, str]] = []  # of metadata.csv
        self.silent: list[str] = []
        self.left_out: list[RejectedRow] = list(unknown_fields(pair.annotations, known=("trace", "segment")))
        self.counts = {"episodes": 0, "frames": 0, "frames_without_words": 0}
        self.has_velocity = True
        self.features: tuple[str, ...] = ()
        self.streams: set[str] = set()  # of which stamps were recorded

    def add(self, spoken: Spoken) -> None:
        """One episode; one about which nothing was said is only named."""
        episode = spoken.episode
        self.left_out += spoken.left_out
        words = spoken.words(self.reasoning)
        if not any(words):
            self.silent.append(episode.episode_id)
            return
        name = f"{episode.episode_id}.hdf5"
        columns = self.pair.episodes.columns(episode.episode_id)
        absent = [key for key in ("observation.state", "action") if key not in columns]
        if absent:
            raise UsageError(
                f"DexVLA's layout needs observation.state and action; episodes '{self.pair.episodes.ref}' have no "
                f"{' and no '.join(absent)} (have: {', '.join(sorted(columns))}). Name them so with dataengine edit "
                f"--rename."
            )
        self.features = tuple(columns)
        self.streams |= self.pair.episodes.recorded_stamps_ns(episode.episode_id).keys()
        runs = [(text or "", len(list(group))) for text, group in itertools.groupby(words)]
        with h5py.File(self.draft.path / name, "w") as file:
            for key, value in columns.items():
                file[hdf5_key(key)] = value
            if _VELOCITY not in file:  # the loader opens it for its statistics and uses it nowhere else
                file[_VELOCITY] = np.zeros_like(columns["observation.state"])
                self.has_velocity = False
            self._write_pictures(file, spoken)
            file.create_dataset("language_raw", data=[episode.task], dtype=_TEXT)
            file.create_dataset("substep_reasonings", data=[text or "" for text in words], dtype=_TEXT)
            file["substeps"] = np.repeat(np.arange(len(runs)), [length for _, length in runs])
            sim = self._sim(episode.episode_id)
            if sim is not None:
                file.attrs["sim"] = sim
            file.attrs["episode_id"] = episode.episode_id
        self.substeps.setdefault(episode.task, {})[name] = [text for text, _ in runs]
        self.rows.append({"file": name, **{key: episode.metadata.get(key) or "" for key in _METADATA}})
        self.counts["episodes"] += 1
        self.counts["frames"] += episode.num_frames
        self.counts["frames_without_words"] += sum(text is None for text in words)

    def _write_pictures(self, file: h5py.File, spoken: Spoken) -> None:
        """Rows of JPEG bytes, zero padded, and their lengths: a row per camera in alphabetical order."""
        lengths = []
        for camera in sorted(self.pictures, key=lambda each: each.camera):
            rows = [camera.jpeg(spoken.episode.episode_id, frame) for frame in range(spoken.episode.num_frames)]
            padded = np.zeros((len(rows), max(len(row) for row in rows)), np.uint8)
            for row, jpeg in zip(padded, rows, strict=True):
                row[: len(jpeg)] = np.frombuffer(jpeg, np.uint8)
            key = f"observations/images/{camera.camera}"
            file.create_dataset(key, data=padded, chunks=(1, padded.shape[1]))
            lengths.append([len(row) for row in rows])
        if lengths:
            file["compress_len"] = np.asarray(lengths, np.float32)
            file.attrs["compress"] = True

    def _sim(self, episode_id: str) -> bool | None:
        """What the recording says; True for another layout, or the loader takes the action of the row before."""
        said = self.pair.episodes.imported(episode_id).get("sim")
        if said is not None:
            return said[0] == "true"
        return None if self.pair.episodes.rig.source == "aloha_hdf5" else True

    def publish(self) -> ExportReport:
        """Write the files beside the episodes."""
        if not self.counts["episodes"]:
            other = "segment" if self.reasoning == "trace" else "trace"
            raise UsageError(
                f"annotations '{self.pair.annotations.ref}' hold no {self.reasoning} that covers a frame. Release "
                f"more, or export what else was said: --reasoning {other}."
            )
        folder, episodes = self.draft.path, self.pair.episodes
        files = {
            "substep_reasonings.json": json.dumps(self.substeps, indent=1, ensure_ascii=False),
            "metadata.csv": _csv(self.rows),
            "rig.yaml": _rig_yaml(episodes.rig, self.features, self.pictures),
        }
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for camera in episodes.depth_cameras:
            reason = f"depth camera {camera}: the layout's loaders read colour"
            self.left_out.append(RejectedRow(episode="all", reason=reason))
        for stream in sorted(self.streams):
            reason = f"recorded stamps of {stream}: the layout has none"
            self.left_out.append(RejectedRow(episode="all", reason=reason))
        notes = encoded_note(self.pictures)
        if not self.has_velocity:
            notes.append(f"{_VELOCITY} is zeros: DexVLA's loader asks for it, and the episodes hold no velocity")
        notes += [
            f"JPEGs of {each.camera} are {each.reading[0]} and {each.reading[1]} as recorded; rig.yaml says so"
            for each in self.pictures
            if each.reading != ("rgb", "upright")
        ]
        return self.draft.publish(counts=self.counts, without_words=self.silent, left_out=self.left_out, notes=notes)


def _csv(rows: Sequence[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", *_METADATA], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rig_yaml(rig: Rig, features: Sequence[str], pictures: Sequence[FramePictures]) -> str:
    """The rig of the episodes, told where things lie now; what it transforms was transformed when they were read."""
    arms = [
        arm if arm.position is None or arm.position.feature in features else arm.model_copy(update={"position": None})
        for arm in rig.arms
        if arm.feature in features
    ]
    is_followed = any(arm.joints or arm.position for arm in arms)
    said: dict[str, Any] = {
        "schema_version": rig.schema_version,
        "name": rig.name,
        "source": "aloha_hdf5",
        "robot_type": rig.robot_type,
        "rate_hz": rig.rate_hz,
        "features": {
            key: {"key": hdf5_key(key)}
            | ({"names": list(rig.features[key].names), "unit": rig.features[key].unit} if key in rig.features else {})
            for key in features
        },
        "cameras": {
            each.camera: {
                "key": f"observations/images/{each.camera}",
                "channel_order": each.reading[0],
                "orientation": each.reading[1],
            }
            for each in pictures
        },
        "end_effectors": [part.model_dump(mode="json") for part in rig.end_effectors if part.feature in features],
        "arms": [arm.model_dump(mode="json") for arm in arms],
        **({"kinematics": rig.kinematics.model_dump(mode="json")} if rig.kinematics and is_followed else {}),
        "task_key": "language_raw",
        "metadata": {"csv": "metadata.csv"},
        "action_shift_steps": rig.action_shift_steps,
    }
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True)
