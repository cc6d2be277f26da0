"""What a mix asks for, what it resolves to, and what it really gives: in samples and in supervised tokens."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dataengine.mix.mix import Mix
from schemas.errors import MixError
from schemas.mixes import RenderedSource, RobotSource, SourceLock


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShares:
    """One source of a mix. Shares are fractions of the whole mix; `observed_*` are counted over the draws taken."""

    name: str
    kind: str
    stated: float
    stated_as: str  # "weight" | "epochs"
    stated_share: float  # of samples, as the weights or epochs say before rounding
    num_items: int
    num_draws: int
    repeats: float
    resolved_share: float
    observed_draws: int
    observed_share: float
    resolved_tokens: int
    resolved_token_share: float
    observed_tokens: int
    observed_token_share: float
    distinct_items: int  # drawn at least once among the observed draws
    train_episodes: int
    validation_episodes: int
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixTree:
    """A mix and its sources."""

    ref: str
    fingerprint: str
    seed: int
    num_samples: int
    image_size: tuple[int, int]
    observed: int  # draws counted
    longest_chat_tokens: dict[str, int]
    rejected: int
    sources: tuple[SourceShares, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def render(self) -> str:
        """The tree as text."""
        width, height = self.image_size
        lines = [
            f"mix {self.ref}  {self.fingerprint[:12]}",
            f"{self.num_samples} samples per pass, seed {self.seed}, pictures {width} x {height}; "
            f"observed = the first {self.observed} draws",
        ]
        for number, source in enumerate(self.sources):
            last = number == len(self.sources) - 1
            lines += _branch(source, "└─ " if last else "├─ ", "   " if last else "│  ")
        if self.rejected:
            lines.append(f"{self.rejected} episodes or rows were left out; `record.json` says why, one by one.")
        return "\n".join(lines)


def mix_tree(mix: Mix, *, first: int | None = None) -> MixTree:
    """Count the first `first` draws (default: one whole pass) as they are really taken, beside what was locked.

    Raises MixError for fewer than one draw.
    """
    count = mix.num_samples if first is None else first
    if count < 1:
        raise MixError(f"can not observe {count} draws. Ask for 1 or more.")
    locks = mix.lock.sources
    tokens = [mix.reader(lock.name).tokens for lock in locks]
    seen = [np.zeros(lock.num_items, dtype=np.bool_) for lock in locks]
    draws, said = [0] * len(locks), [0] * len(locks)
    for start in range(0, count, 1 << 16):
        block = mix.draws(start, min(1 << 16, count - start))
        for number in range(len(locks)):
            items = block.item[block.source == number]
            draws[number] += len(items)
            said[number] += int(tokens[number][items].sum())
            seen[number][items] = True
    rows = tuple(
        _shares(mix, number, draws[number] / count, (draws[number], said[number]), sum(said), int(seen[number].sum()))
        for number in range(len(locks))
    )
    longest: Any = mix.record.notes.get("longest_chat_tokens", {})
    return MixTree(
        ref=str(mix.ref),
        fingerprint=mix.fingerprint,
        seed=mix.lock.spec.seed,
        num_samples=mix.num_samples,
        image_size=mix.lock.spec.image_size,
        observed=count,
        longest_chat_tokens=longest,
        rejected=len(mix.record.rejected),
        sources=rows,
    )


def tree(mix: Mix, *, first: int | None = None) -> str:
    """The mix as a text tree with stated, resolved and observed ratios."""
    return mix_tree(mix, first=first).render()


def _shares(
    mix: Mix, number: int, observed_share: float, observed: tuple[int, int], all_tokens: int, distinct: int
) -> SourceShares:
    source, lock = mix.lock.spec.sources[number], mix.lock.sources[number]
    if source.weight is not None:
        stated_share = source.weight / sum(each.weight or 0.0 for each in mix.lock.spec.sources)
    else:
        passes = [
            (each.epochs or 0.0) * row.num_items
            for each, row in zip(mix.lock.spec.sources, mix.lock.sources, strict=True)
        ]
        stated_share = passes[number] / sum(passes)
    return SourceShares(
        name=lock.name,
        kind=lock.kind,
        stated=lock.stated,
        stated_as="weight" if source.weight is not None else "epochs",
        stated_share=stated_share,
        num_items=lock.num_items,
        num_draws=lock.num_draws,
        repeats=lock.repeats,
        resolved_share=lock.resolved_share,
        observed_draws=observed[0],
        observed_share=observed_share,
        resolved_tokens=lock.supervised_tokens,
        resolved_token_share=lock.supervised_share,
        observed_tokens=observed[1],
        observed_token_share=observed[1] / max(1, all_tokens),
        distinct_items=distinct,
        train_episodes=len(lock.train_episodes),
        validation_episodes=len(lock.validation_episodes),
        inputs=_inputs(mix, number, lock),
    )


def _inputs(mix: Mix, number: int, lock: SourceLock) -> tuple[str, ...]:
    match mix.lock.spec.sources[number]:
        case RobotSource() as source:
            said = f", {source.reasoning} from {source.annotations}" if source.reasoning != "none" else ", no reasoning"
            where = "".join(f", {key} = {value}" for key, value in source.where.items())
            split = f"{len(lock.train_episodes)} training / {len(lock.validation_episodes)} validation episodes"
            return (f"{source.episodes}{said}{where}", split)
        case RenderedSource() as source:
            skills = ", ".join(source.skills) or "all skills"
            return (f"{source.rows_per_skill} rendered questions each of {skills}, packed into the mix",)
        case source:
            return (f"{source.path}, packed into the mix",)


def _branch(source: SourceShares, first: str, rest: str) -> list[str]:
    table = [
        ("", "stated", "resolved", "observed"),
        (
            "samples",
            f"{source.stated_share:.2%}",
            f"{source.resolved_share:.2%} ({source.num_draws})",
            f"{source.observed_share:.2%} ({source.observed_draws})",
        ),
        (
            "supervised tokens",
            "",
            f"{source.resolved_token_share:.2%} ({source.resolved_tokens})",
            f"{source.observed_token_share:.2%} ({source.observed_tokens})",
        ),
    ]
    return [
        f"{first}{source.name} ({source.kind}): {source.stated_as} {source.stated:g}, "
        f"{source.num_items} items, {source.repeats:.2f} repeats, {source.distinct_items} distinct drawn",
        *(f"{rest}   {line}" for line in source.inputs),
        *(f"{rest}   {label:<18}{a:>9}{b:>20}{c:>20}" for label, a, b, c in table),
    ]
