"""Which staged episodes make it into a dataset, which do not and why, and whether too many do not."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dataengine.fitting import layout_difference
from dataengine.sinks.kept import KeptArtifact
from dataengine.sinks.staging import StagedEpisode, load_staged, why_absent
from schemas.errors import ArtifactError, RejectedError, RigError

_HOLDS_IT = "holds this episode already"


def content_of(episode_id: str) -> str:
    """The hash of the raw content in an episode id, without its readable name."""
    return episode_id.rsplit("-", 1)[-1]


def accept(
    root: Path, stamps: dict[str, str], rejected: dict[str, str], base: KeptArtifact | None
) -> tuple[list[StagedEpisode], dict[str, str]]:
    """Staged episodes in natural order; what can not stand in one dataset with the first one is rejected.

    Raises ArtifactError where one that was staged is no longer, or was staged from other raw files, RigError where none
    fits the version that is extended.
    """
    accepted: list[StagedEpisode] = []
    odds: list[str] = []
    reasons = dict(rejected)
    # by content, not by name: a renamed copy of a recording is no second demonstration
    seen = {content_of(part.staged.episode_id): str(base.ref) for part in base.parts} if base else {}
    first, named = (base.parts[0].staged, str(base.ref)) if base else (None, "")
    for name, stamp in stamps.items():
        if name in rejected:
            continue
        staged = load_staged(root, name)
        if staged is None or staged.stamp != stamp:
            reason = why_absent(root, name) or "another run staged it from raw files that have changed since"
            raise ArtifactError(f"{name} was staged, but {reason}. Run the same command again: the others are kept.")
        first, named = (first, named) if first else (staged, staged.name)
        odd = layout_difference(first, staged)
        known = seen.get(content_of(staged.episode_id))
        if base and known == str(base.ref):
            reasons[name] = f"{name}: {base.ref} {_HOLDS_IT}."
        elif odd is not None:
            reasons[name] = f"{name}: {odd} in {named}. Convert it under another name."
            odds.append(reasons[name])
        elif known is not None:
            reasons[name] = f"{name}: the same content as {known}. Remove the copy."
        else:
            accepted.append(staged)
            seen[content_of(staged.episode_id)] = name
    if base and odds and not accepted:
        raise RigError(odds[0])
    return accepted, reasons


def known_before(reasons: dict[str, str], base: KeptArtifact | None) -> set[str]:
    """Episodes that are left out because the older version holds them: nothing is lost by that."""
    return {name for name, reason in reasons.items() if base and reason == f"{name}: {base.ref} {_HOLDS_IT}."}


def check_share(
    names: Sequence[str], reasons: dict[str, str], accepted: list[StagedEpisode], max_rejected: float
) -> None:
    num = sum(name in reasons for name in names)
    if not accepted and not names:
        raise RejectedError(
            "the version that is extended holds all of these episodes already. There is nothing to add."
        )
    if accepted and num <= max_rejected * len(names) + 1e-9:
        return
    rows = [(_kind_of(name, reasons[name]), name) for name in names if name in reasons]
    kinds = Counter(kind for kind, _ in rows)
    first = dict(reversed(rows))
    parts = [
        f"{count}: {kind}, e.g. {first[kind]}" if count > 1 else reasons[first[kind]].rstrip(".")
        for kind, count in kinds.most_common(3)
    ]
    listing = "; ".join(parts) + ("; ..." if len(kinds) > len(parts) else "")
    allow = f", or allow it with --max-rejected {_percent(num, len(names))}%" if accepted else ""
    raise RejectedError(f"{num} of {len(names)} episodes were rejected ({listing}). Fix them{allow}.")


def _percent(num: int, total: int) -> int:
    """The smallest round share that lets `num` pass: 100 for most of them, else the next whole percent."""
    share = -(-100 * num // total)
    return 100 if share > 50 else share


def _kind_of(name: str, reason: str) -> str:
    """A reason without the episode's name, paths and numbers, to count equal ones."""
    text = reason.removeprefix(f"{name}: ")
    text = re.split(r"\. (?=[A-Z])", text, maxsplit=1)[0].rstrip(".")
    text = " ".join(word for word in text.replace(name, "it").split() if "/" not in word)
    return re.sub(r"\d+(\.\d+)?", "N", text)
