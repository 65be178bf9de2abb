"""The tables. A row is the key, the columns that queries and conditions look at, and the model as one JSON document.

Times are text in the sortable form of ``iso_utc``. Every key starts with the tenant. Text compares by code point in every
dialect, so that orders and pages are the same everywhere. A change here needs a new number in ``migrations``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

METADATA = MetaData()


def _text(length: int) -> TypeEngine[str]:
    # SQLite compares bytes by itself; PostgreSQL would use the locale of the database.
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def _required(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _counted(name: str) -> Column[Any]:
    # The default is for rows that were written before there was the column.
    return Column(name, BigInteger, nullable=False, server_default="0")


_ID = _text(100)
_TIME = _text(27)
_DAY = _text(10)
_SHA256 = _text(64)
_STATUS = _text(20)

SCHEMA_VERSION = Table(
    "schema_version",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    _required("applied_at", _TIME),
)

RUNS = Table(
    "runs",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("status", _STATUS),
    _required("created_at", _TIME),
    # The four below change without the document: they overlay what stands in it.
    _required("updated_at", _TIME),
    _required("version", Integer),
    _required("cost_micro_usd", BigInteger),
    _required("last_seq", Integer),
    # How far a run that is over has come on its way out.
    Column("retention_stage", Integer, nullable=False, server_default="0"),
    _required("document", Text),
    PrimaryKeyConstraint("tenant_id", "run_id"),
    Index("runs_to_retire", "tenant_id", "retention_stage", "updated_at", "run_id"),
    Index("runs_by_age", "tenant_id", "created_at", "run_id"),
    Index("runs_by_status", "status", "tenant_id", "created_at", "run_id"),
)

CLAIMS = Table(
    "claims",
    METADATA,
    _required("tenant_id", _ID),
    _required("subject", _text(200)),
    # The hash of the caller's key: any length, and no text of the caller's in an index.
    _required("key_sha256", _SHA256),
    _required("request_sha256", _SHA256),
    _required("run_id", _ID),
    PrimaryKeyConstraint("tenant_id", "subject", "key_sha256"),
    ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="claims_of_run"),
)

STEPS = Table(
    "steps",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("step_id", _ID),
    _required("item", Integer),
    _required("status", _STATUS),
    _required("attempt", Integer),
    _required("document", Text),
    PrimaryKeyConstraint("tenant_id", "run_id", "step_id", "item"),
    ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="steps_of_run"),
)

EVENTS = Table(
    "events",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("seq", Integer),
    _required("key", _text(300)),
    _required("type", _text(40)),
    _required("at", _TIME),
    _required("data", Text),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
    UniqueConstraint("tenant_id", "run_id", "key", name="events_by_key"),
    ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="events_of_run"),
)

APPROVALS = Table(
    "approvals",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("approval_id", _ID),
    _required("subject", _ID),
    _required("item", Integer),
    _required("status", _STATUS),
    _required("requested_at", _TIME),
    Column("decided_at", _TIME),
    _required("document", Text),
    PrimaryKeyConstraint("tenant_id", "run_id", "approval_id"),
    ForeignKeyConstraint(["tenant_id", "run_id"], ["runs.tenant_id", "runs.run_id"], name="approvals_of_run"),
    Index("approvals_by_status", "tenant_id", "status", "requested_at", "approval_id"),
    Index("approvals_by_decision", "decided_at", "approval_id"),
)

AUDIT_HEADS = Table(
    "audit_heads",
    METADATA,
    Column("tenant_id", _ID, primary_key=True),
    _required("seq", BigInteger),
    _required("hash", _SHA256),
)

AUDIT_RECORDS = Table(
    "audit_records",
    METADATA,
    _required("tenant_id", _ID),
    _required("seq", BigInteger),
    _required("entry_id", _text(400)),
    Column("run_id", _ID),
    _required("document", Text),
    PrimaryKeyConstraint("tenant_id", "seq"),
    UniqueConstraint("tenant_id", "entry_id", name="audit_by_entry"),
    Index("audit_by_run", "tenant_id", "run_id", "seq"),
)

BUDGETS = Table(
    "budgets",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("limit_micro_usd", BigInteger),
    _required("reserved_micro_usd", BigInteger),
    _required("spent_micro_usd", BigInteger),
    # Null: no limit. Those of the day are its tenant's, as they were when the run was admitted.
    Column("limit_tokens", BigInteger),
    _counted("reserved_tokens"),
    _counted("spent_tokens"),
    Column("daily_limit_micro_usd", BigInteger),
    Column("daily_limit_tokens", BigInteger),
    PrimaryKeyConstraint("tenant_id", "run_id"),
)

DAILY_BUDGETS = Table(
    "daily_budgets",
    METADATA,
    _required("tenant_id", _ID),
    _required("day", _DAY),
    _counted("reserved_micro_usd"),
    _counted("spent_micro_usd"),
    _counted("reserved_tokens"),
    _counted("spent_tokens"),
    PrimaryKeyConstraint("tenant_id", "day"),
)

RESERVATIONS = Table(
    "reservations",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("key", _text(300)),
    _required("amount_micro_usd", BigInteger),
    # Null while the money is set aside.
    Column("spent_micro_usd", BigInteger),
    _counted("amount_tokens"),
    Column("spent_tokens", BigInteger),
    # The day it counts into; null where it was made before days had accounts.
    Column("day", _DAY),
    PrimaryKeyConstraint("tenant_id", "run_id", "key"),
    ForeignKeyConstraint(["tenant_id", "run_id"], ["budgets.tenant_id", "budgets.run_id"], name="reservations_of_run"),
)

MODEL_RESULTS = Table(
    "model_results",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("plan_version", Integer),
    _required("node", _ID),
    _required("prompt_sha256", _SHA256),
    _required("requests", Integer),
    # Null until there is a final result.
    Column("document", Text),
    PrimaryKeyConstraint("tenant_id", "run_id", "plan_version", "node", "prompt_sha256"),
)

TENANT_VERSIONS = Table(
    "tenant_versions",
    METADATA,
    _required("tenant_id", _ID),
    _required("version", Integer),
    _required("document", Text),
    _required("sha256", _SHA256),
    _required("changed_by", _text(200)),
    _required("changed_at", _TIME),
    PrimaryKeyConstraint("tenant_id", "version"),
)

RESULT_CACHE = Table(
    "result_cache",
    METADATA,
    _required("tenant_id", _ID),
    _required("asked_sha256", _SHA256),
    _required("run_id", _ID),
    _required("output", Text),
    _required("made_at", _TIME),
    PrimaryKeyConstraint("tenant_id", "asked_sha256"),
    Index("results_of_run", "tenant_id", "run_id"),
)

RUN_KEYS = Table(
    "run_keys",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("key_id", _text(32)),
    _required("kek_id", _text(300)),
    # Base64 of the wrapped data key; null once it is destroyed, and then for good.
    Column("wrapped", Text),
    _required("created_at", _TIME),
    Column("destroyed_at", _TIME),
    # No reference to runs: the key is there before its run, and remembered after it.
    PrimaryKeyConstraint("tenant_id", "run_id"),
    Index("run_keys_by_age", "tenant_id", "created_at", "run_id"),
)

ASSIGNMENTS = Table(
    "assignments",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("key", _text(300)),
    _required("status", _text(20)),
    _required("created_at", _TIME),
    # When the sweep looks at it, if it is still open then.
    _required("look_at", _TIME),
    _required("sent_or_made_at", _TIME),
    Column("ended_at", _TIME),
    _required("document", Text),
    PrimaryKeyConstraint("tenant_id", "run_id", "key"),
    Index("assignments_to_look_at", "status", "look_at"),
    Index("assignments_by_end", "ended_at", "key"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    _required("tenant_id", _ID),
    _required("run_id", _ID),
    _required("seq", Integer),
    _required("at", _TIME),
    _required("document", Text),
    PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
    Index("outbox_by_age", "at", "tenant_id", "run_id"),
)

PERMITS = Table(
    "permits",
    METADATA,
    _required("tenant_id", _ID),
    # In sixty-thousandths of a permit, the unit of a bucket whose rate is given per minute.
    _required("left_over", BigInteger),
    _required("at_ms", BigInteger),
    PrimaryKeyConstraint("tenant_id"),
)
