"""A cheap annotator first, a dearer one where programs doubt what the first one read.

Both speak through `annotate`, each with its own provenance, so both proposals stand in the ledger, and the dearer one's
is the newest. Which episodes are asked about again follows from the ledger alone: a killed run goes on, a run that is
made again asks nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from annotators.annotate import annotate
from annotators.annotate_report import AnnotateReport
from annotators.families import load_family
from annotators.ledger import Ledger, StoredProposal
from annotators.vlm.backends import BackendConfig
from annotators.voice import Voice, speaker_of, spoken
from dataengine.episode_set import EpisodeSet
from dataengine.workspace import Workspace
from schemas.errors import UsageError
from schemas.refs import Ref

# What of a verdict is about reading: where these can not tell, another reader may. A card place that an arm hides stays
# hidden from every reader: that is what it means where the notes about a scene claim no relation.
_ABOUT_READING = frozenset(
    {"arithmetic", "double_reading", "held_object", "looking", "moved_thing", "nouns", "relation"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeReport:
    """What the first annotator did, and what the dearer one did about what programs doubt."""

    first: AnnotateReport
    num_doubted: int  # of a dry run: at most
    then: AnnotateReport | None  # None where nothing was left to doubt

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        then = self.then.to_json() if self.then else None
        return {**self.first.to_json(), "num_doubted": self.num_doubted, "then": then}

    def summary(self) -> str:
        """Lines for people."""
        if self.then is None:
            return f"{self.first.summary()}\nnothing is in doubt; the second annotator was not asked."
        verb = "may be" if self.first.dry_run else "is" if self.num_doubted == 1 else "are"
        gone = f"{self.num_doubted} episodes {verb} in doubt and go on"
        if self.num_doubted == 1:
            gone = f"1 episode {verb} in doubt and goes on"
        return f"{self.first.summary()}\n{gone}:\n{self.then.summary()}"


def annotate_cascade(
    *,
    episodes: Ref,
    workspace: Workspace,
    family: str = "math-matching",
    backend: BackendConfig,
    then: BackendConfig,
    ledger: Ledger,
    workers: int | None = None,
    ray_address: str | None = None,
    episode_ids: Sequence[str] | None = None,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> CascadeReport:
    """Let `backend` speak about every episode, and `then` about those whose reading a program doubts.

    Raises UsageError where both are the same; otherwise what `annotate` raises.
    """
    if backend == then:
        raise UsageError("the second annotator is the first one again. Name another one after --then.")
    opened = EpisodeSet.open(workspace, episodes)
    wanted = [opened.row(name).episode_id for name in (opened.ids() if episode_ids is None else episode_ids)]
    first = annotate(
        episodes=episodes,
        workspace=workspace,
        family=family,
        backend=backend,
        ledger=ledger,
        workers=workers,
        ray_address=ray_address,
        episode_ids=wanted,
        dry_run=dry_run,
        leaves_to_people=False,  # what the first one can not say the dearer one may
        on_progress=on_progress,
    )
    doubted = [] if first.stopped else _doubted(workspace, opened, family, backend, ledger, wanted)
    if not doubted:
        return CascadeReport(first=first, num_doubted=0, then=None)
    again = annotate(
        episodes=episodes,
        workspace=workspace,
        family=family,
        backend=then,
        ledger=ledger,
        workers=workers,
        ray_address=ray_address,
        episode_ids=doubted,
        dry_run=dry_run,
        on_progress=on_progress,
    )
    return CascadeReport(first=first, num_doubted=len(doubted), then=again)


def _doubted(
    workspace: Workspace,
    opened: EpisodeSet,
    family: str,
    backend: BackendConfig,
    ledger: Ledger,
    wanted: Sequence[str],
) -> list[str]:
    """Episodes whose first proposals programs doubt, and those that the first annotator left a field of unsaid."""
    task = load_family(family)
    voice = Voice.of(workspace, opened, task, backend, speaker_of(backend) if task.prompts else None)
    now = {name: hashes for name in wanted if (hashes := opened.row(name).hashes) is not None}
    said = spoken(ledger, voice, opened, wanted, now)
    return [
        name
        for name in wanted
        if set(said.get(name, ())) < set(task.file.fields) or any(map(is_doubted, said[name].values()))
    ]


def is_doubted(stored: StoredProposal) -> bool:
    """Whether another reader is worth its price: a hard verifier failed, or one about reading could not tell."""
    about = _ABOUT_READING - {"relation"} if stored.proposal.field == "scene" else _ABOUT_READING
    return any(
        (one.hard and one.verdict == "fail") or (one.verifier in about and one.verdict == "unknown")
        for one in stored.results
    )
