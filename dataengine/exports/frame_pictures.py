"""Pictures of an episode as JPEG bytes: the stored ones wherever they can be taken, byte for byte."""

from dataclasses import dataclass

from dataengine.episode_set import EpisodeSet
from dataengine.sinks.pictures import encode_jpeg

QUALITY, SUBSAMPLING = 95, "444"  # of pictures that lie in an mp4 alone, or whose bytes a plain reader would misread


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePictures:
    """One colour camera of a set."""

    episodes: EpisodeSet
    camera: str
    plain: bool  # only JPEGs that any reader shows upright and in their colours

    @property
    def passes_through(self) -> bool:
        """True where the stored bytes are given."""
        stored = self.episodes.stored_reading(self.camera)
        return stored is not None and (not self.plain or stored == ("rgb", "upright"))

    @property
    def reading(self) -> tuple[str, str]:
        """(channel order, orientation) that a reader of the given bytes must know."""
        stored = self.episodes.stored_reading(self.camera)
        return stored if stored is not None and self.passes_through else ("rgb", "upright")

    def jpeg(self, episode_id: str, frame: int) -> bytes:
        """One picture."""
        if self.passes_through:
            return self.episodes.jpeg(episode_id, self.camera, frame)
        rgb = self.episodes.frame(episode_id, self.camera, frame)
        return encode_jpeg(rgb, quality=QUALITY, subsampling=SUBSAMPLING)


def encoded_note(pictures: list[FramePictures]) -> list[str]:
    """A sentence about the cameras whose pictures were encoded for the export; none where all were copied."""
    names = [each.camera for each in pictures if not each.passes_through]
    if not names:
        return []
    return [f"pictures of {', '.join(names)} were encoded as JPEG (quality {QUALITY}); all others are the stored bytes"]
