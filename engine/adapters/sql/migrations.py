"""Numbered, forward-only migrations. A fresh database gets the tables as they are now and the latest number; an older one gets
the steps it lacks, each once, in one transaction with its number.

There is no way back: the application before a migration refuses a database that is newer than itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, insert, inspect, select, text
from sqlalchemy.schema import CreateColumn

from engine.adapters.sql.tables import (
    APPROVALS,
    ASSIGNMENTS,
    BUDGETS,
    DAILY_BUDGETS,
    METADATA,
    MODEL_RESULTS,
    OUTBOX,
    PERMITS,
    RESERVATIONS,
    RESULT_CACHE,
    RUN_KEYS,
    RUNS,
    SCHEMA_VERSION,
    TENANT_VERSIONS,
)
from engine.adapters.sql.written_once import guard_audit_records
from engine.domain.errors import LivoaError

_ADVISORY_LOCK = 0x4C49564F41  # "LIVOA": any number, as long as every process of this application takes the same


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from ``version - 1`` to ``version``."""

    version: int
    why: str
    apply: Callable[[Connection], None]


def _first(_: Connection) -> None:
    """Nothing to do: version 1 is what a fresh database is made as, and no older one exists."""


def _approvals(connection: Connection) -> None:
    APPROVALS.create(connection, checkfirst=True)


def _model_budgets(connection: Connection) -> None:
    # Reservations that are open now keep a null day: they count into no tenant's day, as when they were made.
    _add_missing(connection, BUDGETS)
    _add_missing(connection, RESERVATIONS)
    DAILY_BUDGETS.create(connection, checkfirst=True)
    MODEL_RESULTS.create(connection, checkfirst=True)


def _tenant_versions(connection: Connection) -> None:
    TENANT_VERSIONS.create(connection, checkfirst=True)


def _permits(connection: Connection) -> None:
    PERMITS.create(connection, checkfirst=True)


def _result_cache(connection: Connection) -> None:
    RESULT_CACHE.create(connection, checkfirst=True)


def _assignments(connection: Connection) -> None:
    ASSIGNMENTS.create(connection, checkfirst=True)


def _run_keys(connection: Connection) -> None:
    RUN_KEYS.create(connection, checkfirst=True)


def _outbox(connection: Connection) -> None:
    OUTBOX.create(connection, checkfirst=True)


def _retention(connection: Connection) -> None:
    _add_missing(connection, RUNS)
    for index in RUNS.indexes:
        index.create(connection, checkfirst=True)


def _add_missing(connection: Connection, table: Table) -> None:
    """Give ``table`` the columns that it has today and lacks in the database; each is nullable or has a default."""
    present = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in present:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "the first schema", _first),
    Migration(2, "approvals", _approvals),
    Migration(3, "tokens in budgets, accounts of a tenant's days, results of models", _model_budgets),
    Migration(4, "versions of tenants' configurations", _tenant_versions),
    Migration(5, "permits of tenants", _permits),
    Migration(6, "where earlier results lie", _result_cache),
    Migration(7, "audit records are written once", guard_audit_records),
    Migration(8, "assignments of steps to workers", _assignments),
    Migration(9, "keys of runs", _run_keys),
    Migration(10, "events to be told to other systems", _outbox),
    Migration(11, "how far ended runs have come on their way out", _retention),
)


def is_current(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> bool:
    """Whether the schema is the latest one, by reading alone: nobody has to wait for a writer to learn it.

    Raises like ``migrate``.
    """
    if not inspect(connection).has_table(SCHEMA_VERSION.name):
        return False
    return _version(connection, migrations[-1].version) == migrations[-1].version


def _version(connection: Connection, latest: int) -> int:
    """The database's number. Raises ``LivoaError("store.schema_newer")``."""
    current: int = connection.execute(select(func.max(SCHEMA_VERSION.c.version))).scalar_one()
    if current > latest:
        raise LivoaError(
            "store.schema_newer",
            f"the database has schema {current}, this version knows {latest}; start a version that is at least as new",
            status=500,
        )
    return current


def migrate(connection: Connection, now: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the schema to the latest version, inside the caller's write transaction. ``now`` is written beside the number.

    Raises ``LivoaError("store.schema_newer")`` when the database was made by a later version of the application.
    """
    if connection.dialect.name == "postgresql":
        # Two processes that start together would both create tables; SQLite's write transaction excludes that by itself.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    latest = migrations[-1].version
    if not inspect(connection).has_table(SCHEMA_VERSION.name):
        METADATA.create_all(connection)
        guard_audit_records(connection)
        connection.execute(insert(SCHEMA_VERSION), {"version": latest, "applied_at": now})
        return
    current = _version(connection, latest)
    for migration in migrations:
        if migration.version > current:
            migration.apply(connection)
            connection.execute(insert(SCHEMA_VERSION), {"version": migration.version, "applied_at": now})
