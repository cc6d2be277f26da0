"""What a video file is, told by its packets: nothing is decoded."""

from dataclasses import dataclass
from pathlib import Path

from schemas.errors import EpisodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoProbe:
    """What a video file is, told by its packets."""

    codec: str
    height: int
    width: int
    num_frames: int


def probe_video(path: Path, label: str) -> VideoProbe:
    """Count packets and read the codec without decoding. Raises EpisodeError for a file that is no whole video."""
    import av

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
