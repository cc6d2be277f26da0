"""Pictures of one camera of one episode, beside those of its source: one walk through the source serves all proofs."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from dataengine.episode_set import EpisodeSet
from dataengine.frame_store import FrameStore
from dataengine.proofs.bare_codecs import (
    IDENTICAL_DB,
    bare_jpeg,
    bare_video,
    margin_frames,
    psnr_db,
    stretch_frames,
)
from dataengine.proofs.findings import Finding
from dataengine.sinks.pictures import Picture, Rgb, is_upright_rgb, pictures, resized
from dataengine.sinks.video_encoding import VideoEncoding
from schemas.episodes import CameraStream, Episode, VideoFile

LOSS_DB = 0.1  # an encoded picture may be this much worse than bare PyAV makes it
_SAMPLED = 25  # pictures looked at outside the stretches that are encoded again
_STRAY_DB = 10.0  # and by how much one of those may be worse than the stretches: another picture is far worse
_STRETCHES = 2  # per camera and episode


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
        packets = episodes.video_packets(episode_id, key)
        detail = f"{len(packets)} for {rows} rows"
        yield Finding(check="frames == rows", stream=key, ok=len(packets) == rows, detail=detail)
        if len(packets) != rows:
            return
        copied = isinstance(stream, VideoFile) and is_upright_rgb(stream.spec)
        if isinstance(stream, VideoFile) and copied:
            same = packets == source_packets(stream, rate_hz=episode.rate_hz)
            yield Finding(check="video packets are byte-identical", stream=key, ok=same, detail="packets differ")
        sampled = _spread(rows, _SAMPLED)
        video = _Video(episodes=episodes, episode_id=episode_id, camera=key, rows=rows, sampled=sampled)
        if copied:
            watchers.append(_Sampled(video=video, floor_db=IDENTICAL_DB))
        elif encoding is not None:
            stretches = stretches_of(rows, encoding)
            watchers.append(
                _Encoded(video=video, encoding=encoding, rate_hz=episode.rate_hz, loss_db=loss_db, stretches=stretches)
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
    rows: int
    sampled: frozenset[int]

    def frame(self, index: int) -> Rgb:
        return self.episodes.video_frame(self.episode_id, self.camera, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Pictures `start` to `stop` are compared; for them `low` to `high` are encoded, in whole groups of pictures."""

    start: int
    stop: int
    low: int
    high: int


