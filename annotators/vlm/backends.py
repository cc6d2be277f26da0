"""The backends one can choose from; a union of small configs, told apart by one `match`."""

from dataclasses import dataclass

from annotators.vlm.endpoint import Endpoint
from annotators.vlm.local import Local
from annotators.vlm.replay import Replay

__all__ = ["BackendConfig", "Endpoint", "Local", "Perception", "Replay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Perception:
    """The built-in offline backend: character recognition and geometry, no model is asked."""


type BackendConfig = Perception | Endpoint | Local | Replay
