"""What an annotation run did, in counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.annotations import Proposal, Verdict, VerifierResult
from schemas.records import RejectedRow


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotateReport:
    """What one run did, in counts."""

    run_id: str | None  # None for a dry run, or when nothing was left to do
    dry_run: bool
    num_episodes: int  # asked for
    num_skipped: int  # the same words are in the ledger already
    num_proposed: int  # episodes for which this run proposed every field
    num_new_proposals: int
    planned_calls: int  # at most; stored answers make it fewer
    calls_made: int
    calls_cached: int
    call_outcomes: dict[str, int]
    answers_invalid: int  # answered, but not in the asked form
    fields: dict[str, int]
    verdicts: dict[str, dict[str, int]]  # field -> worst verdict -> proposals
    verifiers: dict[str, dict[str, int]]  # verifier -> verdict -> proposals
    failures: tuple[RejectedRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__ if name != "failures"},
            "failures": [row.model_dump() for row in self.failures],
        }

    def summary(self) -> str:
        """A few lines for people."""
        todo = self.num_episodes - self.num_skipped
        if self.dry_run:
            calls = f"at most {self.planned_calls} calls" if self.planned_calls else "no calls"
            return f"{todo} of {self.num_episodes} episodes would be annotated, with {calls}. Nothing was done."
        there = f", {self.num_skipped} were already there" if self.num_skipped else ""
        lines = [f"{self.num_proposed} of {self.num_episodes} episodes annotated{there}."]
        lines += [f"{name}: {_counts(counts)}" for name, counts in sorted(self.verifiers.items())]
        if self.calls_made or self.calls_cached:
            lines.append(
                f"calls: {self.calls_made} made, {self.calls_cached} from the store; {_counts(self.call_outcomes)}; "
                f"{self.answers_invalid} answers not in the asked form"
            )
        lines += [f"failed: {row.episode}: {row.reason}" for row in self.failures[:5]]
        if len(self.failures) > 5:
            lines.append(f"... and {len(self.failures) - 5} more failures")
        return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items())) or "none"


@dataclass(slots=True)
class Tally:
    """Counts while a run goes on."""

    num_proposed: int = 0
    num_new: int = 0
    invalid: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    verifiers: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[RejectedRow] = field(default_factory=list)

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
        planned_calls: int,
        calls_made: int,
        calls_cached: int,
    ) -> AnnotateReport:
        """The counts, frozen."""
        return AnnotateReport(
            run_id=run_id,
            dry_run=dry_run,
            num_episodes=num_episodes,
            num_skipped=num_episodes - num_pending,
            num_proposed=self.num_proposed,
            num_new_proposals=self.num_new,
            planned_calls=planned_calls,
            calls_made=calls_made,
            calls_cached=calls_cached,
            call_outcomes=dict(self.outcomes),
            answers_invalid=self.invalid,
            fields=dict(self.fields),
            verdicts={name: dict(counts) for name, counts in self.verdicts.items()},
            verifiers={name: dict(counts) for name, counts in self.verifiers.items()},
            failures=tuple(self.failures),
        )


def worst(results: Sequence[VerifierResult]) -> Verdict:
    """The worst of several verdicts; unknown where nobody looked."""
    verdicts = {result.verdict for result in results}
    return "fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "unknown"
