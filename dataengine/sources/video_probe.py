"""What a video file is, told by its head or its packets: nothing is decoded."""

from dataclasses import dataclass
from pathlib import Path

from dataengine.sinks.mp4_tables import CODECS, NotPlain, read_table
from schemas.errors import EpisodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoProbe:
    """What a video file is, told by its packets."""

    codec: str
    height: int
    width: int
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoHead:
    """What the head of a video file says."""

    codec: str
    height: int
    width: int
    start_s: float  # time of the first picture


def probe_video(path: Path, label: str) -> VideoProbe:
    """Count packets and read the codec without decoding. Raises EpisodeError for a file that is no whole video."""
    import av

    try:
        table = read_table(path)
    except NotPlain:  # its tables do not say all: walk it
        pass
    else:
        return VideoProbe(
            codec=CODECS[table.fourcc], height=table.height, width=table.width, num_frames=len(table.sizes)
        )
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise EpisodeError(f"{label} holds no video stream. Copy it again or drop the episode.")
            stream = container.streams.video[0]
            count = sum(1 for packet in container.demux(stream) if packet.size)
            context = stream.codec_context
            codec = str(context.codec.canonical_name)
            return VideoProbe(codec=codec, height=context.height, width=context.width, num_frames=count)
    except av.error.FFmpegError:
        raise EpisodeError(f"{label} is not a readable video. Copy it again or drop the episode.") from None


def probe_head(path: Path, label: str) -> VideoHead:
    """Read the head alone: a shard of many episodes is not walked. Raises EpisodeError for a file that is no video."""
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise EpisodeError(f"{label} holds no video stream. Copy it again or drop the episode.")
            stream = container.streams.video[0]
            context = stream.codec_context
            start = float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
            codec = str(context.codec.canonical_name)
            return VideoHead(codec=codec, height=context.height, width=context.width, start_s=start)
    except av.error.FFmpegError:
        raise EpisodeError(f"{label} is not a readable video. Copy it again or drop the episode.") from None
