"""A vision-language chat model from a local Hugging Face directory, answering several questions at a time.

No network, no code from the directory, no pickle: config, tokenizer, image processor and safetensors are read.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from annotators.vlm.protocol import Decode, ImagePart, Request, TextPart, Turn
from dataengine.sources.content import hash_files
from schemas.chat import chat_marker
from schemas.errors import BackendError
from schemas.records import sha256_of

if TYPE_CHECKING:
    from PIL import Image

    from annotators.vlm.constrained import Speech

Device = Literal["auto", "cpu", "cuda"]
_SCHEME = 1  # a change in how answers are drawn is a change of every revision
_READ = frozenset({".safetensors", ".json", ".jinja", ".txt", ".model"})  # what the answers depend on
# What this project's own training leaves beside a model; none of it changes an answer.
_OURS = frozenset({"record.json", "recipe.json", "scores.json", "samples.json", "training.json"})
_MOST_PIXELS = 1 << 24  # 4096 x 4096; a picture that unpacks to more is a mistake or an attack


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One chat to be answered, and how."""

    turns: tuple[Turn, ...]
    decode: Decode
    schema: dict[str, Any] | None = None  # None: any words

    @classmethod
    def of(cls, request: Request) -> "Prompt":
        """What a request asks; each rollout draws from a seed of its own."""
        decode = replace(request.speaker.decode, seed=request.speaker.decode.seed + request.rollout)
        return cls(turns=request.turns, decode=decode, schema=request.schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said."""

    text: str
    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]  # length: cut off at max_tokens
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """Why there is none."""

    reason: str
    asked_wrongly: bool  # True: the prompt is at fault; False: the model or the machine


class ChatModel:
    """One loaded model. Not for several threads at a time."""

    def __init__(self, folder: Path, device: Device = "auto") -> None:
        import torch
        from llguidance.hf import from_tokenizer
        from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
        from transformers.utils import logging

        from annotators.vlm.constrained import Grammars

        check_folder(folder)
        if device == "cuda" and not torch.cuda.is_available():
            raise BackendError("device 'cuda' was asked for, and torch finds no such device. Use --device cpu.")
        self.name = folder.resolve().name
        self._device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        logging.disable_progress_bar()  # its bars would break ours
        try:
            # Half precision is slower than float32 on most CPUs, and small models lose digits to it.
            self._model = AutoModelForImageTextToText.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype="auto" if self._device.type == "cuda" else torch.float32,
            )
            self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            # The boundary to transformers: a wrong directory raises anything from OSError to KeyError.
            raise _unreadable(folder, f"{type(error).__name__}: {error}") from None
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is None or not tokenizer.is_fast:
            raise _unreadable(folder, "it has no fast tokenizer and image processor")
        if getattr(self._processor, "chat_template", None) is None:
            raise _unreadable(folder, "it has no chat template")
        tokenizer.padding_side = "left"  # the answer follows the prompt
        self._tokenizer = tokenizer
        self._model.to(self._device).eval()
        self._ends = _ends(self._model.generation_config.eos_token_id, tokenizer.eos_token_id)
        # The directory's own sampling habits (repetition penalties, top k) would bend what the schema allows.
        self._model.generation_config = GenerationConfig()
        pad = tokenizer.pad_token_id
        self._generation = {
            "do_sample": False,
            "use_cache": True,
            "eos_token_id": sorted(self._ends),
            "pad_token_id": min(self._ends) if pad is None else pad,
        }
        text_config = self._model.config.get_text_config()
        self._longest = int(text_config.max_position_embeddings)
        self._grammars = Grammars(
            from_tokenizer(tokenizer, n_vocab=int(text_config.vocab_size), eos_token=sorted(self._ends))
        )

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer | NoAnswer]:
        """An answer per prompt, in their order. One that can not be answered does not take its neighbours with it."""
        if not prompts:
            return []
        try:
            return [*self._speak(prompts)]
        except Exception as error:  # the isolation boundary: a broken picture, too little memory for the batch
            if len(prompts) == 1:
                wrong = isinstance(error, BackendError)
                reason = str(error) if wrong else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                return [NoAnswer(reason=reason, asked_wrongly=wrong)]
        middle = len(prompts) // 2
        return self.answer(prompts[:middle]) + self.answer(prompts[middle:])

    def _speak(self, prompts: Sequence[Prompt]) -> list[Answer]:
        import torch

        from annotators.vlm.constrained import Chorus

        chorus = Chorus([self._speech(prompt) for prompt in prompts])
        inputs = self._inputs([_conversation(prompt) for prompt in prompts])
        lengths = inputs["attention_mask"].sum(1).tolist()
        most_tokens = max(prompt.decode.max_tokens for prompt in prompts)
        if (needed := max(lengths) + most_tokens) > self._longest:
            raise BackendError(
                f"a prompt of {max(lengths)} tokens and {most_tokens} for the answer are {needed}; the model takes "
                f"{self._longest}. Send fewer or smaller pictures, or set max_tokens lower."
            )
        with torch.inference_mode():
            self._model.generate(
                **inputs.to(self._device, self._model.dtype),
                **self._generation,
                max_new_tokens=most_tokens,
                logits_processor=[chorus],
                stopping_criteria=[chorus.done],
            )
        return [
            Answer(
                text=self._tokenizer.decode(
                    speech.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
                ),
                tokens=tuple(speech.tokens),
                finish=speech.finish or "length",
                prompt_tokens=length,
            )
            for speech, length in zip(chorus.speeches, lengths, strict=True)
        ]

    def _speech(self, prompt: Prompt) -> "Speech":
        import torch

        from annotators.vlm.constrained import Speech

        return Speech(
            max_tokens=prompt.decode.max_tokens,
            temperature=prompt.decode.temperature,
            ends=self._ends,
            matcher=None if prompt.schema is None else self._grammars.matcher(prompt.schema),
            noise=torch.Generator().manual_seed(_noise_seed(prompt)),
        )

    def _inputs(self, conversations: list[list[dict[str, Any]]]) -> Any:  # noqa: ANN401 - transformers' BatchFeature
        import inspect

        wants_types = "mm_token_type_ids" in inspect.signature(self._model.forward).parameters
        return self._processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True} | ({"return_mm_token_type_ids": True} if wants_types else {}),
        )


def check_folder(folder: Path) -> None:
    """Raises BackendError for a folder that can not hold a model, before torch is loaded."""
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise BackendError(
            f"'{folder}' holds no config.json with safetensors. Name a local Hugging Face directory of a "
            "vision-language chat model, e.g. Qwen2-VL."
        )


def fingerprint(folder: Path) -> str:
    """Hash over every file the answers depend on: weights, config, tokenizer, templates; names count, places do not."""
    files = sorted(
        path for path in folder.iterdir() if path.suffix in _READ and path.name not in _OURS and path.is_file()
    )
    return sha256_of({"scheme": _SCHEME, "files": [[path.name, hash_files([path])] for path in files]})


def _unreadable(folder: Path, why: str) -> BackendError:
    told = " ".join(why.split())[:200].rstrip(".")
    return BackendError(
        f"'{folder.name}' can not be used as a vision-language chat model ({told}). Name another directory, or copy "
        "it again."
    )


def _ends(*ids: int | list[int] | None) -> frozenset[int]:
    found: set[int] = set()
    for one in ids:
        found |= set(one) if isinstance(one, list) else set() if one is None else {one}
    return frozenset(found)


def _noise_seed(prompt: Prompt) -> int:
    """Keyed by what is asked, so that neither the batch nor a retry changes a draw."""
    digest = hashlib.sha256(str(prompt.decode.seed).encode())
    for turn in prompt.turns:
        for part in turn.parts:
            data = part.text.encode() if isinstance(part, TextPart) else part.data
            digest.update(f"/{turn.role} {type(part).__name__} {len(data)} ".encode())
            digest.update(data)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def _conversation(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt as chat templates take it."""
    turns = []
    for turn in prompt.turns:
        content: list[dict[str, Any]] = []
        for part in turn.parts:
            match part:
                case TextPart(text):
                    if marker := chat_marker(text):
                        raise BackendError(f"a text of the {turn.role} holds the chat marker {marker}. Take it out.")
                    content.append({"type": "text", "text": text})
                case ImagePart():
                    content.append({"type": "image", "image": _picture(part)})
        turns.append({"role": turn.role, "content": content})
    return turns


def _picture(part: ImagePart) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(part.data), formats=("PNG", "JPEG"))
        if picture.width * picture.height > _MOST_PIXELS:
            raise BackendError(
                f"a picture is {picture.width}x{picture.height}; at most {_MOST_PIXELS} pixels are read. Scale it down."
            )
        return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BackendError(f"a picture can not be read as PNG or JPEG ({str(error)[:100]}). Send it again.") from None
