"""Pictures of one camera of one episode, beside those of its source: one walk through the source serves all proofs."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.proofs.bare_codecs import (
    COMPARED,
    IDENTICAL_DB,
    bare_jpeg,
    bare_video,
    margin_frames,
    psnr_db,
    psnr_of,
    squared_error,
)
from dataengine.proofs.findings import Finding, finding
from dataengine.proofs.metadata import content_of
from dataengine.proofs.nearness import Nearness, apart, small
from dataengine.proofs.packets import episode_packets, source_packets
from dataengine.sinks.pictures import Picture, Rgb, is_upright_rgb, pictures, resized
from dataengine.sinks.video_encoding import VideoEncoding
from schemas.episodes import CameraStream, Episode, VideoFile

LOSS_DB = 0.1  # an encoded picture may be this much worse than bare PyAV makes it
_SAMPLED = 25  # pictures of copied video that are decoded, and of a frame store that a bare encoder makes again


def episode_camera(
    episode: Episode,
    key: str,
    stream: CameraStream,
    *,
    episodes: EpisodeSet | None,
    store: FrameStore | None,
    encoding: VideoEncoding | None,
    jpeg_quality: int,
    loss_db: float,
) -> Iterator[Finding]:
    """Counts, packets, JPEGs, and how near decoded pictures are to the source."""
    episode_id, rows = episode.meta.episode_id, episode.num_frames
    watchers: list[_Watcher] = []
    if episodes is not None:
        found = episode_packets(episodes, episode_id, key)
        packets = found.digests
        detail = f"{len(packets)} for {rows} rows"
        yield Finding(check="frames == rows", stream=key, ok=len(packets) == rows, detail=detail)
        if len(packets) != rows:
            return
        content = content_of(episodes, episode_id)
        noted = content.staged.cameras[key].video if content is not None else None
        if noted is not None:
            odd = ["packets have another hash than the commit noted"] if noted.packets != found.content else []
            yield finding("video packets are those that were committed", odd, key)
        copied = isinstance(stream, VideoFile) and is_upright_rgb(stream.spec)
        if isinstance(stream, VideoFile) and copied:
            same = packets == source_packets(stream, rate_hz=episode.rate_hz)
            yield Finding(check="video packets are byte-identical", stream=key, ok=same, detail="packets differ")
        video = _Video(episodes=episodes, episode_id=episode_id, camera=key)
        if copied:
            watchers.append(_Sampled(video=video, sampled=_spread(rows, _SAMPLED)))
        elif encoding is not None:
            watchers.append(
                _Encoded(video=video, encoding=encoding, rate_hz=episode.rate_hz, loss_db=loss_db, rows=rows)
            )
    if store is not None:
        first = store.span(episode_id)[0]
        passed = store.cameras[key].source_bytes
        watchers.append(
            _Passed(store=store, camera=key, first=first, rows=rows)
            if passed
            else _Reencoded(store=store, camera=key, first=first, rows=rows, quality=jpeg_quality, loss_db=loss_db)
        )
    count = 0
    for index, picture in enumerate(pictures(stream)):
        count += 1
        for watcher in watchers:
            watcher.see(index, picture)
    yield Finding(check="source pictures == rows", stream=key, ok=count == rows, detail=f"{count} for {rows} rows")
    for watcher in watchers:
        yield from watcher.findings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Video:
    episodes: EpisodeSet
    episode_id: str
    camera: str

    def frame(self, index: int) -> Rgb:
        """Asked for in order, pictures are decoded in one walk."""
        return self.episodes.video_frame(self.episode_id, self.camera, index)


def _spread(rows: int, most: int) -> frozenset[int]:
    num = min(rows, most)
    return frozenset(round(step * (rows - 1) / max(1, num - 1)) for step in range(num))


@dataclass(slots=True, kw_only=True)
class _Sampled:
    """Copied video, whose packets are the source's: what is looked at decodes to the source's pictures."""

    video: _Video
    sampled: frozenset[int]
    lowest_db: float = IDENTICAL_DB

    def see(self, index: int, picture: Picture) -> None:
        if index in self.sampled:
            self.lowest_db = min(self.lowest_db, psnr_db([picture.rgb()], [self.video.frame(index)]))

    def findings(self) -> Iterator[Finding]:
        yield Finding(
            check="copied pictures decode to the source's",
            stream=self.video.camera,
            ok=self.lowest_db >= IDENTICAL_DB,
            detail=f"{self.lowest_db:.1f} dB, expected {IDENTICAL_DB:.1f}",
            measured=self.lowest_db,
            unit="dB",
        )


@dataclass(slots=True, kw_only=True)
class _Encoded:
    """Encoded video: every picture is decoded; those the stream begins with go through bare PyAV once more.

    Both encoders then begin with the same picture at the same settings, and quality is that of all compared pictures
    together: a stretch cut out of the middle came out up to 0.2 dB either way, as encoders carry quality along.
    """

    video: _Video
    encoding: VideoEncoding
    rate_hz: int
    loss_db: float
    rows: int
    held: list[Rgb] = field(default_factory=list)  # source pictures that bare PyAV gets
    errors: list[float] = field(default_factory=list)  # squared, of our pictures, as many as are compared
    near: Nearness = field(default_factory=Nearness)
    bare_apart: dict[int, float] = field(default_factory=dict)  # row -> of small pictures
    ours_db: float = IDENTICAL_DB
    bare_db: float = IDENTICAL_DB

    def see(self, index: int, picture: Picture) -> None:
        if index >= self.rows:
            return  # "source pictures == rows" says so
        source, ours = picture.rgb(), self.video.frame(index)
        self.near.add(source, ours)
        compared = min(self.rows, COMPARED)
        given = min(self.rows, compared + margin_frames(self.encoding))
        if index < compared:
            self.errors.append(squared_error(source, ours))
        if index < given:
            self.held.append(source)
        if index == given - 1:
            bare = bare_video(self.held, encoding=self.encoding, rate_hz=self.rate_hz)[:compared]
            kept = self.held[:compared]
            self.ours_db = psnr_of(self.errors)
            self.bare_db = psnr_db(kept, bare)
            pairs = enumerate(zip(kept, bare, strict=True))
            self.bare_apart = {row: apart(small(one), small(other)) for row, (one, other) in pairs}
            self.held = []

    def findings(self) -> Iterator[Finding]:
        better = self.ours_db - self.bare_db
        settings = f"{self.encoding.codec} crf {self.encoding.crf} g {self.encoding.g}"
        yield Finding(
            check=f"video is within {self.loss_db:g} dB of bare PyAV",
            stream=self.video.camera,
            ok=better >= -self.loss_db,
            detail=f"{-better:.2f} dB below bare PyAV at {settings} over the first {len(self.errors)} pictures",
            measured=better,
            unit="dB beside bare PyAV",
        )
        yield finding("video pictures are those of their rows", self.near.faults(self.bare_apart), self.video.camera)


@dataclass(slots=True, kw_only=True)
class _Passed:
    """JPEGs that went through: byte for byte."""

    store: FrameStore
    camera: str
    first: int
    rows: int
    num_same: int = 0
    odd: int | None = None

    def see(self, index: int, picture: Picture) -> None:
        if index < self.rows and picture.jpeg == self.store.jpeg(self.camera, self.first + index):
            self.num_same += 1
        elif self.odd is None:
            self.odd = index

    def findings(self) -> Iterator[Finding]:
        detail = f"{self.rows - self.num_same} of {self.rows} JPEGs differ, the first at row {self.odd}"
        same = self.num_same == self.rows and self.odd is None
        yield Finding(check="JPEGs are byte-identical", stream=self.camera, ok=same, detail=detail)


@dataclass(slots=True, kw_only=True)
class _Reencoded:
    """JPEGs that were made here: within the loss of a bare encoder at the same settings."""

    store: FrameStore
    camera: str
    first: int
    rows: int
    quality: int
    loss_db: float
    better_db: float = IDENTICAL_DB
    detail: str = ""
    near: Nearness = field(default_factory=Nearness)
    bare_apart: dict[int, float] = field(default_factory=dict)  # row -> of small pictures

    def see(self, index: int, picture: Picture) -> None:
        import simplejpeg

        if index >= self.rows:
            return
        stored = self.store.frame(self.camera, self.first + index)
        source = resized(picture.rgb(), stored.shape[1], stored.shape[0])
        self.near.add(source, stored)
        if index not in _spread(self.rows, _SAMPLED):
            return
        subsampling = simplejpeg.decode_jpeg_header(self.store.jpeg(self.camera, self.first + index))[3]
        bare = bare_jpeg(source, quality=self.quality, subsampling=subsampling)
        ours, theirs = psnr_db([source], [stored]), psnr_db([source], [bare])
        self.bare_apart[index] = apart(small(source), small(bare))
        if ours - theirs < self.better_db:
            self.better_db = ours - theirs
            self.detail = f"row {index}: {ours:.2f} dB, bare encoder {theirs:.2f}"

    def findings(self) -> Iterator[Finding]:
        yield Finding(
            check=f"stored pictures are within {self.loss_db:g} dB of a bare JPEG encoder",
            stream=self.camera,
            ok=self.better_db >= -self.loss_db,
            detail=self.detail,
            measured=self.better_db,
            unit="dB beside a bare encoder",
        )
        yield finding("stored pictures are those of their rows", self.near.faults(self.bare_apart), self.camera)


type _Watcher = _Sampled | _Encoded | _Passed | _Reencoded
