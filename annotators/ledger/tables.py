"""The ledger's tables.

`proposals`, `verifier_results` and `decisions` are append-only (triggers refuse UPDATE and DELETE) and numbered by one
counter, so that "everything up to seq N" is one state of the ledger. `items` is a projection of them plus leases, and
can be rebuilt. `accounts` and `sessions` say who may work with it now.
"""

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text
from sqlalchemy import UniqueConstraint as Unique

NAMING = {  # without names a constraint can not be dropped by a later migration
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
METADATA = MetaData(naming_convention=NAMING)
APPEND_ONLY = ("runs", "proposals", "verifier_results", "decisions", "sightings", "assignments", "remarks")

COUNTERS = Table(
    "counters",
    METADATA,
    Column("name", String(32), primary_key=True),  # "seq": last number given; "decisions": how many there must be
    Column("value", BigInteger, nullable=False),
)
RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("recipe_json", Text, nullable=False),
    Column("created", String(32), nullable=False),  # ISO 8601, UTC
)
ITEMS = Table(
    "items",
    METADATA,
    Column("item_id", String(64), primary_key=True),
    Column("episode_id", String(255), nullable=False),
    Column("stamp_ns", BigInteger, nullable=False),
    Column("field", String(32), nullable=False),
    Column("head_proposal_id", String(64)),  # the newest proposal; null only inside the transaction that adds it
    Column("rank", Integer, nullable=False),  # order of review: 0 fail, 1 disagreement, 2 unknown, 3 rare, 4 rest
    Column("status", String(16), nullable=False),  # open, accepted, edited, rejected, skipped, disputed
    Column("conflict", Boolean, nullable=False),  # a newer proposal differs from what a person decided
    Column("decided_by", String(255)),
    Column("skipped_by", String(255), nullable=False),  # who set it aside last; empty when nobody
    Column("num_decisions", Integer, nullable=False),  # the item's revision, as a reviewer saw it
    Column("now_json", Text),  # hashes of its episode as the ledger was last told; null when it never was
    Column("stale", Text, nullable=False),  # why what is said no longer fits; empty when it does
    Column("lease_owner", String(255)),
    Column("lease_until_ms", BigInteger, nullable=False),
    Unique("episode_id", "stamp_ns", "field"),
    Column("waits", String(16), nullable=False, server_default=""),  # review, gold, adjudication; empty when settled
    Column("family", String(255), nullable=False, server_default=""),  # what queues are filtered by, of the newest...
    Column("annotator", String(255), nullable=False, server_default=""),  # ...proposal: who made it,
    Column("stratum", String(64), nullable=False, server_default=""),  # what kind of scene it is about,
    Column("doubts", Text, nullable=False, server_default=""),  # |names| of verifiers that did not pass
    Column("audit", String(8), nullable=False, server_default=""),  # what a person's look showed; see strata.audit_of
    Index("ix_items_queue", "waits", "rank", "item_id"),
    Index("ix_items_stratum", "field", "stratum"),
    Index("ix_items_lease_owner", "lease_owner"),
)
PROPOSALS = Table(
    "proposals",
    METADATA,
    Column("proposal_id", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("run_id", String(64), ForeignKey("runs.run_id"), nullable=False),
    Column("item_id", String(64), ForeignKey("items.item_id"), nullable=False, index=True),
    Column("episode_id", String(255), nullable=False, index=True),
    Column("field", String(32), nullable=False),
    Column("body_json", Text, nullable=False),
    Column("created", String(32), nullable=False),
)
VERIFIER_RESULTS = Table(
    "verifier_results",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("proposal_id", String(64), ForeignKey("proposals.proposal_id"), nullable=False, index=True),
    Column("verifier", String(128), nullable=False),
    Column("body_json", Text, nullable=False),
)
SIGHTINGS = Table(  # what an episode was like when a program said this of it; the same words may be said again
    "sightings",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("proposal_id", String(64), ForeignKey("proposals.proposal_id"), nullable=False, index=True),
    Column("hashes_json", Text, nullable=False),
)
DECISIONS = Table(
    "decisions",
    METADATA,
    Column("decision_id", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("item_id", String(64), ForeignKey("items.item_id"), nullable=False, index=True),
    Column("base_proposal_id", String(64), ForeignKey("proposals.proposal_id"), nullable=False),
    Column("action", String(16), nullable=False),
    Column("payload_json", Text),  # only for edits
    Column("undoes", String(64), ForeignKey("decisions.decision_id")),
    Column("reviewer", String(255), nullable=False, index=True),
    Column("note", Text, nullable=False),
    Column("seen_json", Text),  # hashes of the episode as the reviewer saw it; null in older ledgers
    Column("lead_time_ms", BigInteger, nullable=False),
    Column("idem_key", String(255), nullable=False, unique=True),
    Column("created", String(32), nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("track", String(16), nullable=False, server_default="review"),  # or adjudication
    Column("saw_hash", String(64)),  # of what the verifiers said to the reviewer; null in older ledgers
    Column("guideline", String(255)),  # the version of the guideline beside the item; null in older ledgers
    Column("reason", String(64)),  # of a reject, from a short list; null where none was named
    Column("ticked", Text),  # names of the fields that were accepted one by one; null where none was
    Column("basis", String(8), nullable=False, server_default="look"),  # or batch: nobody looked at this one
)
ASSIGNMENTS = Table(  # how an item is reviewed from now on; without one, one person decides
    "assignments",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("item_id", String(64), ForeignKey("items.item_id"), nullable=False, index=True),
    Column("overlap", Integer, nullable=False),  # how many people decide, each without seeing the others
    Column("gold", String(64), ForeignKey("decisions.decision_id")),  # the decision that is the truth
    Column("created", String(32), nullable=False),
)
VOTES = Table(  # whose decision about a shared item counts now; derived, like `items`
    "votes",
    METADATA,
    Column("reviewer", String(255), primary_key=True),
    Column("item_id", String(64), ForeignKey("items.item_id"), primary_key=True, index=True),
)
STRATA = Table(  # how many items of a field are of one kind of scene; derived, like `items`
    "strata",
    METADATA,
    Column("field", String(32), primary_key=True),
    Column("stratum", String(64), primary_key=True),
    Column("num_items", Integer, nullable=False),
    Column("is_rare", Boolean, nullable=False),
)
SCOPES = Table(  # sets of episodes that pages work on: too many to send with every question
    "scopes",
    METADATA,
    Column("scope", String(64), primary_key=True),  # hash of the set
    Column("episode_id", String(255), primary_key=True),
)
DRAFTS = Table(  # what somebody typed and did not decide; the one table besides leases whose rows change and go
    "drafts",
    METADATA,
    Column("reviewer", String(255), primary_key=True),
    Column("item_id", String(64), ForeignKey("items.item_id"), primary_key=True, index=True),
    Column("key", String(64), nullable=False),  # of the showing in which it was typed
    Column("base_proposal_id", String(64), nullable=False),  # what the draft's writer saw...
    Column("revision", Integer, nullable=False),  # ...and how many decisions
    Column("shown_ms", BigInteger, nullable=False),  # when the item was shown to them
    Column("sequence", BigInteger, nullable=False),  # counts what they changed since; the last one is kept
    Column("body_json", Text, nullable=False),
    Column("saved", String(32), nullable=False),  # ISO 8601, UTC
)
REMARKS = Table(  # what people say about an item without deciding
    "remarks",
    METADATA,
    Column("remark_id", String(64), primary_key=True),  # sending one twice counts once
    Column("item_id", String(64), ForeignKey("items.item_id"), nullable=False, index=True),
    Column("reviewer", String(255), nullable=False),
    Column("kind", String(16), nullable=False),  # flag or comment
    Column("words", Text, nullable=False),
    Column("created", String(32), nullable=False),
)
ACCOUNTS = Table(
    "accounts",
    METADATA,
    Column("name", String(255), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text, nullable=False),  # argon2, with its own salt and cost
    Column("created", String(32), nullable=False),
    Column("failures", Integer, nullable=False),  # wrong passwords since the last right one
    Column("locked_until_ms", BigInteger, nullable=False),
)
SESSIONS = Table(
    "sessions",
    METADATA,
    Column("secret_hash", String(64), primary_key=True),  # who reads the database can not log in with it
    Column("name", String(255), ForeignKey("accounts.name"), nullable=False, index=True),
    Column("until_ms", BigInteger, nullable=False),
)
