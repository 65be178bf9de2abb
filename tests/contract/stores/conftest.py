"""The stores of one world: all in memory, all in one SQLite file, all in one PostgreSQL schema, all in one Cosmos DB."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.adapters.cosmos import (
    CosmosApprovalStore,
    CosmosAssignments,
    CosmosAuditLog,
    CosmosBudgetLedger,
    CosmosConnection,
    CosmosEndedRuns,
    CosmosEventLog,
    CosmosModelResults,
    CosmosOutbox,
    CosmosResultCache,
    CosmosRunKeys,
    CosmosRunStore,
    CosmosSettings,
    RunPartitions,
)
from engine.adapters.memory import (
    FixedClock,
    MemoryApprovalStore,
    MemoryAssignments,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryEndedRuns,
    MemoryEventLog,
    MemoryModelResults,
    MemoryOutbox,
    MemoryResultCache,
    MemoryRunKeys,
    MemoryRunStore,
)
from engine.adapters.sql import (
    Database,
    SqlApprovalStore,
    SqlAssignments,
    SqlAuditLog,
    SqlBudgetLedger,
    SqlEndedRuns,
    SqlEventLog,
    SqlModelResults,
    SqlOutbox,
    SqlResultCache,
    SqlRunKeys,
    SqlRunStore,
)
from engine.adapters.wakeups import Wakeups
from engine.ports.approvals import ApprovalStore
from engine.ports.assignments import Assignments
from engine.ports.audit_log import AuditLog
from engine.ports.budget import BudgetLedger
from engine.ports.ended_runs import EndedRuns
from engine.ports.model_results import ModelResults
from engine.ports.result_cache import ResultCache
from engine.ports.run_keys import RunKeys
from engine.ports.run_messages import Outbox
from engine.ports.run_store import EventLog, RunStore
from engine.ports.telemetry import Attribute
from tests.support.cosmos_fake import Account, CosmosFake, cut_within
from tests.support.world import QuietTelemetry

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
    assignments: Assignments
    run_keys: RunKeys
    outbox: Outbox
    ended_runs: EndedRuns
    wakeups: Wakeups
    database: Database | None = None


def sql_stores(url: str) -> Stores:
    clock = FixedClock()
    database = Database(url, clock, outbox=True)
    return Stores(
        clock,
        SqlRunStore(database, clock),
        SqlEventLog(database, clock),
        SqlAuditLog(database),
        SqlBudgetLedger(database),
        SqlApprovalStore(database, clock),
        SqlModelResults(database),
        SqlResultCache(database),
        SqlAssignments(database),
        SqlRunKeys(database),
        SqlOutbox(database),
        SqlEndedRuns(database),
        database.wakeups,
        database,
    )


def cosmos_stores(connection: CosmosConnection, clock: FixedClock) -> Stores:
    partitions = RunPartitions(connection, clock, outbox=True)
    return Stores(
        clock,
        CosmosRunStore(partitions),
        CosmosEventLog(partitions),
        CosmosAuditLog(connection, span_records=25),
        CosmosBudgetLedger(connection, clock),
        CosmosApprovalStore(partitions),
        CosmosModelResults(connection),
        CosmosResultCache(connection),
        CosmosAssignments(connection),
        CosmosRunKeys(connection),
        CosmosOutbox(connection),
        CosmosEndedRuns(partitions),
        partitions.wakeups,
    )


@dataclass(frozen=True)
class CosmosWorld:
    """A Cosmos DB, and connections to it as several processes would have them."""

    fake: CosmosFake
    clock: FixedClock
    connect: Callable[[], CosmosConnection]
    telemetry: RecordedRequestUnits

    def open(self) -> Stores:
        return cosmos_stores(self.connect(), self.clock)


class RecordedRequestUnits(QuietTelemetry):
    """Keeps what each operation on each container cost."""

    def __init__(self) -> None:
        self.units: dict[tuple[str, str], float] = {}

    def record(self, name: str, value: float, attributes: Mapping[str, Attribute] | None = None) -> None:
        assert name == "livoa.cosmos.request_units"
        of = dict(attributes or {})
        key = str(of["container"]), str(of["operation"])
        self.units[key] = self.units.get(key, 0.0) + value


async def shortly(_: float) -> None:
    """Instead of waiting: others may go first."""
    await asyncio.sleep(0)


@asynccontextmanager
async def new_cosmos() -> AsyncIterator[CosmosWorld]:
    """A Cosmos DB whose physical partitions end in the middle of each tenant's documents, and whose pages are small."""
    clock, telemetry = FixedClock(), RecordedRequestUnits()
    cuts = [cut_within(("/tenantId", "/runId"), tenant) for tenant in ("contoso", "fabrikam")]
    async with AsyncExitStack() as stack:
        fake = stack.enter_context(CosmosFake(Account(lambda: clock.now().timestamp(), cuts=cuts, page=7)))

        def connect() -> CosmosConnection:
            connection = CosmosConnection(CosmosSettings(fake.url, key=fake.KEY), telemetry, sleep=shortly)
            stack.push_async_callback(connection.close)
            return connection

        await connect().create_containers()
        yield CosmosWorld(fake, clock, connect, telemetry)


@pytest.fixture
async def cosmos() -> AsyncIterator[CosmosWorld]:
    """An empty Cosmos DB."""
    async with new_cosmos() as world:
        yield world


def memory_stores() -> Stores:
    clock = FixedClock()
    runs = MemoryRunStore(clock, outbox=True)
    approvals, results = MemoryApprovalStore(runs, clock), MemoryModelResults()
    return Stores(
        clock,
        runs,
        MemoryEventLog(runs),
        MemoryAuditLog(),
        MemoryBudgetLedger(clock),
        approvals,
        results,
        MemoryResultCache(),
        MemoryAssignments(),
        MemoryRunKeys(runs),
        MemoryOutbox(runs),
        MemoryEndedRuns(runs, approvals, results),
        runs.wakeups,
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


@pytest.fixture(params=["memory", *SQL, "cosmos"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """Every implementation of the ports."""
    if request.param == "memory":
        yield memory_stores()
        return
    if request.param == "cosmos":
        async with new_cosmos() as world:
            yield world.open()
        return
    with new_database(request.param, tmp_path) as url:
        opened = sql_stores(url)
        assert opened.database is not None
        yield opened
        await opened.database.dispose()
