"""What an annotation depends on, as hashes: an episode_id names a recording, these say how it is read."""

from pydantic import BaseModel, ConfigDict


class ContentHashes(BaseModel):
    """Hashes of one episode of one dataset; equal hashes show and tell an annotator the same.

    A trim changes none of them: stamps are source time, so that what was said about the recording stays where it was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    clock: str  # rate, number of rows and recorded stamps, before any trim
    pixels: dict[str, str]  # camera -> its pictures, colour order, orientation and size
    columns: str  # the numbers

    def difference(self, now: "ContentHashes", *, cameras: tuple[str, ...] | None) -> str | None:
        """What changed since, in words; None where nothing did that matters.

        Args:
            cameras: those whose pictures matter; None = all of both, () = none. One that is gone changes nothing.
        """
        if self.clock != now.clock:
            return "its clock changed (rate, rows or stamps)"
        wanted = (
            self.pixels if cameras is None else {name: self.pixels[name] for name in cameras if name in self.pixels}
        )
        changed = sorted(name for name, before in wanted.items() if now.pixels.get(name, before) != before)
        return f"what {' and '.join(changed)} shows changed" if changed else None
