"""Where earlier results lie, over every store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import text

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database
from engine.domain.run import PayloadRef
from engine.ports.result_cache import CachedResult
from tests.contract.stores.conftest import Stores

ASKED = "a" * 64
OUTPUT = PayloadRef(sha256="b" * 64, size_bytes=7)


def result(stores: Stores, run_id: str = "run-1", age_s: int = 0) -> CachedResult:
    return CachedResult(run_id, OUTPUT, stores.clock.now() - timedelta(seconds=age_s))


async def test_what_was_remembered_is_found_by_what_was_asked(stores: Stores) -> None:
    assert await stores.result_cache.get("contoso", ASKED) is None
    await stores.result_cache.put("contoso", ASKED, result(stores))
    assert await stores.result_cache.get("contoso", ASKED) == result(stores)
    assert await stores.result_cache.get("contoso", "c" * 64) is None
    assert await stores.result_cache.get("fabrikam", ASKED) is None


async def test_the_latest_result_stands_in_whatever_order_they_come(stores: Stores) -> None:
    await stores.result_cache.put("contoso", ASKED, result(stores, "run-1", 10))
    await stores.result_cache.put("contoso", ASKED, result(stores, "run-2", 5))
    await stores.result_cache.put("contoso", ASKED, result(stores, "run-3", 20))
    assert await stores.result_cache.get("contoso", ASKED) == result(stores, "run-2", 5)


async def test_a_run_is_forgotten_with_its_results_and_nothing_else_is(stores: Stores) -> None:
    await stores.result_cache.put("contoso", ASKED, result(stores))
    await stores.result_cache.put("contoso", "c" * 64, result(stores, "run-2"))
    await stores.result_cache.put("fabrikam", ASKED, result(stores))
    assert await stores.result_cache.remove_run("contoso", "run-1") == 1
    assert await stores.result_cache.remove_run("contoso", "run-1") == 0
    assert await stores.result_cache.get("contoso", ASKED) is None
    assert await stores.result_cache.get("contoso", "c" * 64) == result(stores, "run-2")
    assert await stores.result_cache.get("fabrikam", ASKED) == result(stores)


async def test_a_database_of_the_version_before_gets_the_table(sql_url: str, open_sql: Callable[[], Stores]) -> None:
    old = Database(sql_url, FixedClock())
    for statement in (
        "DROP TABLE result_cache",
        "DELETE FROM schema_version",
        "INSERT INTO schema_version VALUES (5, 'then')",
    ):
        await old.write(lambda connection, statement=statement: connection.execute(text(statement)))
    await old.dispose()
    stores = open_sql()
    await stores.result_cache.put("contoso", ASKED, result(stores))
    assert await stores.result_cache.get("contoso", ASKED) == result(stores)
