"""What every source is: a folder of raw episodes that can be listed cheaply and read one by one."""

from typing import Protocol, runtime_checkable

from schemas.episodes import Episode
from schemas.rigs import Rig, SourceKind


class Source(Protocol):
    """Raw episodes of one folder. Picklable: workers call `read` on their own copy.

    `rig` is the given rig without the optional features and cameras that this folder does not have, so that its
    episodes have exactly the columns and cameras it names.
    """

    @property
    def kind(self) -> SourceKind: ...
    @property
    def rig(self) -> Rig: ...

    def names(self) -> list[str]:
        """Raw names of all episodes, whole or broken, in natural order (episode_2 before episode_10)."""
        ...

    def read(self, name: str) -> Episode:
        """One episode, every check done. Raises EpisodeError for a bad one, RigError where the rig cannot fit."""
        ...

    def stamps(self) -> dict[str, str]:
        """For each name in order: sizes and dates of the files that `read` takes, and its row of the metadata CSV.

        Cheap. While a stamp is the same so is the episode; with another stamp it may still be.
        """
        ...

    def fingerprint(self) -> str:
        """Identity of the raw content: names, sizes, sampled bytes; free of paths and dates."""
        ...


@runtime_checkable
class TellsNotTaken(Protocol):
    """A source that knows what its rig leaves out; optional."""

    def not_taken(self) -> tuple[str, ...]:
        """What the rig names nowhere, of the first episode that it fits: "KEY", "KEY (camera)" or "KEY (text)".

        Without what the format itself defines: marks of rows, lengths, what is derived from the rest. Cheap.
        """
        ...
