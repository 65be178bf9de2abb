"""The stores of one world: all in memory, all in one SQLite file, all in one PostgreSQL schema."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.adapters.memory import (
    FixedClock,
    MemoryApprovalStore,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryEventLog,
    MemoryModelResults,
    MemoryResultCache,
    MemoryRunStore,
)
from engine.adapters.sql import (
    Database,
    SqlApprovalStore,
    SqlAuditLog,
    SqlBudgetLedger,
    SqlEventLog,
    SqlModelResults,
    SqlResultCache,
    SqlRunStore,
)
from engine.ports.approvals import ApprovalStore
from engine.ports.audit_log import AuditLog
from engine.ports.budget import BudgetLedger
from engine.ports.model_results import ModelResults
from engine.ports.result_cache import ResultCache
from engine.ports.run_store import EventLog, RunStore

POSTGRES = "LIVOA_TEST_POSTGRES_URL"


@dataclass(frozen=True)
class Stores:
    """The ports that share one consistency boundary, and the clock they read."""

    clock: FixedClock
    runs: RunStore
    events: EventLog
    audit: AuditLog
    budgets: BudgetLedger
    approvals: ApprovalStore
    model_results: ModelResults
    result_cache: ResultCache
    database: Database | None = None


def sql_stores(url: str) -> Stores:
    clock = FixedClock()
    database = Database(url, clock)
    return Stores(
        clock,
        SqlRunStore(database, clock),
        SqlEventLog(database, clock),
        SqlAuditLog(database),
        SqlBudgetLedger(database),
        SqlApprovalStore(database, clock),
        SqlModelResults(database),
        SqlResultCache(database),
        database,
    )


def memory_stores() -> Stores:
    clock = FixedClock()
    runs = MemoryRunStore(clock)
    return Stores(
        clock,
        runs,
        MemoryEventLog(runs),
        MemoryAuditLog(),
        MemoryBudgetLedger(clock),
        MemoryApprovalStore(runs, clock),
        MemoryModelResults(),
        MemoryResultCache(),
    )


@contextmanager
def new_database(kind: str, directory: Path) -> Iterator[str]:
    """The address of a database that exists nowhere else."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'livoa.db'}"
        return
    import psycopg

    schema = f"livoa_{secrets.token_hex(6)}"
    base = os.environ[POSTGRES].replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        try:
            yield f"{base}{'&' if '?' in base else '?'}options=-csearch_path%3D{schema}"
        finally:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")


# One test says that PostgreSQL was left out; a skip of every test would say it ninety times.
SQL = ["sqlite", *([pytest.param("postgres", marks=pytest.mark.postgres)] if os.environ.get(POSTGRES) else [])]


@pytest.fixture(params=SQL)
def sql_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    with new_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
async def open_sql(sql_url: str) -> AsyncIterator[Callable[[], Stores]]:
    """Opens the database once more, as another process would."""
    opened: list[Stores] = []

    def another() -> Stores:
        opened.append(sql_stores(sql_url))
        return opened[-1]

    yield another
    for stores in opened:
        assert stores.database is not None
        await stores.database.dispose()


@pytest.fixture(params=["memory", *SQL])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Every implementation of the ports."""
    if request.param == "memory":
        yield memory_stores()
        return
    with new_database(request.param, tmp_path) as url:
        opened = sql_stores(url)
        assert opened.database is not None
        yield opened
        await opened.database.dispose()
