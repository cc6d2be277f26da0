"""A chat as Qwen2-VL reads it: messages of text and images, some of them supervised.

Rendering lives here because three sides need the same bytes: the mix counts supervised tokens, the trainer computes the
loss on them, the policy server asks with the same prompt. No torch: token ids are plain lists.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from schemas.errors import MixError

IGNORE = -100  # label of a token that carries no loss
IMAGE_TOKEN = "<|image_pad|>"
_MARKER = re.compile(r"<\|\w+\|>")  # what a Qwen2 tokenizer reads as one special token


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """The place of one image; pixels travel beside the chat, in the same order."""

    name: str  # e.g. the camera


type Part = Text | Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. Only an assistant turn may be supervised."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]
    supervised: bool = False

    def __post_init__(self) -> None:
        if self.supervised and self.role != "assistant":
            raise MixError(f"a {self.role} turn can not be supervised; only what the assistant says is learned.")


def chat_marker(text: str) -> str | None:
    """The first chat marker inside a text, such as <|im_end|>; None when it holds words alone."""
    found = _MARKER.search(text)
    return None if found is None else found.group()


class Tokenizer(Protocol):
    """The two things rendering needs from any tokenizer; special tokens inside the text map to their single ids."""

    fingerprint: str  # changes when the vocabulary or the rules change

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedChat:
    """Token ids, the labels beside them (IGNORE where no loss), and the words they stand for."""

    ids: list[int]
    labels: list[int]
    pieces: tuple[tuple[str, bool], ...]  # (text, supervised), for showing

    @property
    def num_supervised(self) -> int:
        """Tokens that carry a loss."""
        return sum(label != IGNORE for label in self.labels)


def render_chat(
    messages: Sequence[Message], tokenizer: Tokenizer, image_tokens: Sequence[int], *, open_turn: bool = False
) -> RenderedChat:
    """Render in Qwen2-VL's chat format.

    Args:
        image_tokens: how many placeholder tokens each image takes, in order of appearance.
        open_turn: end with an open assistant turn, as a policy does before it speaks.

    Raises MixError when images and their places differ in number, or a text holds a chat marker: it would end its own
    turn, or stand where an image belongs.
    """
    counts = iter(image_tokens)
    pieces: list[tuple[str, bool]] = []
    for message in messages:
        _refuse_markers(message)
        body = []
        for part in message.parts:
            match part:
                case Text(text):
                    body.append(text)
                case Image(name):
                    count = next(counts, None)
                    if count is None:
                        raise MixError(
                            f"image '{name}' has no pixels: {len(image_tokens)} images for more places in the chat."
                        )
                    body.append(f"<|vision_start|>{IMAGE_TOKEN * count}<|vision_end|>")
        pieces.append((f"<|im_start|>{message.role}\n", False))
        pieces.append(("".join(body) + "<|im_end|>", message.supervised))
        pieces.append(("\n", False))
    if next(counts, None) is not None:
        raise MixError(f"{len(image_tokens)} images but fewer places for them in the chat.")
    if open_turn:
        pieces.append(("<|im_start|>assistant\n", False))
    ids: list[int] = []
    labels: list[int] = []
    for text, supervised in pieces:
        piece = tokenizer.encode(text)
        ids += piece
        labels += piece if supervised else [IGNORE] * len(piece)
    return RenderedChat(ids=ids, labels=labels, pieces=tuple(pieces))


def _refuse_markers(message: Message) -> None:
    # Texts side by side are one text to the tokenizer; an image between them parts them.
    words = "".join(part.text if isinstance(part, Text) else "\n" for part in message.parts)
    if marker := chat_marker(words):
        raise MixError(f"a text of the {message.role} holds the chat marker {marker}. Take it out of the text.")
