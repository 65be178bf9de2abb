"""SQLite where there is no room left, and where another process holds it: refused in bounded time, nothing lost, nothing by
half.

Both are the real thing: SQLite itself says that it is full once it may not grow, and the lock is that of another process, which
is killed with it.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database, SqlAuditLog, SqlEventLog, SqlRunStore
from engine.adapters.sql import engine as sql_engine
from engine.domain.errors import LivoaError
from tests.contract.stores.builders import entry, event, run, step

ROOM_FOR_PAGES = 12
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


async def filled(path: Path) -> None:
    """A database with a run and the beginning of a chain in it."""
    database = Database(url_of(path), FixedClock())
    await SqlRunStore(database, FixedClock()).create(run(), [], None)
    await SqlAuditLog(database).append(entry("first"))
    await database.dispose()


def cramp(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the file may grow by a few pages only, whoever opens it."""
    with closing(sqlite3.connect(path)) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    prepare = sql_engine._prepare_sqlite

    def prepared(connection: sqlite3.Connection, record: object) -> None:
        prepare(connection, record)
        connection.execute(f"PRAGMA max_page_count = {pages + ROOM_FOR_PAGES}")

    monkeypatch.setattr(sql_engine, "_prepare_sqlite", prepared)


async def test_a_process_that_starts_waits_for_no_writer_when_the_schema_is_the_latest(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    with held_by_another_process(path):
        database = Database(url_of(path), FixedClock())
        begun = time.monotonic()
        assert await SqlRunStore(database, FixedClock()).get("contoso", "run-1") is not None
        assert time.monotonic() - begun < sql_engine.BUSY_TIMEOUT_S / 2
        await database.dispose()


async def test_a_full_disk_is_said_and_what_was_acknowledged_is_all_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "livoa.db"
    await filled(path)
    with monkeypatch.context() as cramped:
        cramp(path, cramped)
        database = Database(url_of(path), FixedClock())
        events, audit = SqlEventLog(database, FixedClock()), SqlAuditLog(database)
        told, recorded = 0, 1

        async def until_full() -> None:
            nonlocal told, recorded
            for number in range(1_000):
                told += len(await events.append("contoso", "run-1", [event(f"k{number}")]))
                await audit.append(entry(f"e{number}"))
                recorded += 1

        with pytest.raises(LivoaError) as caught:
            await until_full()
        assert (caught.value.code, caught.value.status) == ("store.unavailable", 503)
        assert told > 1
        for _ in range(3):  # full stays full, and is said each time
            with pytest.raises(LivoaError):
                await audit.append(entry("large", body={"x": "y" * 60_000}))
        assert len(await events.read("contoso", "run-1", after_seq=0, limit=2_000)) == told, "reading still works"
        await database.dispose()
    database = Database(url_of(path), FixedClock())
    events, audit = SqlEventLog(database, FixedClock()), SqlAuditLog(database)
    kept = await events.read("contoso", "run-1", after_seq=0, limit=2_000)
    assert [one.seq for one in kept] == list(range(1, told + 1))
    records = await audit.read("contoso", after_seq=0, limit=2_000)
    assert [one.seq for one in records] == list(range(1, recorded + 1))
    # With room again the chain goes on from where it was, and what had been refused is written once.
    assert (await audit.append(entry("large", body={"x": "y" * 60_000}))).prev == records[-1].hash
    assert (await audit.append(entry("large", body={"x": "y" * 60_000}))).seq == recorded + 1
    await database.dispose()


async def test_a_change_of_several_tables_that_no_longer_fits_leaves_none_of_them_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "livoa.db"
    await filled(path)
    many = [event(f"k{number}") for number in range(2_000)]
    with monkeypatch.context() as cramped:
        cramp(path, cramped)
        database = Database(url_of(path), FixedClock())
        runs = SqlRunStore(database, FixedClock())
        with pytest.raises(LivoaError) as caught:
            await runs.put_step(step(), many, add_cost_micro_usd=5)
        assert caught.value.code == "store.unavailable"
        await database.dispose()
    database = Database(url_of(path), FixedClock())
    runs, events = SqlRunStore(database, FixedClock()), SqlEventLog(database, FixedClock())
    assert await runs.get("contoso", "run-1") == run()
    assert await runs.steps("contoso", "run-1") == ()
    assert await events.read("contoso", "run-1", after_seq=0, limit=9) == ()
    assert await runs.put_step(step(), many, add_cost_micro_usd=5)
    await database.dispose()


@contextmanager
def held_by_another_process(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the database for writing until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


async def test_a_lock_that_another_process_does_not_give_back_ends_in_busy_and_with_that_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "livoa.db"
    await filled(path)
    monkeypatch.setattr(sql_engine, "BUSY_TIMEOUT_S", 0.05)
    database = Database(url_of(path), FixedClock())
    runs, audit = SqlRunStore(database, FixedClock()), SqlAuditLog(database)
    await audit.read("contoso", after_seq=0, limit=9)  # opens it, and looks whether its schema is the latest
    with held_by_another_process(path) as holder:
        for write in (lambda: audit.append(entry("second")), lambda: runs.put_step(step(), [event()])):
            with pytest.raises(LivoaError) as caught:
                await write()
            assert (caught.value.code, caught.value.status) == ("store.busy", 503)
            assert caught.value.retry_after_s == 1
        assert len(await audit.read("contoso", after_seq=0, limit=9)) == 1, "readers do not wait"
        holder.kill()
        holder.wait()
        assert (await audit.append(entry("second"))).seq == 2
        assert await runs.put_step(step(), [event()])
    await database.dispose()
