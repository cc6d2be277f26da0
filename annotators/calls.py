"""Every VLM call, by what was asked: the raw answer is durable before anything parses it.

The key is the sha256 of the canonical request (exact image bytes hashed, model, revision, prompt hash, schema, decode
parameters), so a re-run costs nothing and a new parser needs no new calls. Only the driver process opens this store.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from sqlalchemy import Column, Engine, Integer, MetaData, Row, String, Table, Text, func, insert, select, update

from annotators.ledger.engine import migrate, open_engine, reading, writing
from annotators.ledger.tables import NAMING
from schemas.errors import BackendError

CallOutcome = Literal["success", "truncated", "blocked", "invalid", "error", "skipped"]
_ASK_AGAIN = ("error", "skipped")  # nothing was answered, so nothing is cached
METADATA = MetaData(naming_convention=NAMING)
CALLS = Table(
    "calls",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("outcome", String(16), nullable=False, index=True),
    Column("request_json", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("raw_json", Text, nullable=False),
    Column("finish_reason", String(64)),
    Column("input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created", String(32), nullable=False),  # ISO 8601, UTC
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What a backend sent back, untouched.

    `text` is the answer's words (or the error's, for outcome "error"), `raw_json` the whole response as received.
    """

    outcome: CallOutcome
    text: str
    raw_json: str = ""
    finish_reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0

    def __post_init__(self) -> None:
        if self.outcome not in get_args(CallOutcome):
            raise BackendError(f"'{self.outcome}' is no call outcome. Use one of {', '.join(get_args(CallOutcome))}.")


class CallStore:
    """A database of calls; safe to share between threads of one process, and between processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "CallStore":
        """Open or create the store at a SQLAlchemy URL (usually `workspace.calls_url`)."""
        engine = open_engine(url)
        migrate(engine, Path(__file__).parent / "calls_migrations")
        return cls(engine)

    def get(self, key: str) -> RawAnswer | None:
        """The stored answer; None when it was never asked, or when the last try brought no answer at all."""
        with reading(self._engine) as connection:
            row = connection.execute(
                select(CALLS).where(CALLS.c.key == key, CALLS.c.outcome.not_in(_ASK_AGAIN))
            ).one_or_none()
        return None if row is None else _answer(row)

    def put(self, key: str, request_json: str, answer: RawAnswer) -> RawAnswer:
        """Store an answer durably and return the one that stands: the first real answer is never replaced."""
        values = {
            "outcome": answer.outcome,
            "request_json": request_json,
            "text": answer.text.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # PostgreSQL stores no NUL
            "raw_json": answer.raw_json.replace("\0", "\N{REPLACEMENT CHARACTER}"),
            "finish_reason": answer.finish_reason,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        with writing(self._engine) as connection:
            row = connection.execute(select(CALLS).where(CALLS.c.key == key).with_for_update()).one_or_none()
            if row is None:
                connection.execute(insert(CALLS).values(key=key, attempts=1, **values))
            elif row.outcome in _ASK_AGAIN:
                connection.execute(update(CALLS).where(CALLS.c.key == key).values(attempts=row.attempts + 1, **values))
            else:
                return _answer(row)
        return answer

    def request(self, key: str) -> str | None:
        """The canonical request that was sent under a key."""
        with reading(self._engine) as connection:
            return connection.execute(select(CALLS.c.request_json).where(CALLS.c.key == key)).scalar()

    def counts(self) -> dict[str, int]:
        """How many calls ended how."""
        query = select(CALLS.c.outcome, func.count()).group_by(CALLS.c.outcome).order_by(CALLS.c.outcome)
        with reading(self._engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def __enter__(self) -> "CallStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _answer(row: Row[tuple[object, ...]]) -> RawAnswer:
    return RawAnswer(
        outcome=row.outcome,
        text=row.text,
        raw_json=row.raw_json,
        finish_reason=row.finish_reason,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
    )
