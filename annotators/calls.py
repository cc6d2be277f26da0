"""Every VLM call, by what was asked: the raw answer is durable before anything parses it.

The key is the sha256 of the canonical request (exact image bytes hashed, model, revision, prompt hash, schema, decode
parameters), so a re-run costs nothing and a new parser needs no new calls. Only the driver process opens this store.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

from sqlalchemy import Column, Engine, Executable, Integer, MetaData, Row, String, Table, Text, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from annotators.ledger.engine import migrate, open_engine, reading, writing
from annotators.ledger.tables import NAMING
from schemas.errors import BackendError

CallOutcome = Literal["success", "truncated", "blocked", "invalid", "error", "skipped"]
_ASK_AGAIN = ("error", "skipped")  # nothing was answered, so nothing is cached
_KEYS_PER_QUERY = 500  # databases limit how many values one query may name
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
        self._put = _put_statement(engine.dialect.name)

    @classmethod
    def open(cls, url: str) -> "CallStore":
        """Open or create the store at a SQLAlchemy URL (usually `workspace.calls_url`)."""
        engine = open_engine(url)
        migrate(engine, Path(__file__).parent / "calls_migrations")
        return cls(engine)

    def get(self, key: str) -> RawAnswer | None:
        """The stored answer; None when it was never asked, or when the last try brought no answer at all."""
        return self.get_all([key]).get(key)

    def get_all(self, keys: Sequence[str]) -> dict[str, RawAnswer]:
        """The stored answers of those that have one."""
        found: dict[str, RawAnswer] = {}
        with reading(self._engine) as connection:
            for some in batched(keys, _KEYS_PER_QUERY):
                query = select(CALLS).where(CALLS.c.key.in_(some), CALLS.c.outcome.not_in(_ASK_AGAIN))
                found |= {row.key: _answer(row) for row in connection.execute(query)}
        return found

    def put(self, key: str, request_json: str, answer: RawAnswer) -> RawAnswer:
        """Store an answer durably and return the one that stands: the first real answer is never replaced."""
        return self.put_all([(key, request_json, answer)])[0]

    def put_all(self, calls: Sequence[tuple[str, str, RawAnswer]]) -> list[RawAnswer]:
        """Store (key, canonical request, answer) of several calls in one transaction; no key may come twice.

        Returns the answers that stand, in the same order.
        """
        # In the order of their keys: two processes that write the same rows must not wait for each other.
        rows = [
            {"key": key, "attempts": 1, **_values(asked, answer)}
            for key, asked, answer in sorted(calls, key=itemgetter(0))
        ]
        with writing(self._engine) as connection:
            if rows and connection.execute(self._put, rows).rowcount == len(rows):
                return [answer for _, _, answer in calls]
            there = {
                row.key: _answer(row)
                for some in batched([key for key, _, _ in calls], _KEYS_PER_QUERY)
                for row in connection.execute(select(CALLS).where(CALLS.c.key.in_(some)))
            }
        return [there[key] for key, _, _ in calls]

    def request(self, key: str) -> str | None:
        """The canonical request that was sent under a key."""
        with reading(self._engine) as connection:
            return connection.execute(select(CALLS.c.request_json).where(CALLS.c.key == key)).scalar()

    def schema_names(self, keys: Sequence[str]) -> dict[str, str]:
        """What the answers of some calls were to be: the name of the schema that was sent, by key."""
        found: dict[str, str] = {}
        with reading(self._engine) as connection:
            for some in batched(keys, _KEYS_PER_QUERY):
                query = select(CALLS.c.key, CALLS.c.request_json).where(CALLS.c.key.in_(some))
                found |= {key: json.loads(asked)["schema_name"] for key, asked in connection.execute(query)}
        return found

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


def _put_statement(dialect: str) -> Executable:
    """One statement, built once: a slot at the server stays empty for as long as an answer is being stored.

    It counts the rows it wrote, and leaves alone those that hold a real answer.
    """
    row = sqlite.insert(CALLS) if dialect == "sqlite" else postgresql.insert(CALLS)
    fresh = {name: row.excluded[name] for name in CALLS.columns.keys() if name not in ("key", "attempts")}  # noqa: SIM118 - columns are no dict
    return row.on_conflict_do_update(
        index_elements=[CALLS.c.key],
        set_={"attempts": CALLS.c.attempts + 1, **fresh},
        where=or_(*(CALLS.c.outcome == outcome for outcome in _ASK_AGAIN)),
    ).execution_options(preserve_rowcount=True)


def _values(request_json: str, answer: RawAnswer) -> dict[str, object]:
    return {
        "outcome": answer.outcome,
        "request_json": request_json,
        "text": answer.text.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # PostgreSQL stores no NUL
        "raw_json": answer.raw_json.replace("\0", "\N{REPLACEMENT CHARACTER}"),
        "finish_reason": answer.finish_reason,
        "input_tokens": answer.input_tokens,
        "output_tokens": answer.output_tokens,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _answer(row: Row[tuple[object, ...]]) -> RawAnswer:
    return RawAnswer(
        outcome=row.outcome,
        text=row.text,
        raw_json=row.raw_json,
        finish_reason=row.finish_reason,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
    )
