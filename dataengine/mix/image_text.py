"""Image-text sources as a user has them: LLaVA-style JSON, question-answer JSON lines, Hugging Face `datasets`.

A row that can not be used (an unreadable image, no answer) becomes a rejected row with its reason; the others go on.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from dataengine.mix.pixels import decode_picture
from schemas.chat import Image, Message, Part, Text
from schemas.errors import MixError, did_you_mean
from schemas.mixes import HfSource, ImageTextSource, LlavaSource, RenderedSource
from schemas.records import RejectedRow, sha256_of

_TAG = re.compile(r"<image\d*>")
_MARKER = re.compile(r"<\|\w+\|>")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
_DECODE_THREADS = 4  # PIL lets go of the interpreter while it decodes; more threads only wait for memory


class RowError(ValueError):
    """One image-text row can not be used; the message is the reason that the record keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One usable row before its pictures are read: the chat, and where its pictures lie, in order."""

    row_id: str
    messages: tuple[Message, ...]
    pictures: tuple[str, ...]
    episode_id: str = ""  # whose pictures these are, where the row says so


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextRow:
    """One usable row, its pictures checked and hashed."""

    row_id: str
    messages: tuple[Message, ...]
    pictures: tuple[str, ...]
    sha256: tuple[str, ...]  # of each picture's file bytes
    episode_id: str = ""

    @property
    def split_key(self) -> str:
        """Rows about one episode stay on its side of the split, others with those that show the same first picture."""
        return self.episode_id or self.sha256[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTextRows:
    """What a source holds, and what was left out."""

    rows: tuple[ImageTextRow, ...]
    rejected: tuple[RejectedRow, ...]

    @property
    def fingerprint(self) -> str:
        """Of the words, the picture bytes, the order, and what was left out; not of where the files lie."""
        rows = [[row.row_id, messages_to_json(row.messages), list(row.sha256)] for row in self.rows]
        return sha256_of({"rows": rows, "rejected": [row.model_dump() for row in self.rejected]})


class RawImageText(Protocol):
    """A reader of one layout."""

    def rows(self) -> Iterator[RawRow | RejectedRow]: ...
    def picture(self, pointer: str) -> bytes:
        """The file bytes of one picture. Raises RowError when it is absent."""
        ...


def open_image_text(source: ImageTextSource, base: Path) -> RawImageText:
    """The reader of a source; paths are relative to `base`. Raises MixError when the path holds no such data."""
    match source:
        case LlavaSource():
            return JsonImageText(source, base)
        case HfSource():
            return HfImageText(source, base)
        case RenderedSource():
            from dataengine.mix.rendered_rows import RenderedImageText  # it needs RawRow, which stands here

            return RenderedImageText(source)


def read_image_text(source: ImageTextSource, raw: RawImageText) -> ImageTextRows:
    """Read and check every row: each picture is decoded once, so that training never meets a broken one."""
    kept: list[ImageTextRow] = []
    rejected: list[RejectedRow] = []
    seen: set[str] = set()

    def check(row: RawRow | RejectedRow) -> ImageTextRow | RejectedRow:
        if isinstance(row, RejectedRow):
            return row
        try:
            digests = tuple(_checked(raw, pointer) for pointer in row.pictures)
        except RowError as error:
            return RejectedRow(episode=row.row_id, reason=str(error))
        return ImageTextRow(
            row_id=row.row_id,
            messages=row.messages,
            pictures=row.pictures,
            sha256=digests,
            episode_id=row.episode_id,
        )

    with ThreadPoolExecutor(_DECODE_THREADS) as pool:
        for row in pool.map(check, raw.rows()):
            if isinstance(row, RejectedRow):
                rejected.append(row.model_copy(update={"episode": f"{source.name}#{row.episode}"}))
            elif row.row_id in seen:
                reason = "a row with this id came before; give every row its own id"
                rejected.append(RejectedRow(episode=f"{source.name}#{row.row_id}", reason=reason))
            else:
                seen.add(row.row_id)
                kept.append(row)
    if not kept:
        why = f"; first reason: {rejected[0].reason}" if rejected else ""
        raise MixError(f"source '{source.name}': none of {len(rejected)} rows can be used{why}. Mend the data.")
    return ImageTextRows(rows=tuple(kept), rejected=tuple(rejected))


def _checked(raw: RawImageText, pointer: str) -> str:
    content = raw.picture(pointer)
    try:
        decode_picture(content)
    except ValueError as error:
        raise RowError(f"image '{pointer}' {error}") from None
    return hashlib.sha256(content).hexdigest()


class JsonImageText:
    """LLaVA JSON (a list, or one object per line), question-answer or chat JSON lines, with a folder of images."""

    def __init__(self, source: LlavaSource, base: Path) -> None:
        self._source = source
        self._file = base / source.path
        self._images = base / source.images if source.images else self._file.parent
        if not self._file.is_file():
            near = [path.name for path in self._file.parent.glob("*.json*")] if self._file.parent.is_dir() else []
            raise MixError(
                f"source '{source.name}': no file '{source.path}'. {did_you_mean(Path(source.path).name, near)}"
            )

    def rows(self) -> Iterator[RawRow | RejectedRow]:
        """Rows in file order. Raises MixError when the file is no JSON at all."""
        for number, value in enumerate(self._values()):
            row_id = str(value["id"]) if isinstance(value, dict) and "id" in value else str(number)
            try:
                yield self._row(row_id, value)
            except RowError as error:
                yield RejectedRow(episode=row_id, reason=str(error))

    def picture(self, pointer: str) -> bytes:
        """File bytes of one image, which must lie inside the image folder."""
        path = self._images / pointer
        if not path.resolve().is_relative_to(self._images.resolve()):
            raise RowError(f"image '{pointer}' lies outside the image folder")
        try:
            return path.read_bytes()
        except OSError:
            raise RowError(f"image '{pointer}' is not there") from None

    def _values(self) -> Iterator[Any]:
        text = self._file.read_text(encoding="utf-8")
        try:
            if text.lstrip().startswith("["):
                yield from json.loads(text)
            else:
                yield from (json.loads(line) for line in text.splitlines() if line.strip())
        except json.JSONDecodeError as error:
            raise MixError(
                f"source '{self._source.name}': '{self._file.name}' is no JSON ({error}). Mend the file."
            ) from None

    def _row(self, row_id: str, value: Any) -> RawRow:  # noqa: ANN401 - any JSON value
        if not isinstance(value, dict):
            raise RowError(f"row is {type(value).__name__}, not an object")
        image_key = "images" if self._source.layout == "messages" else self._source.image_key
        named = value.get(image_key)
        pictures = tuple(named) if isinstance(named, list) else (named,)
        if not all(isinstance(picture, str) and picture for picture in pictures) or not pictures:
            raise RowError(f"names no image under '{image_key}'")
        match self._source.layout:
            case "llava":
                messages = _conversation(value.get("conversations"), len(pictures))
            case "question_answer":
                question, answer = value.get(self._source.question_key), value.get(self._source.answer_key)
                messages = _question_answer(question, answer, len(pictures))
            case "messages":
                messages = _chat(value.get("messages"), pictures)
        episode_id = value.get("episode_id") if self._source.layout == "messages" else None
        whose = episode_id if isinstance(episode_id, str) else ""
        return RawRow(row_id=row_id, messages=messages, pictures=pictures, episode_id=whose)


class HfImageText:
    """A Hugging Face `datasets` directory written by `save_to_disk`, with one image column (or a list of images)."""

    def __init__(self, source: HfSource, base: Path) -> None:
        import datasets

        self._source = source
        folder = base / source.path
        try:
            data = datasets.load_from_disk(str(folder))
        except (FileNotFoundError, ValueError) as error:
            why = "no such directory" if not folder.is_dir() else str(error).replace(str(folder), folder.name)
            raise MixError(
                f"source '{source.name}': '{source.path}' is no `datasets` directory ({why}). "
                "Write one with save_to_disk."
            ) from None
        if isinstance(data, datasets.DatasetDict):
            parts = ", ".join(f"{source.path}/{name}" for name in data)
            raise MixError(f"source '{source.name}': holds several splits. Name one as path: {parts}.")
        for key in (source.image_key, source.question_key, source.answer_key):
            if key not in data.column_names:
                raise MixError(f"source '{source.name}': no column '{key}'. {did_you_mean(key, data.column_names)}")
        feature = data.features[source.image_key]
        match feature:
            case datasets.Image():
                self._data = data.cast_column(source.image_key, datasets.Image(decode=False))
            case datasets.List(feature=datasets.Image()):
                self._data = data.cast_column(source.image_key, datasets.List(datasets.Image(decode=False)))
            case _:
                raise MixError(
                    f"source '{source.name}': column '{source.image_key}' holds {feature}, not images. "
                    "Cast it to datasets.Image()."
                )

    def rows(self) -> Iterator[RawRow | RejectedRow]:
        """Rows in dataset order; pictures are left where they are."""
        source = self._source
        for number in range(len(self._data)):
            value = self._data[number]
            row_id = str(value["id"]) if "id" in value else str(number)
            pictures = value[source.image_key]
            count = len(pictures) if isinstance(pictures, list) else int(pictures is not None)
            try:
                if not count:
                    raise RowError(f"holds no image under '{source.image_key}'")
                messages = _question_answer(value[source.question_key], value[source.answer_key], count)
            except RowError as error:
                yield RejectedRow(episode=row_id, reason=str(error))
                continue
            pointers = tuple(f"{number}/{place}" for place in range(count))
            yield RawRow(row_id=row_id, messages=messages, pictures=pointers)

    def picture(self, pointer: str) -> bytes:
        """File bytes of one picture: those in the table, or of the file it names."""
        number, place = map(int, pointer.split("/"))
        value = self._data[number][self._source.image_key]
        picture = value[place] if isinstance(value, list) else value
        if picture["bytes"] is not None:
            return bytes(picture["bytes"])
        try:
            return Path(picture["path"]).read_bytes()
        except OSError:
            raise RowError(f"image '{Path(picture['path']).name}' is not there") from None


def _question_answer(question: object, answer: object, num_images: int) -> tuple[Message, ...]:
    """Images, then the question.

    In this layout numbered tags name parts of one picture (MATH-V writes the same tag into the picture), so a tag
    inside a sentence stays as a word; a line that is nothing but tags goes.
    """
    if not isinstance(question, str) or not question.strip():
        raise RowError("has no question")
    if not isinstance(answer, str | int | float) or isinstance(answer, bool) or not str(answer).strip():
        raise RowError("has no answer")
    _refuse_markers(question, str(answer))
    words = "\n".join(" ".join(line.split()) for line in question.splitlines() if _TAG.sub("", line).strip())
    return (
        Message(role="user", parts=(*_places(num_images), Text(words))),
        Message(role="assistant", parts=(Text(str(answer).strip()),), supervised=True),
    )


def _conversation(value: object, num_images: int) -> tuple[Message, ...]:
    """LLaVA turns: every answer is supervised, and an image stands where `<image>` stands."""
    if not isinstance(value, list) or not value:
        raise RowError("has no conversations")
    messages: list[Message] = []
    places = iter(_places(num_images))
    tags = sum(len(_TAG.findall(str(turn.get("value")))) for turn in value[::2] if isinstance(turn, dict))
    if tags not in (0, num_images):
        raise RowError(f"has {tags} <image> tags for {num_images} images")
    for number, turn in enumerate(value):
        role = _ROLES.get(str(turn.get("from")).lower()) if isinstance(turn, dict) else None
        expected = ("user", "assistant")[number % 2]
        if role != expected:
            raise RowError(f"turn {number + 1} is not from the {expected}")
        text = turn.get("value")
        if not isinstance(text, str) or not text.strip():
            raise RowError("has no answer" if role == "assistant" else "has no question")
        _refuse_markers(text)
        if role == "assistant":
            messages.append(Message(role="assistant", parts=(Text(text.strip()),), supervised=True))
            continue
        parts: list[Part] = list(places) if number == 0 and not tags else []
        for place, piece in enumerate(_TAG.split(text)):
            if place > 0:
                parts.append(next(places))
            if piece.strip():
                parts.append(Text(piece.strip()))
        messages.append(Message(role="user", parts=tuple(parts)))
    if len(messages) % 2:
        raise RowError("has no answer to its last question")
    return tuple(messages)


def _chat(value: object, pictures: Sequence[str]) -> tuple[Message, ...]:
    """Chat turns as `export --as chat` writes them: content is a list of pictures by path and of words."""
    if not isinstance(value, list) or not value or len(value) % 2:
        raise RowError("holds no turns of the user, each with an answer")
    named: list[str] = []
    messages: list[Message] = []
    for number, turn in enumerate(value):
        role: Literal["user", "assistant"] = "assistant" if number % 2 else "user"
        if not isinstance(turn, dict) or turn.get("role") != role or not isinstance(turn.get("content"), list):
            raise RowError(f"turn {number + 1} is no list of parts from the {role}")
        parts: list[Part] = []
        for part in turn["content"]:
            match part:
                case {"type": "text", "text": str(words)} if words.strip():
                    _refuse_markers(words)
                    parts.append(Text(words.strip()))
                case {"type": "image", "image": str(path)} if role == "user":
                    named.append(path)
                    parts.append(Image(f"image{len(named)}"))
                case _:
                    raise RowError(f"turn {number + 1} holds a part that is neither words nor a picture")
        if not any(isinstance(part, Text) for part in parts):
            raise RowError("has no answer" if role == "assistant" else "has no question")
        messages.append(Message(role=role, parts=tuple(parts), supervised=role == "assistant"))
    if named != list(pictures):
        raise RowError("the pictures in its turns are not those under 'images', in their order")
    return tuple(messages)


def _refuse_markers(*texts: str) -> None:
    """Words that the tokenizer would read as chat markers would let a row end its own turn."""
    for text in texts:
        if found := _MARKER.search(text):
            raise RowError(f"holds the chat marker {found.group()}")


def _places(num_images: int) -> tuple[Image, ...]:
    return tuple(Image(f"image{number + 1}") for number in range(num_images))


def messages_to_json(messages: Sequence[Message]) -> list[list[Any]]:
    """[[role, supervised, [["image", name] | ["text", words], ...]], ...]"""
    return [
        [m.role, m.supervised, [["image", p.name] if isinstance(p, Image) else ["text", p.text] for p in m.parts]]
        for m in messages
    ]


def messages_from_json(value: list[list[Any]]) -> tuple[Message, ...]:
    """The inverse of `messages_to_json`."""
    return tuple(
        Message(
            role=role,
            supervised=supervised,
            parts=tuple(Image(text) if kind == "image" else Text(text) for kind, text in parts),
        )
        for role, supervised, parts in value
    )