def stretches_of(rows: int, encoding: VideoEncoding) -> list[Stretch]:
    """Two stretches, a quarter and three quarters into an episode; one from its beginning where it is short."""
    num, margin = stretch_frames(encoding), margin_frames(encoding)
    if rows <= _STRETCHES * (num + 2 * margin):
        stop = min(rows, _STRETCHES * num)
        return [Stretch(start=0, stop=stop, low=0, high=min(rows, stop + margin))]
    found = []
    for part in range(_STRETCHES):
        start = round((part + 0.5) * (rows - num) / _STRETCHES) // encoding.g * encoding.g
        low = max(0, (start - margin) // encoding.g * encoding.g)
        found.append(Stretch(start=start, stop=start + num, low=low, high=min(rows, start + num + margin)))
    return found


def _spread(rows: int, most: int) -> frozenset[int]:
    num = min(rows, most)
    return frozenset(round(step * (rows - 1) / max(1, num - 1)) for step in range(num))


@dataclass(slots=True, kw_only=True)
class _Sampled:
    """Copied video: decoded, every picture looked at is the source's."""

    video: _Video
    floor_db: float
    lowest_db: float = IDENTICAL_DB

    def see(self, index: int, picture: Picture) -> None:
        if index in self.video.sampled:
            self.lowest_db = min(self.lowest_db, psnr_db([picture.rgb()], [self.video.frame(index)]))

    def findings(self) -> Iterator[Finding]:
        yield _level("copied pictures decode to the source's", self.video.camera, self.lowest_db, self.floor_db)


@dataclass(slots=True, kw_only=True)
class _Encoded:
    """Encoded video: stretches of the source go through bare PyAV once more; other pictures are only looked at."""

    video: _Video
    encoding: VideoEncoding
    rate_hz: int
    loss_db: float
    stretches: list["Stretch"]
    held: dict[int, Rgb] = field(default_factory=dict)  # source pictures of the stretch that is being read
    better_db: list[float] = field(default_factory=list)  # ours minus bare, per stretch
    bare_db: list[float] = field(default_factory=list)
    stray: list[tuple[float, int]] = field(default_factory=list)

    def see(self, index: int, picture: Picture) -> None:
        for stretch in self.stretches:
            if stretch.low <= index < stretch.high:
                self.held[index] = picture.rgb()
            if index == stretch.high - 1:
                self._compare(stretch)
        if index in self.video.sampled:
            self.stray.append((psnr_db([picture.rgb()], [self.video.frame(index)]), index))

    def _compare(self, stretch: "Stretch") -> None:
        pictures_of = [self.held[at] for at in range(stretch.low, stretch.high)]
        bare = bare_video(pictures_of, encoding=self.encoding, rate_hz=self.rate_hz)
        source = [self.held[at] for at in range(stretch.start, stretch.stop)]
        theirs = psnr_db(source, bare[stretch.start - stretch.low : stretch.stop - stretch.low])
        ours = psnr_db(source, [self.video.frame(at) for at in range(stretch.start, stretch.stop)])
        self.bare_db.append(theirs)
        self.better_db.append(ours - theirs)
        needed = min((later.low for later in self.stretches if later.high > stretch.high), default=stretch.high)
        self.held = {at: rgb for at, rgb in self.held.items() if at >= needed}

    def findings(self) -> Iterator[Finding]:
        loss = -min(self.better_db)
        detail = f"{loss:.2f} dB below bare PyAV at {self.encoding.codec} crf {self.encoding.crf} g {self.encoding.g}"
        yield Finding(
            check=f"video is within {self.loss_db:g} dB of bare PyAV",
            stream=self.video.camera,
            ok=loss <= self.loss_db,
            detail=detail,
            measured=min(self.better_db),
            unit="dB beside bare PyAV",
        )
        lowest, index = min(self.stray)
        floor = min(self.bare_db) - _STRAY_DB
        yield Finding(
            check="video pictures are those of their rows",
            stream=self.video.camera,
            ok=lowest >= floor,
            detail=f"row {index}: {lowest:.1f} dB, expected at least {floor:.1f}",
            measured=lowest,
            unit="dB",
        )


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

    def see(self, index: int, picture: Picture) -> None:
        import simplejpeg

        if index not in _spread(self.rows, _SAMPLED):
            return
        stored = self.store.frame(self.camera, self.first + index)
        source = resized(picture.rgb(), stored.shape[1], stored.shape[0])
        subsampling = simplejpeg.decode_jpeg_header(self.store.jpeg(self.camera, self.first + index))[3]
        ours = psnr_db([source], [stored])
        theirs = psnr_db([source], [bare_jpeg(source, quality=self.quality, subsampling=subsampling)])
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


type _Watcher = _Sampled | _Encoded | _Passed | _Reencoded


def _level(check: str, key: str, db: float, floor_db: float) -> Finding:
    detail = f"{db:.1f} dB, expected at least {floor_db:.1f}"
    return Finding(check=check, stream=key, ok=db >= floor_db, detail=detail, measured=db, unit="dB")


def source_packets(stream: VideoFile, *, rate_hz: int) -> list[str]:
    """Hash of each packet of the episode's part of a source video, in presentation order."""
    import av

    with av.open(str(stream.path)) as container:
        track = container.streams.video[0]
        if stream.first:
            # a part of a shared file begins with a keyframe; anything before it is another episode's
            container.seek(round(stream.first / rate_hz / track.time_base), stream=track, backward=True)
        found = []
        for packet in container.demux(track):
            if not packet.size:
                continue
            found.append((packet.pts, hashlib.sha256(bytes(packet)).hexdigest()))
            shown = -1 if stream.whole or packet.dts is None else packet.dts * track.time_base * rate_hz
            if shown >= stream.first + stream.num_frames:
                break  # no picture is shown before it is decoded
    digests = sorted(found)
    if stream.whole:
        return [digest for _, digest in digests]
    numbered = [(round(float(pts * track.time_base) * rate_hz), digest) for pts, digest in digests]
    return [digest for number, digest in numbered if stream.first <= number < stream.first + stream.num_frames]
