"""Writes that wait together are committed together, each on its own terms."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from engine.adapters.memory import SystemClock
from engine.adapters.sql import Database
from engine.domain.errors import LivoaError


@pytest.fixture
async def database(tmp_path: Path):
    database = Database(f"sqlite:///{tmp_path / 'group.db'}", SystemClock())
    await database.write(lambda c: c.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")))
    yield database
    await database.dispose()


def insert(number: int):
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
        return number

    return work


async def stored(database: Database) -> list[int]:
    return await database.read(lambda c: list(c.execute(text("SELECT n FROM numbers ORDER BY n")).scalars()))


async def test_many_writers_at_once_all_get_their_own_answer(database: Database) -> None:
    assert await asyncio.gather(*(database.write(insert(n)) for n in range(300))) == list(range(300))
    assert await stored(database) == list(range(300))


async def test_one_that_fails_takes_nothing_with_it_and_nothing_down(database: Database) -> None:
    def half(connection: Connection) -> None:
        insert(1000)(connection)
        raise LivoaError("test.no", "no", status=409)

    writes = [database.write(half if n % 10 == 5 else insert(n)) for n in range(100)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [n for n, result in enumerate(results) if isinstance(result, LivoaError)] == list(range(5, 100, 10))
    assert await stored(database) == [n for n in range(100) if n % 10 != 5]


async def test_a_write_that_can_never_succeed_ends_with_a_code(database: Database) -> None:
    await database.write(insert(1))
    results = await asyncio.gather(*(database.write(insert(n)) for n in (1, 2, 3)), return_exceptions=True)
    assert isinstance(results[0], LivoaError)
    assert results[0].code == "store.busy"
    assert results[1:] == [2, 3]
    assert await stored(database) == [1, 2, 3]


async def test_twins_in_one_group_see_each_other(database: Database) -> None:
    """Each looks before it writes; that they stand in one commit must not make both write."""

    def once(connection: Connection) -> bool:
        if connection.execute(text("SELECT 1 FROM numbers WHERE n = 7")).scalar():
            return False
        insert(7)(connection)
        return True

    assert sorted(await asyncio.gather(*(database.write(once) for _ in range(50)))) == [False] * 49 + [True]


async def test_a_caller_that_gives_up_holds_nobody_else_up(database: Database) -> None:
    tasks = [asyncio.create_task(database.write(insert(n))) for n in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert set(range(1, 50, 2)) <= set(await stored(database))


async def test_nothing_is_accepted_after_the_end(database: Database) -> None:
    await database.dispose()
    with pytest.raises(LivoaError) as caught:
        await database.write(insert(1))
    assert caught.value.code == "store.unavailable"
