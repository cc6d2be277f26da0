"""What an annotation run did, in counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from annotators.estimate import CallEstimate
from annotators.structure import counted
from annotators.vlm.blank_probe import BlankProbe
from annotators.vlm.mending import MendingClient
from annotators.vlm.stored import StoredClient
from schemas.annotations import Proposal, Verdict, VerifierResult
from schemas.records import RejectedRow

_MOST_ROWS = 5  # of one kind that the summary names


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCounts:
    """What asking a model took."""

    made: int = 0
    cached: int = 0
    mended: int = 0  # answers that were cut off or not in form, and asked about once more
    answers: int = 0
    off_schema: int = 0  # of those: what no server says that holds answers to the schema it is sent
    input_tokens: int = 0  # of the calls made, as the server counts
    output_tokens: int = 0
    blank: int = 0  # calls repeated with blank pictures, and answered
    blank_same: int = 0  # of those: the same answer without pixels
    cost: float | None = None  # None where no price was named

    @classmethod
    def of(
        cls, stored: StoredClient | None, mending: MendingClient | None, probe: BlankProbe, cost: float | None
    ) -> "CallCounts":
        """The counts of two clients; none where nobody was asked."""
        if stored is None or mending is None:
            return cls()
        return cls(
            made=stored.num_made,
            cached=stored.num_cached,
            mended=mending.num_mended,
            answers=mending.num_answers,
            off_schema=mending.num_off_schema,
            input_tokens=stored.input_tokens,
            output_tokens=stored.output_tokens,
            blank=probe.num_asked,
            blank_same=probe.num_same,
            cost=cost,
        )

    def lines(self) -> list[str]:
        """For people."""
        if not self.made and not self.cached:
            return []
        cost = "" if self.cost is None else f"; {self.cost:.4g} spent"
        lines = [f"tokens: {self.input_tokens:,} in, {self.output_tokens:,} out{cost}"] if self.made else []
        if self.off_schema:
            lines.append(
                f"the server does not hold answers to the JSON schema it is sent: {self.off_schema} of {self.answers} "
                f"were not the bare JSON asked for. What could not be read cost a second call"
            )
        if self.blank_same:
            lines.append(
                f"the model is not looking: {self.blank_same} of {counted(self.blank, 'call')} made again with blank "
                f"pictures got the same answer. What it said of these episodes is marked by 'looking'"
            )
        elif self.blank:
            lines.append(f"it looks: {counted(self.blank, 'call')} repeated with blank pictures got other answers")
        return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateReport:
    """What one run did, in counts."""

    run_id: str | None  # None for a dry run, or when nothing was left to do
    dry_run: bool
    num_episodes: int  # asked for
    num_skipped: int  # the same words are in the ledger already
    num_proposed: int  # episodes for which this run proposed every field
    num_new_proposals: int
    planned: CallEstimate | None  # of a dry run that would ask a model
    calls: CallCounts
    stopped: str  # why the run ended before its episodes did; empty when it did not
    call_outcomes: dict[str, int]
    answers_invalid: int  # answered, but not in the asked form
    fields: dict[str, int]
    verdicts: dict[str, dict[str, int]]  # field -> worst verdict -> proposals
    verifiers: dict[str, dict[str, int]]  # verifier -> verdict -> proposals
    failures: tuple[RejectedRow, ...]
    refused_wordings: tuple[RejectedRow, ...]  # a model's, that change a fact; they are in the notes too, unused
    num_blank: int  # items of failed episodes that people write from nothing

    @property
    def num_left(self) -> int:
        """Episodes that another run would annotate."""
        return self.num_episodes - self.num_skipped - self.num_proposed

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "planned": asdict(self.planned) if self.planned else None,
            "calls": asdict(self.calls),
            "failures": [row.model_dump() for row in self.failures],
            "refused_wordings": [row.model_dump() for row in self.refused_wordings],
        }

    def summary(self) -> str:
        """A few lines for people."""
        todo = self.num_episodes - self.num_skipped
        if self.dry_run:
            calls = self.planned.words() if self.planned else "no calls"
            return f"{todo} of {self.num_episodes} episodes would be annotated, with {calls}. Nothing was done."
        there = f", {self.num_skipped} were already there" if self.num_skipped else ""
        lines = [f"{self.num_proposed} of {self.num_episodes} episodes annotated{there}."]
        lines += [f"{name}: {_counts(counts)}" for name, counts in sorted(self.verifiers.items())]
        if self.calls.made or self.calls.cached:
            lines.append(
                f"calls: {self.calls.made} made, {self.calls.cached} from the store; {_counts(self.call_outcomes)}; "
                f"{self.calls.mended} asked once more, {self.answers_invalid} answers not in the asked form"
            )
        lines += self.calls.lines()
        lines += _rows("failed", self.failures) + _rows("wording refused", self.refused_wordings)
        if self.num_blank:
            wait = "item of a failed episode waits" if self.num_blank == 1 else "items of failed episodes wait"
            lines.append(f"{self.num_blank} {wait} for a person, who writes what is to be said from nothing")
        if self.stopped:
            lines.append(f"stopped: {self.stopped}. {self.num_left} episodes are left; run it again to go on.")
        return "\n".join(lines)


def _rows(what: str, rows: Sequence[RejectedRow]) -> list[str]:
    lines = [f"{what}: {row.episode}: {row.reason}" for row in rows[:_MOST_ROWS]]
    if len(rows) > _MOST_ROWS:
        lines.append(f"... and {len(rows) - _MOST_ROWS} more of '{what}'; --json names all")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items())) or "none"


@dataclass(slots=True)
class Tally:
    """Counts while a run goes on."""

    num_proposed: int = 0
    num_new: int = 0
    num_blank: int = 0
    invalid: int = 0
    stopped: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    verifiers: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[RejectedRow] = field(default_factory=list)
    refused: list[RejectedRow] = field(default_factory=list)

    def count(self, proposal: Proposal, results: Sequence[VerifierResult]) -> None:
        """Count one judged proposal."""
        self.fields[proposal.field] += 1
        self.verdicts.setdefault(proposal.field, Counter())[worst(results)] += 1
        for result in results:
            self.verifiers.setdefault(result.verifier, Counter())[result.verdict] += 1

    def report(
        self,
        *,
        run_id: str | None,
        dry_run: bool,
        num_episodes: int,
        num_pending: int,
        planned: CallEstimate | None = None,
        calls: CallCounts | None = None,
    ) -> AnnotateReport:
        """The counts, frozen."""
        return AnnotateReport(
            run_id=run_id,
            dry_run=dry_run,
            num_episodes=num_episodes,
            num_skipped=num_episodes - num_pending,
            num_proposed=self.num_proposed,
            num_new_proposals=self.num_new,
            planned=planned,
            calls=calls or CallCounts(),
            stopped=self.stopped,
            call_outcomes=dict(self.outcomes),
            answers_invalid=self.invalid,
            fields=dict(self.fields),
            verdicts={name: dict(counts) for name, counts in self.verdicts.items()},
            verifiers={name: dict(counts) for name, counts in self.verifiers.items()},
            failures=tuple(self.failures),
            refused_wordings=tuple(self.refused),
            num_blank=self.num_blank,
        )


def worst(results: Sequence[VerifierResult]) -> Verdict:
    """The worst of several verdicts; unknown where nobody looked."""
    verdicts = {result.verdict for result in results}
    return "fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "unknown"
