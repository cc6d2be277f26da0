"""Building a mix: from the file a person wrote to an immutable artifact that decides every draw.

mixes/NAME@VERSION/
  lock.json            the recipe, the inputs' fingerprints, whole draws per source, normalisers
  runs.parquet         usable robot frames, by split
  order.npy            one period of the interleave
  image_text/          the rows and pictures of image-text sources, so that the mix stands alone
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from dataengine.artifacts import begin, write_atomic
from dataengine.mix.image_text import ImageTextRows, RawImageText, open_image_text, read_image_text
from dataengine.mix.order import DrawOrder, SourceIds, interleave
from dataengine.mix.packed_rows import write_packed
from dataengine.mix.resolve import resolve_draws
from dataengine.mix.robot_items import (
    ACTION,
    STATE,
    RobotItems,
    counted,
    find_robot_items,
    reasoning_text,
    robot_messages,
    split_items,
    write_runs,
)
from dataengine.mix.spec import load_spec, without_paths
from dataengine.mix.splits import Split, held_out
from dataengine.workspace import Workspace
from schemas.chat import Image, Message, Tokenizer, render_chat
from schemas.errors import MixError
from schemas.mixes import ImageTextSource, MixLock, MixSpec, RenderedSource, RobotSource, SourceLock
from schemas.normalization import Normalizer
from schemas.records import InputRef, Record, RejectedRow, sha256_of
from schemas.refs import Ref

_TRAIN: Split = "train"
LOCK_FILE = "lock.json"
ORDER_FILE = "order.npy"
type ImageTokens = Callable[[int, int], int]  # (width, height) of a picture -> placeholder tokens in the chat


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageTextItems:
    """The usable rows of one image-text source, split and counted."""

    source: ImageTextSource
    raw: RawImageText
    found: ImageTextRows
    splits: tuple[Split, ...]
    tokens: tuple[int, ...]  # supervised, per row

    @property
    def rejected(self) -> tuple[RejectedRow, ...]:
        """Rows that were left out, and why."""
        return self.found.rejected

    def inputs(self) -> list[InputRef]:
        """The raw data, by folder or file name and content; what was drawn, by the name of its source."""
        source = self.source
        name = source.name if isinstance(source, RenderedSource) else Path(source.path).name
        return [InputRef(kind="raw", ref=name, fingerprint=self.found.fingerprint)]


type Items = RobotItems | ImageTextItems


def build_mix(
    *,
    to: Ref,
    workspace: Workspace,
    tokenizer: Tokenizer,
    image_tokens: ImageTokens,
    spec_path: Path | None = None,
    spec: MixSpec | None = None,
    base: Path | None = None,
) -> Record:
    """Resolve, lock and publish a mix.

    Args:
        spec_path: a mix file; paths in it are relative to it. Or else:
        spec: what a mix file says; paths in it are relative to `base` (default: here).
        tokenizer: counts supervised tokens; its fingerprint is in the lock.
        image_tokens: placeholder tokens of a picture of (width, height), for the longest chat of each source.

    Raises MixError that names the source and what to do; ArtifactError when `to` exists and was made differently.
    """
    if (spec_path is None) == (spec is None):
        raise MixError("a mix is built from a file or from a spec, got both or neither. Give spec_path or spec.")
    asked = spec or load_spec(spec_path or Path())
    base = base or (spec_path.parent if spec_path else Path())

    def count(messages: Sequence[Message]) -> int:
        return render_chat(messages, tokenizer, []).num_supervised

    sources = _split([_items(source, base, workspace, count) for source in asked.sources], asked)
    bare = without_paths(asked)
    tokens = [_train_tokens(items) for items in sources]
    draws = resolve_draws(bare, [len(values) for values in tokens])
    recipe = {"spec": bare.model_dump(mode="json"), "tokenizer": tokenizer.fingerprint}
    draft = begin(workspace, "mixes", to, recipe=recipe, inputs=[row for items in sources for row in items.inputs()])
    if isinstance(draft, Record):
        return draft
    with draft:
        period = interleave(draws)
        lock = _lock(bare, sources, tokens, draws, period, tokenizer)
        write_runs(draft.path, [items for items in sources if isinstance(items, RobotItems)])
        for number, items in enumerate(sources):
            if isinstance(items, ImageTextItems):
                write_packed(draft.path, number, items.found.rows, items.raw, splits=items.splits, tokens=items.tokens)
        np.save(draft.path / ORDER_FILE, period)
        write_atomic(draft.path / LOCK_FILE, lock.model_dump_json(indent=1).encode())
        size = image_tokens(*bare.image_size)
        return draft.publish(
            fingerprint=sha256_of(lock.model_dump(mode="json")),
            counts=_counts(lock, sources),
            rejected=[row for items in sources for row in items.rejected],
            notes={
                "image_tokens": size,
                "longest_chat_tokens": {items.source.name: _longest(items, tokenizer, size) for items in sources},
            },
        )


def _items(
    source: RobotSource | ImageTextSource,
    base: Path,
    workspace: Workspace,
    count: Callable[[Sequence[Message]], int],
) -> Items:
    """The usable items of one source, their tokens counted, nothing held out yet."""
    if isinstance(source, RobotSource):
        return counted(find_robot_items(source, workspace), count)
    raw = open_image_text(source, base)
    found = read_image_text(source, raw)
    return ImageTextItems(
        source=source,
        raw=raw,
        found=found,
        splits=tuple(_TRAIN for _ in found.rows),
        tokens=tuple(sum(count([m]) for m in row.messages if m.supervised) for row in found.rows),
    )


def _split(sources: Sequence[Items], spec: MixSpec) -> list[Items]:
    """Hold out validation episodes and pictures; what one source holds out, no other source trains on."""
    held: frozenset[str] = frozenset()
    for items in sources:
        match items:
            case RobotItems(runs=runs):
                keys = [run.episode_id for run in runs]
            case ImageTextItems(found=found):
                keys = [row.split_key for row in found.rows]
        held |= held_out(keys, share=spec.validation, seed=spec.seed)
    return [
        split_items(items, held) if isinstance(items, RobotItems) else _split_rows(items, held) for items in sources
    ]


def _split_rows(items: ImageTextItems, held: frozenset[str]) -> ImageTextItems:
    splits: list[Split] = ["validation" if row.split_key in held else "train" for row in items.found.rows]
    if "train" not in splits:
        raise MixError(
            f"source '{items.source.name}': every row is held out for validation, none is left to train on. "
            "Lower validation, change seed, or add rows."
        )
    return replace(items, splits=tuple(splits))


def _train_tokens(items: Items) -> NDArray[np.int64]:
    """Supervised tokens of each training item, in item order."""
    match items:
        case RobotItems(runs=runs):
            train = [run for run in runs if run.split == "train"]
            return np.repeat([run.supervised_tokens for run in train], [run.num_frames for run in train])
        case ImageTextItems(tokens=tokens, splits=splits):
            return np.array([n for n, split in zip(tokens, splits, strict=True) if split == "train"], dtype=np.int64)


def _lock(
    spec: MixSpec,
    sources: Sequence[Items],
    tokens: Sequence[NDArray[np.int64]],
    draws: Sequence[int],
    period: SourceIds,
    tokenizer: Tokenizer,
) -> MixLock:
    names = [source.name for source in spec.sources]
    num_items = [len(values) for values in tokens]
    order = DrawOrder(period, names=names, num_items=num_items, num_draws=draws, seed=spec.seed)
    supervised = supervised_tokens(order, tokens, sum(draws))
    total = max(1, sum(supervised))
    locks = tuple(
        SourceLock(
            name=items.source.name,
            kind=items.source.kind,
            fingerprint=_content(items),
            num_items=count,
            num_draws=drawn,
            stated=items.source.weight or items.source.epochs or 0.0,
            resolved_share=drawn / sum(draws),
            repeats=drawn / count,
            supervised_tokens=said,
            supervised_share=said / total,
            train_episodes=_episode_ids(items, "train"),
            validation_episodes=_episode_ids(items, "validation"),
            episode_frames=_episode_frames(items),
        )
        for items, count, drawn, said in zip(sources, num_items, draws, supervised, strict=True)
    )
    return MixLock(
        spec=spec,
        sources=locks,
        normalizers=_normalizers([items for items in sources if isinstance(items, RobotItems)]),
        tokenizer_fingerprint=tokenizer.fingerprint,
        num_samples=sum(draws),
    )


def supervised_tokens(order: DrawOrder, tokens: Sequence[NDArray[np.int64]], num_draws: int) -> list[int]:
    """Supervised tokens of each source over the first draws, counted draw by draw."""
    totals = [0] * len(tokens)
    for start in range(0, num_draws, 1 << 16):
        block = order.block(start, min(1 << 16, num_draws - start))
        for number, values in enumerate(tokens):
            totals[number] += int(values[block.item[block.source == number]].sum())
    return totals


def _content(items: Items) -> str:
    """What a source contributes, by content: its inputs and which of them may be drawn."""
    match items:
        case RobotItems():
            runs = [
                [r.split, r.episode_id, r.first_frame, r.num_frames, r.annotation_row, r.supervised_tokens]
                for r in items.runs
            ]
            return sha256_of({"inputs": [row.model_dump() for row in items.inputs()], "runs": runs})
        case ImageTextItems():
            rows = {"rows": items.found.fingerprint, "splits": items.splits, "tokens": items.tokens}
            return sha256_of(rows)


def _episode_ids(items: Items, split: Split) -> tuple[str, ...]:
    return items.episode_ids(split) if isinstance(items, RobotItems) else ()


def _episode_frames(items: Items) -> tuple[int, ...]:
    """Usable frames of each training episode."""
    if not isinstance(items, RobotItems):
        return ()
    frames: dict[str, int] = {}
    for run in items.runs:
        if run.split == "train":
            frames[run.episode_id] = frames.get(run.episode_id, 0) + run.num_frames
    return tuple(frames.values())


def _normalizers(sources: Sequence[RobotItems]) -> dict[str, dict[str, JsonValue]]:
    """One per embodiment (the rig's name), from every row of the training episodes and of no other."""
    rows: dict[str, dict[str, tuple[NDArray[np.generic], NDArray[np.generic]]]] = {}
    for items in sources:
        known = rows.setdefault(items.episodes.rig.name, {})
        for episode_id in items.episode_ids("train"):
            columns = items.episodes.columns(episode_id)
            known[episode_id] = (columns[STATE], columns[ACTION])
    fitted = {}
    for embodiment, episodes in rows.items():
        widths = {(state.shape[1], action.shape[1]) for state, action in episodes.values()}
        if len(widths) > 1:
            raise MixError(
                f"embodiment '{embodiment}' has state and action of sizes {sorted(widths)}. "
                "Give the rigs different names: one name means one robot."
            )
        state, action = (np.concatenate(part) for part in zip(*episodes.values(), strict=True))
        fitted[embodiment] = Normalizer.fit(embodiment, state, action).to_json()
    return fitted


def _counts(lock: MixLock, sources: Sequence[Items]) -> dict[str, int | float]:
    robots = [items for items in sources if isinstance(items, RobotItems)]
    return {
        "samples": lock.num_samples,
        "sources": len(lock.sources),
        "items": sum(source.num_items for source in lock.sources),
        "supervised_tokens": sum(source.supervised_tokens for source in lock.sources),
        "train_episodes": sum(len(source.train_episodes) for source in lock.sources),
        "validation_episodes": sum(len(source.validation_episodes) for source in lock.sources),
        "frames_without_reasoning": sum(items.frames_without_reasoning for items in robots),
        "rejected_rows": sum(len(items.rejected) for items in sources if isinstance(items, ImageTextItems)),
    }


def _longest(items: Items, tokenizer: Tokenizer, image_size: int) -> int:
    """Tokens of the longest chat of a source, pictures included: what a trainer's context must hold."""
    chats: set[tuple[Message, ...]]
    match items:
        case RobotItems():
            tasks = {episode_id: items.episodes.row(episode_id).task for episode_id in items.episodes.ids()}
            chats = {
                robot_messages(
                    items.source, tasks[run.episode_id], reasoning_text(items.annotations, run.annotation_row)
                )
                for run in items.runs
            }
        case ImageTextItems():
            chats = {row.messages for row in items.found.rows}
    longest = 0
    for chat in chats:
        pictures = sum(isinstance(part, Image) for message in chat for part in message.parts)
        words = len(render_chat(chat, tokenizer, [0] * pictures).ids)
        longest = max(longest, words + pictures * image_size)
    return longest
