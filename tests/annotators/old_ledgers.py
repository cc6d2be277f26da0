"""Ledgers as earlier versions left them: written by SQL, hashed by code that shares nothing with ours."""

import hashlib
import json
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from ledger_rows import proposal
from sqlalchemy import MetaData, insert, text

from annotators.ledger.engine import open_engine
from annotators.ledger.ledger import MIGRATIONS

REVISIONS = [script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()][1:]  # but the newest


def write_old_ledger(url: str, revision: str) -> None:
    """One proposal with a result, accepted by alice, as a ledger of that revision holds it."""
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect().execution_options(write=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        found = MetaData()
        found.reflect(connection)
        connection.execute(text("UPDATE counters SET value = CASE name WHEN 'seq' THEN 3 ELSE 1 END"))
        for name, row in _rows().items():
            columns = found.tables[name].columns.keys()
            connection.execute(insert(found.tables[name]).values({key: row[key] for key in row if key in columns}))
    engine.dispose()


def _rows() -> dict[str, dict[str, Any]]:
    """Rows by table, in the order in which they refer to each other; columns a revision lacks are left out."""
    said = proposal("episode_0")
    item, found = (
        "i" * 64,
        {"verifier": "arithmetic", "version": 1, "verdict": "pass", "hard": True, "evidence": "fits"},
    )
    link = {
        "seq": 3,
        "decision_id": "d" * 24,
        "item_id": item,
        "base_proposal_id": said.proposal_id,
        "action": "accept",
        "undoes": None,
        "reviewer": "alice",
        "note": "",
        "lead_time_ms": 5,
        "idem_key": "k",
        "created": "then",
        "prev_hash": "0" * 64,
    }
    spelled = json.dumps(link | {"payload": None}, sort_keys=True, separators=(",", ":"))
    return {
        "runs": {"run_id": "run", "kind": "annotate", "recipe_json": "{}", "created": "then"},
        "items": {
            "item_id": item,
            "episode_id": "episode_0",
            "stamp_ns": 0,
            "field": "trace",
            "head_proposal_id": said.proposal_id,
            "rank": 3,
            "status": "accepted",
            "conflict": False,
            "decided_by": "alice",
            "skipped_by": "",
            "num_decisions": 1,
            "lease_until_ms": 0,
            "stale": "",
        },
        "proposals": {
            "proposal_id": said.proposal_id,
            "seq": 1,
            "run_id": "run",
            "item_id": item,
            "episode_id": "episode_0",
            "field": "trace",
            "body_json": json.dumps(said.model_dump(mode="json")),
            "created": "then",
        },
        "verifier_results": {
            "seq": 2,
            "proposal_id": said.proposal_id,
            "verifier": "arithmetic",
            "body_json": json.dumps(found),
        },
        "decisions": link | {"payload_json": None, "hash": hashlib.sha256(spelled.encode()).hexdigest()},
    }
