"""What every count of permits promises: never more than the tenant's rate and burst, whoever asks, and one bucket per tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text

from engine.adapters.cosmos import CosmosPermitLedger
from engine.adapters.memory import FixedClock, MemoryPermitLedger
from engine.adapters.sql import Database, SqlPermitLedger
from engine.adapters.sql.migrations import MIGRATIONS
from engine.domain.tenant import Quota
from engine.ports.quota import PermitBlock, PermitLedger
from tests.contract.stores.conftest import new_cosmos

QUOTA = Quota(submissions_per_minute=30, burst=20, permits_per_block=8)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
async def another(sql_url: str, clock: FixedClock) -> AsyncIterator[Callable[[], Database]]:
    """Opens the database once more, as another process would."""
    opened: list[Database] = []

    def database() -> Database:
        opened.append(Database(sql_url, clock))
        return opened[-1]

    yield database
    for one in opened:
        await one.dispose()


@pytest.fixture(params=["memory", "sql", "cosmos"])
async def ledger(
    request: pytest.FixtureRequest, clock: FixedClock, another: Callable[[], Database]
) -> AsyncIterator[PermitLedger]:
    if request.param == "cosmos":
        async with new_cosmos() as world:
            yield CosmosPermitLedger(world.connect(), clock)
        return
    yield MemoryPermitLedger(clock) if request.param == "memory" else SqlPermitLedger(another())


async def test_blocks_end_with_the_burst_and_then_come_at_the_rate(ledger: PermitLedger, clock: FixedClock) -> None:
    taken = [await ledger.lease("contoso", QUOTA, 8) for _ in range(4)]
    assert [block.permits for block in taken] == [8, 8, 4, 0]
    assert taken[-1] == PermitBlock(0, 2_000)
    clock.advance(2)
    assert await ledger.lease("contoso", QUOTA, 8) == PermitBlock(1)
    clock.advance(600)
    assert (await ledger.lease("contoso", QUOTA, 8)).permits == 8


async def test_many_at_once_take_no_more_than_there_is(ledger: PermitLedger) -> None:
    blocks = await asyncio.gather(*(ledger.lease("contoso", QUOTA, 8) for _ in range(12)))
    assert sum(block.permits for block in blocks) == 20


async def test_a_tenants_permits_are_its_own(ledger: PermitLedger) -> None:
    for _ in range(4):
        await ledger.lease("contoso", QUOTA, 8)
    assert (await ledger.lease("fabrikam", QUOTA, 8)).permits == 8


async def test_links_and_submissions_have_permits_of_their_own(ledger: PermitLedger) -> None:
    quota = Quota(submissions_per_minute=30, burst=20, links_per_minute=60, link_burst=4)
    for _ in range(4):
        await ledger.lease("contoso", quota, 8)
    assert (await ledger.lease("contoso", quota, 8, "links")).permits == 4
    assert await ledger.lease("contoso", quota, 8, "links") == PermitBlock(0, 1_000)
    assert (await ledger.lease("t" * 100, quota, 8, "links")).permits == 4
    assert (await ledger.lease("t" * 100, quota, 8)).permits == 8


async def test_processes_share_the_count(another: Callable[[], Database]) -> None:
    processes = [SqlPermitLedger(another()) for _ in range(3)]
    assert sum([(await process.lease("contoso", QUOTA, 8)).permits for process in processes]) == 20


async def test_a_database_of_the_version_before_learns_permits(another: Callable[[], Database]) -> None:
    number = next(migration.version for migration in MIGRATIONS if "permits" in migration.why)
    old = another()
    await SqlPermitLedger(old).lease("contoso", QUOTA, 8)
    undo = (
        "DROP TABLE permits",
        "DELETE FROM schema_version",
        f"INSERT INTO schema_version VALUES ({number - 1}, 'then')",
    )
    for statement in undo:
        await old.write(lambda connection, statement=statement: connection.execute(text(statement)))
    assert (await SqlPermitLedger(another()).lease("contoso", QUOTA, 8)).permits == 8
