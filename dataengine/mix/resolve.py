"""From weights or epochs to whole draws per source: what one pass of the mix takes, exactly."""

from collections.abc import Sequence
from fractions import Fraction

from schemas.errors import MixError
from schemas.mixes import MixSpec


def resolve_draws(spec: MixSpec, num_items: Sequence[int]) -> tuple[int, ...]:
    """Draws per source in one pass of the mix.

    Weights are shares of `num_samples`, rounded by largest remainder; epochs are passes over a source's training
    items, rounded to whole draws. Raises MixError where a source would get nothing, or be repeated beyond its cap.
    """
    if spec.sources[0].weight is not None:
        total = spec.num_samples
        if total is None:  # the spec checks this; said again for the type checker
            raise MixError("weights need num_samples: how many samples one pass of the mix holds.")
        draws = largest_remainder([source.weight or 0.0 for source in spec.sources], total)
    else:
        draws = tuple(
            int(Fraction(source.epochs or 0.0) * count + Fraction(1, 2))
            for source, count in zip(spec.sources, num_items, strict=True)
        )
        if spec.num_samples is not None and spec.num_samples != sum(draws):
            raise MixError(
                f"num_samples is {spec.num_samples}, but the epochs come to {sum(draws)} samples. "
                "Leave num_samples out, or give weights."
            )
    for source, count, drawn in zip(spec.sources, num_items, draws, strict=True):
        if drawn == 0:
            raise MixError(
                f"source '{source.name}' gets 0 of {sum(draws)} samples. Raise its weight or epochs, or num_samples."
            )
        if drawn > source.max_repeats * count:
            raise MixError(
                f"source '{source.name}' would be drawn {drawn} times from {count} items "
                f"({drawn / count:.1f} repeats), over its cap max_repeats {source.max_repeats:g}. "
                "Lower its weight or epochs, add data, or raise max_repeats."
            )
    return draws


def largest_remainder(shares: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers that sum to `total` and lie within 1 of each exact share; ties go to the earlier one."""
    exact = [Fraction(share) * total / sum(map(Fraction, shares)) for share in shares]
    floors = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: (floors[index] - exact[index], index))
    for index in by_remainder[: total - sum(floors)]:
        floors[index] += 1
    return tuple(floors)
