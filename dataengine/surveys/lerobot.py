"""What the surveys of all LeRobot versions share: columns of the first readable episode, cameras, the draft."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataengine.inspected import InspectedCamera, InspectedKey, Inspection
from dataengine.rig_drafts import DraftCamera, DraftColumn, draft_rig
from dataengine.sources.lerobot_columns import stored_numbers
from dataengine.sources.lerobot_info import PICTURES, FeatureInfo, Info, Modality
from dataengine.sources.lerobot_pictures import PictureRows, picture_stream
from dataengine.sources.lerobot_rig import camera_name
from dataengine.sources.lerobot_rows import EpisodeRows
from dataengine.sources.parquet_columns import matrix_of
from dataengine.sources.video_probe import VideoProbe
from dataengine.surveys.words import broken_notes, draft_column
from dataengine.surveys.words import timing as spacing
from schemas.errors import EpisodeError
from schemas.rigs import Camera, SourceKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """One dataset as its reader sees it. `rows` and `probe` raise EpisodeError for what can not be read."""

    kind: SourceKind
    folder: str
    root: Path
    info: Info
    modality: Modality
    names: Sequence[str]
    num_rows: int
    tasks: Sequence[str]
    has_task: bool
    rows: Callable[[str], EpisodeRows]
    probe: Callable[[str, str], VideoProbe]  # (episode, camera key)
    filmed: Sequence[str]  # episodes whose videos are all there
    notes: Sequence[str]
    broken: dict[str, str] = field(default_factory=dict)

    def inspection(self) -> Inspection:
        """All facts, and the draft of a rig."""
        columns, timing = self._first_columns()
        pictured = self.info.keys(*PICTURES)
        cameras = [self._camera(key) for key in pictured]
        drafted = [key for key in pictured if self.filmed or self.info.features[key].dtype != "video"]
        codecs = [note for camera in cameras if (note := self._codec_note(camera))]
        return Inspection(
            kind=self.kind,
            folder=self.folder,
            num_episodes=len(self.names),
            num_rows=self.num_rows,
            rows=tuple(
                InspectedKey(key=key, shape=feature.shape, dtype=feature.dtype)
                for key, feature in self.info.features.items()
            ),
            cameras=tuple(cameras),
            rate_hz=self.info.fps,
            timing=timing,
            tasks=tuple(self.tasks),
            notes=(*self._notes(drafted, pictured), *self.notes, *codecs, *broken_notes(self.broken)),
            draft_rig_yaml=draft_rig(
                kind=self.kind,
                name="mylab",
                robot_type=self.info.robot_type,
                rate_hz=self.info.whole_rate_hz,
                columns=columns,
                cameras=[self._draft(key) for key in drafted],
                task_key=None,
                has_task=self.has_task,
            ),
        )

    def _draft(self, key: str) -> DraftCamera:
        name = self.modality.camera_names().get(key) or camera_name(key)
        unit = self.info.features[key].depth_unit_m
        return DraftCamera(name=name, key=key, channel_order="rgb", depth_unit_m=unit)

    def _notes(self, drafted: Sequence[str], pictured: Sequence[str]) -> list[str]:
        notes = ["which numbers are grippers or hands is not stored"]
        if self.info.whole_rate_hz is None:
            notes.append(f"{self.info.fps:g} Hz is no whole rate: resample before converting")
        if len(drafted) < len(pictured):
            notes.append("no episode has its videos: the draft leaves the cameras out, to keep the numbers alone")
        parts = [
            f"{name} ({dims.start}..{dims.stop - 1})"
            for name, dims in self.modality.slices("observation.state").items()
        ]
        if parts:
            notes.append(f"meta/modality.json names parts of the state: {', '.join(parts)}")
        for key in pictured:
            feature = self.info.features[key]
            if feature.is_depth and feature.depth_unit_m is None:
                notes.append(f"{key} is depth, and its unit is not declared: a rig must say depth_unit_m")
            elif feature.video.get("is_depth_map") and not feature.is_depth:
                notes.append(f"{key} is declared a depth map, but has three channels: it is read as pictures")
        return notes

    def _first_columns(self) -> tuple[list[DraftColumn], str]:
        """Ranges and timing of the first episode that can be read; the ones before it are added to `broken`."""
        for name in self.names:
            try:
                rows = self.rows(name)
                stored = stored_numbers(self.info, rows.schema(), self.modality)
                return self._columns_of(name, rows, stored)
            except EpisodeError as error:
                self.broken[name] = str(error).removeprefix(f"{name}: ").rstrip(".")
        return [], "no stamps stored"

    def _columns_of(
        self, name: str, rows: EpisodeRows, stored: Mapping[str, FeatureInfo]
    ) -> tuple[list[DraftColumn], str]:
        stamped = ["timestamp"] if "timestamp" in rows.schema().names else []
        table = rows.read([*stored, *stamped])
        columns = [
            draft_column(
                key,
                matrix_of(table, name, key).astype(np.float64),
                name=key,
                labels=feature.labels() or self.modality.labels(key, feature.num_dims),
            )
            for key, feature in stored.items()
        ]
        if not stamped or not table.num_rows:
            return columns, "no stamps stored"
        return columns, spacing(name, matrix_of(table, name, "timestamp").reshape(-1))

    def _camera(self, key: str) -> InspectedCamera:
        """As the first readable picture says; as info.json says where there is none. Others are added to `broken`."""
        if self.info.features[key].dtype == "image":
            return self._image_camera(key)
        for name in self.filmed:
            try:
                probe = self.probe(name, key)
            except EpisodeError as error:
                self.broken[name] = str(error).removeprefix(f"{name}: ").rstrip(".")
            else:
                return InspectedCamera(key=key, height=probe.height, width=probe.width, encoding=probe.codec)
        return self._declared(key, "no video can be read" if self.filmed else "no video present")

    def _image_camera(self, key: str) -> InspectedCamera:
        for name in self.names:
            try:
                pictures = PictureRows(rows=self.rows(name), key=key, root=self.root)
                spec = picture_stream(pictures, key, Camera(key=key)).spec
            except EpisodeError as error:
                self.broken[name] = str(error).removeprefix(f"{name}: ").rstrip(".")
            else:
                return InspectedCamera(key=key, height=spec.height, width=spec.width, encoding=spec.encoding)
        return self._declared(key, "no picture can be read")

    def _declared(self, key: str, why: str) -> InspectedCamera:
        height, width = self.info.features[key].size or (0, 0)
        return InspectedCamera(key=key, height=height, width=width, encoding=f"unknown: {why}")

    def _codec_note(self, camera: InspectedCamera) -> str | None:
        said = self.info.features[camera.key].video.get("codec")
        if said is None or camera.encoding.startswith("unknown") or said == camera.encoding:
            return None
        return f"{camera.key} is declared {said}, but its video is {camera.encoding}, which is kept"
