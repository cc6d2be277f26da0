"""A mix: the recipe a person writes (YAML), the lock it resolves to, and one draw from it."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PositiveInt, model_validator

from schemas.chat import Message
from schemas.errors import MixError

MIX_SCHEMA = 1
_FROZEN = ConfigDict(frozen=True, extra="forbid")
Reasoning = Literal["trace", "segment", "none"]


class Share(BaseModel):
    """How much of a mix one source is, and what it is called."""

    model_config = _FROZEN
    name: str
    weight: Annotated[float, Field(gt=0)] | None = None  # share of samples, or else:
    epochs: Annotated[float, Field(gt=0)] | None = None  # passes over the source
    max_repeats: Annotated[float, Field(gt=0)] = 50.0  # more draws per item than this are refused


class RobotSource(Share):
    """Robot episodes and what is said about them."""

    kind: Literal["robot"] = "robot"
    episodes: str  # NAME@VERSION
    annotations: str | None = (
        None  # NAME@VERSION; needed unless reasoning is "none"; what it calls unusable is left out
    )
    reasoning: Reasoning = "trace"
    cameras: tuple[str, ...] = Field(min_length=1)
    chunk_steps: Annotated[int, Field(gt=0)] = 50
    where: dict[str, str] = Field(default_factory=dict)  # episode metadata filter, e.g. {outcome: success}


class LlavaSource(Share):
    """Image-text pairs as LLaVA-style JSON (or JSON lines) and a folder of images."""

    kind: Literal["llava"] = "llava"
    path: str  # JSON or JSONL file; relative to the mix file
    images: str | None = None  # folder of images; default: the file's own folder
    layout: Literal["llava", "question_answer", "messages"] = "llava"  # messages: what `export --as chat` writes
    # question_answer: one object per line with these keys (MATH-V and many others)
    question_key: str = "question"
    answer_key: str = "answer"
    image_key: str = "image"


class HfSource(Share):
    """Image-text pairs in a Hugging Face `datasets` directory (`save_to_disk`)."""

    kind: Literal["hf"] = "hf"
    path: str  # relative to the mix file
    question_key: str = "question"
    answer_key: str = "answer"
    image_key: str = "image"


class RenderedSource(Share):
    """Questions about boards and tables that are drawn while the mix is built: nothing to collect, nothing to store."""

    kind: Literal["rendered"] = "rendered"
    skills: tuple[str, ...] = ()  # of `dataengine.rendered`; none named: all of them
    rows_per_skill: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0


type ImageTextSource = LlavaSource | HfSource | RenderedSource
MixSource = Annotated[RobotSource | LlavaSource | HfSource | RenderedSource, Field(discriminator="kind")]


class MixSpec(BaseModel):
    """What a person writes. Weights are shares of samples; epochs are passes over a source; not both in one mix."""

    model_config = _FROZEN
    schema_version: int = MIX_SCHEMA
    sources: tuple[MixSource, ...] = Field(min_length=1)
    num_samples: Annotated[int, Field(gt=0)] | None = None  # needed with weights: samples per pass of the mix
    seed: int = 0
    image_size: tuple[PositiveInt, PositiveInt] = (320, 240)  # width, height that every image is scaled to
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of episodes (never of frames) held out

    @model_validator(mode="after")
    def _one_way_to_say_how_much(self) -> "MixSpec":
        names = [source.name for source in self.sources]
        if len(set(names)) != len(names):
            raise ValueError(f"two sources share a name: {names}")
        weighted = [source.name for source in self.sources if source.weight is not None]
        passes = [source.name for source in self.sources if source.epochs is not None]
        if weighted and passes:
            raise ValueError(f"give weight or epochs, not both: weight on {weighted}, epochs on {passes}")
        if len(weighted) + len(passes) != len(names):
            raise ValueError("every source needs weight: (with num_samples:) or epochs:")
        if weighted and self.num_samples is None:
            raise ValueError("weights need num_samples: how many samples one pass of the mix holds")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One training sample's address: position (epoch = position // num_samples), source, item inside the source."""

    position: int
    source: str
    item: int  # index into the source's training items, stable for one lock
    repeat: int  # how many times this item was drawn before in this pass


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One draw, exactly as the model gets it.

    images: upright RGB uint8 (height, width, 3), one per image place in `messages`, in order.
    state: (S,) float32 z-scored; actions: (chunk_steps, A) float32 in [-1, 1]; action_is_pad: (chunk_steps,) bool.
    All three are None for image-text.
    """

    draw: Draw
    item_key: str  # "episode_id#frame" or "source#row"
    messages: tuple[Message, ...]
    images: tuple[NDArray[np.uint8], ...]
    embodiment: str | None = None
    state: NDArray[np.float32] | None = None
    actions: NDArray[np.float32] | None = None
    action_is_pad: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        robot = (self.state is not None, self.actions is not None, self.action_is_pad is not None)
        if any(robot) != all(robot):
            raise MixError(f"{self.item_key}: state, actions and padding come together or not at all.")

    @property
    def is_robot(self) -> bool:
        """True where the sample carries actions."""
        return self.actions is not None


class SourceLock(BaseModel):
    """One source, pinned by content, and the integer number of draws it resolves to."""

    model_config = _FROZEN
    name: str
    kind: str
    fingerprint: str
    num_items: int  # training items: frames, or image-text rows
    num_draws: int
    stated: float  # weight or epochs as written
    resolved_share: float  # of samples
    repeats: float  # num_draws / num_items
    supervised_tokens: int  # over all draws
    supervised_share: float
    train_episodes: tuple[str, ...] = ()
    validation_episodes: tuple[str, ...] = ()
    episode_frames: tuple[int, ...] = ()  # frames of each train episode, same order


class MixLock(BaseModel):
    """Everything that decides which sample comes at which position, and what it holds."""

    model_config = _FROZEN
    schema_version: int = MIX_SCHEMA
    spec: MixSpec
    sources: tuple[SourceLock, ...]
    normalizers: dict[str, dict[str, JsonValue]]  # embodiment -> Normalizer.to_json()
    tokenizer_fingerprint: str
    num_samples: int  # per pass
