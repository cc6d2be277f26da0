"""Does the ledger still say what was said? Everything is replayed from the first row and compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from annotators.ledger import decisions, store
from annotators.ledger.proposal_facts import saw_hash
from annotators.ledger.rows import StoredDecision
from annotators.ledger.tables import APPEND_ONLY, ASSIGNMENTS, DECISIONS, PROPOSALS, SIGHTINGS, VERIFIER_RESULTS
from schemas.annotations import Proposal, VerifierResult
from schemas.errors import LedgerError

_NUMBERED = (
    PROPOSALS,
    VERIFIER_RESULTS,
    SIGHTINGS,
    ASSIGNMENTS,
    DECISIONS,
)  # tables that take their `seq` from one counter
_BACKUP = "Restore the ledger from a backup."


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit saw, and in one sentence each what does not fit."""

    seq: int
    num_proposals: int
    num_decisions: int
    last_hash: str  # of the chain: written down elsewhere, it shows a ledger that was replaced whole
    problems: tuple[str, ...]


def audit(connection: Connection) -> Audit:
    """Check the chain of decisions, the ids of proposals, that no numbered row is gone, the triggers, and the items."""
    chain = store.load_decisions(connection)
    newest = store.current(connection)

    def items() -> None:
        store.check_projection(connection, store.load_histories(connection, newest))

    checks: tuple[Callable[[], None], ...] = (
        lambda: decisions.check_chain(chain, store.current(connection, "decisions")),
        lambda: _check_proposals(connection),
        lambda: _check_results(connection, chain),
        lambda: _check_numbers(connection, newest),
        lambda: _check_triggers(connection),
        items,
    )
    problems = []
    for check in checks:
        try:
            check()
        except LedgerError as error:
            problems.append(str(error))
    return Audit(
        seq=newest,
        num_proposals=len(connection.execute(select(PROPOSALS.c.seq)).all()),
        num_decisions=len(chain),
        last_hash=chain[-1].hash if chain else store.GENESIS,
        problems=tuple(problems),
    )


def _check_proposals(connection: Connection) -> None:
    """A proposal's id is the hash of its words."""
    for row in connection.execute(select(PROPOSALS.c.proposal_id, PROPOSALS.c.body_json)):
        if Proposal.model_validate_json(row.body_json).proposal_id != row.proposal_id:
            raise LedgerError(f"proposal {row.proposal_id} was changed after it was made. {_BACKUP}")


def _check_results(connection: Connection, chain: Sequence[StoredDecision]) -> None:
    """What the verifiers had said about a proposal is what its reviewer saw."""
    table = VERIFIER_RESULTS.c
    said: dict[str, list[tuple[int, VerifierResult]]] = {}
    for row in connection.execute(select(VERIFIER_RESULTS).order_by(table.seq)):
        said.setdefault(row.proposal_id, []).append((row.seq, VerifierResult.model_validate_json(row.body_json)))
    for decision in chain:
        before = [found for seq, found in said.get(decision.base_proposal_id, []) if seq < decision.seq]
        newest = {found.verifier: found for found in before}
        if decision.saw_hash not in (None, saw_hash(tuple(newest.values()))):
            raise LedgerError(
                f"what the verifiers said was changed after decision {decision.decision_id} by {decision.reviewer}. "
                f"{_BACKUP}"
            )


def _check_numbers(connection: Connection, newest: int) -> None:
    """Every number up to the newest belongs to one row: a number is taken in the transaction that stores its row."""
    found = sorted(number for table in _NUMBERED for number in connection.execute(select(table.c.seq)).scalars())
    for expected, number in enumerate([*found, newest + 1], 1):
        if number != expected:
            what = "is gone" if number > expected else "was never given, or is there twice"
            raise LedgerError(f"the row with seq {min(number, expected)} {what}. {_BACKUP}")


def _check_triggers(connection: Connection) -> None:
    """Each append-only table still refuses to be changed."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        wanted = {f"{table}_no_{change}" for table in APPEND_ONLY for change in ("update", "delete")}
    else:
        query = (
            "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
            "JOIN pg_namespace ON pg_namespace.oid = relnamespace "  # another schema may hold another ledger
            "WHERE NOT tgisinternal AND tgenabled <> 'D' AND nspname = current_schema()"
        )
        wanted = {f"{table}_append_only" for table in APPEND_ONLY}
    missing = wanted - set(connection.execute(text(query)).scalars())
    if missing:
        raise LedgerError(f"the triggers {', '.join(sorted(missing))} are gone, so rows can be changed. {_BACKUP}")
