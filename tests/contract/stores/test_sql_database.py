"""The database under the SQL stores: lazy, durable, atomic, migrated once, and honest when it cannot serve."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database, SqlApprovalStore, SqlAuditLog, SqlRunStore
from engine.adapters.sql.migrations import MIGRATIONS, Migration
from engine.adapters.sql.prepared import Parameters, Prepared
from engine.domain.errors import LivoaError
from tests.contract.stores import conftest
from tests.contract.stores.builders import approval, entry, run, step
from tests.contract.stores.builders import event as new_event
from tests.contract.stores.conftest import POSTGRES, Stores


def test_postgres_is_held_to_the_contracts_too() -> None:
    if len(conftest.SQL) == 1:
        pytest.skip(f"no PostgreSQL: set {POSTGRES}=postgresql://user@host/database to run the contracts on it")


async def scalar(database: Database, query: str) -> object:
    return await database.read(lambda connection: connection.execute(text(query)).scalar())


def test_opening_touches_nothing(tmp_path: Path) -> None:
    Database(f"sqlite:///{tmp_path / 'deep' / 'livoa.db'}", FixedClock())
    assert list(tmp_path.iterdir()) == []


def test_only_the_sql_adapter_loads_sqlalchemy() -> None:
    code = (
        "import sys, engine.adapters.memory, engine.adapters.files, engine.evidence\n"
        "print([m for m in ('sqlalchemy', 'jsonschema') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


async def test_the_file_is_made_on_first_use_and_safe_against_a_power_cut(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "livoa.db"
    database = Database(f"sqlite:///{path}", FixedClock())
    assert await scalar(database, "PRAGMA journal_mode") == "wal"
    assert await scalar(database, "PRAGMA synchronous") == 2
    assert await scalar(database, "PRAGMA foreign_keys") == 1
    assert path.is_file()
    assert path.parent.stat().st_mode & 0o077 == 0
    await database.dispose()


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://localhost/x", "sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://"]
)
def test_an_address_that_cannot_be_served_is_refused(url: str) -> None:
    with pytest.raises(LivoaError) as caught:
        Database(url, FixedClock())
    assert caught.value.code == "settings.invalid"


async def test_what_was_written_is_there_after_opening_again(open_sql: Callable[[], Stores]) -> None:
    first = open_sql()
    await first.runs.create(run(), [new_event()], None)
    await first.runs.put_step(step())
    assert first.database is not None
    await first.database.dispose()
    second = open_sql()
    assert await second.runs.get("contoso", "run-1") == run()
    assert await second.runs.steps("contoso", "run-1") == (step(),)
    assert len(await second.events.read("contoso", "run-1", after_seq=0, limit=9)) == 1


async def test_a_closed_database_says_so(open_sql: Callable[[], Stores]) -> None:
    stores = open_sql()
    assert stores.database is not None
    await stores.runs.get("contoso", "run-1")
    await stores.database.dispose()
    with pytest.raises(LivoaError) as caught:
        await stores.runs.get("contoso", "run-1")
    assert (caught.value.code, caught.value.status) == ("store.unavailable", 503)


@pytest.mark.parametrize("table", ["events", "runs", "steps"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_database_that_fails_in_the_middle_of_a_write_leaves_nothing_of_it(
    open_sql: Callable[[], Stores], table: str, moment: str
) -> None:
    stores = open_sql()
    await stores.runs.create(run(), [], None)
    carry_out, failures = Prepared.run, 0

    def fail(prepared: Prepared, connection: Connection, parameters: Parameters) -> int:
        nonlocal failures
        fails = prepared.text.startswith((f"INSERT INTO {table}", f"UPDATE {table}"))
        touched = carry_out(prepared, connection, parameters) if moment == "after" or not fails else 0
        if fails:
            failures += 1
            raise OSError("the disk is gone")
        return touched

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Prepared, "run", fail)
        with pytest.raises(OSError, match="disk"):
            await stores.runs.put_step(step(), [new_event()], add_cost_micro_usd=5)
    assert failures == 1
    assert await stores.runs.get("contoso", "run-1") == run()
    assert await stores.runs.steps("contoso", "run-1") == ()
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=9) == ()
    assert await stores.runs.put_step(step(), [new_event()], add_cost_micro_usd=5)


async def test_a_place_where_no_file_can_be_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "deep" / "livoa.db", tmp_path):
        database = Database(f"sqlite:///{path}", FixedClock())
        with pytest.raises(LivoaError) as caught:
            await SqlRunStore(database, FixedClock()).get("contoso", "run-1")
        assert (caught.value.code, caught.value.status) == ("store.unavailable", 503)
        await database.dispose()


async def test_a_failure_does_not_tell_what_was_being_written(open_sql: Callable[[], Stores]) -> None:
    stores = open_sql()
    assert stores.database is not None
    with pytest.raises(LivoaError) as caught:
        await stores.database.write(
            lambda connection: connection.execute(text("INSERT INTO nowhere VALUES (:x)"), {"x": "secret-4711"})
        )
    assert caught.value.code == "store.unavailable"
    assert "secret-4711" not in f"{caught.value} {caught.value.__cause__}"


async def test_a_lost_race_is_run_again(open_sql: Callable[[], Stores]) -> None:
    stores = open_sql()
    assert stores.database is not None
    tries = 0

    def work(connection: Connection) -> int:
        nonlocal tries
        tries += 1
        key = "taken" if tries < 3 else f"free-{tries}"
        statement = text("INSERT INTO audit_heads VALUES (:tenant, 1, 'x')")
        connection.execute(statement, {"tenant": key})
        if tries < 3:
            connection.execute(statement, {"tenant": key})
        return tries

    assert await stores.database.write(work) == 3
    assert await scalar(stores.database, "SELECT count(*) FROM audit_heads") == 1


async def test_a_race_that_is_lost_every_time_ends(
    open_sql: Callable[[], Stores], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.adapters.sql.engine._RETRY_PAUSE_S", 0)
    stores = open_sql()
    assert stores.database is not None
    statement = text("INSERT INTO audit_heads VALUES ('a', 1, 'x'), ('a', 1, 'x')")
    with pytest.raises(LivoaError) as caught:
        await stores.database.write(lambda connection: connection.execute(statement))
    assert (caught.value.code, caught.value.status) == ("store.busy", 503)


async def test_a_writer_waits_for_a_writer_of_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "livoa.db"
    monkeypatch.setattr("engine.adapters.sql.engine.BUSY_TIMEOUT_S", 0.02)
    database = Database(f"sqlite:///{path}", FixedClock())
    audit = SqlAuditLog(database)
    await audit.append(entry("a"))
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            other.execute("COMMIT")

    monkeypatch.setattr("engine.adapters.sql.engine.time.sleep", pause)
    assert len(await audit.read("contoso", after_seq=0, limit=9)) == 1, "readers do not wait"
    assert (await audit.append(entry("b"))).seq == 2
    assert len(pauses) == 2
    other.close()
    await database.dispose()


async def test_readers_do_not_hold_up_writers(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'livoa.db'}", FixedClock())
    audit = SqlAuditLog(database)
    await audit.append(entry("a"))
    release = threading.Event()

    def slow(connection: Connection) -> None:
        connection.execute(text("SELECT * FROM audit_records")).all()
        assert release.wait(10)

    reading = asyncio.create_task(database.read(slow))
    assert (await audit.append(entry("b"))).seq == 2
    release.set()
    await reading
    await database.dispose()


async def test_a_cut_tail_shows_as_soon_as_the_chain_goes_on(open_sql: Callable[[], Stores]) -> None:
    stores = open_sql()
    assert stores.database is not None
    for number in range(3):
        await stores.audit.append(entry(f"e{number}"))
    await rewrite(stores.database, "DELETE FROM audit_records WHERE seq = 3")
    assert (await stores.audit.append(entry("e3"))).seq == 4


async def rewrite(database: Database, statement: str) -> None:
    """What somebody does who may change the schema."""
    guards = ("audit_records_not_updated", "audit_records_not_deleted", "audit_records_not_replaced")

    def work(connection: Connection) -> None:
        if connection.dialect.name == "sqlite":
            for guard in guards:
                connection.execute(text(f"DROP TRIGGER {guard}"))
        else:
            connection.execute(text("DROP TRIGGER audit_records_written_once ON audit_records"))
        connection.execute(text(statement))

    await database.write(work)


REWRITES = (
    "UPDATE audit_records SET document = '{}' WHERE seq = 2",
    "DELETE FROM audit_records WHERE seq = 2",
    "DELETE FROM audit_records",
)
OF_ONE_DIALECT = {
    "sqlite": (
        "INSERT OR REPLACE INTO audit_records SELECT tenant_id, seq, 'other', run_id, '{}' FROM audit_records",
        "INSERT OR REPLACE INTO audit_records SELECT tenant_id, seq + 9, entry_id, run_id, '{}' FROM audit_records",
        "UPDATE OR REPLACE audit_records SET seq = 1",
    ),
    "postgresql": (
        "TRUNCATE audit_records",
        "INSERT INTO audit_records SELECT tenant_id, seq, 'other', run_id, '{}' FROM audit_records "
        "ON CONFLICT (tenant_id, seq) DO UPDATE SET document = '{}'",
    ),
}


async def refuses_to_rewrite(stores: Stores) -> None:
    assert stores.database is not None
    kept = [await stores.audit.append(entry(f"e{number}")) for number in range(3)]
    dialect = await stores.database.read(lambda connection: connection.dialect.name)
    for statement in (*REWRITES, *OF_ONE_DIALECT[dialect]):
        with pytest.raises((LivoaError, SQLAlchemyError)):
            await stores.database.write(lambda connection, statement=statement: connection.execute(text(statement)))
    assert await stores.audit.read("contoso", after_seq=0, limit=9) == tuple(kept)
    assert (await stores.audit.append(entry("e3"))).seq == 4


async def test_the_database_itself_refuses_to_change_or_remove_an_audit_record(open_sql: Callable[[], Stores]) -> None:
    await refuses_to_rewrite(open_sql())


async def test_a_database_of_the_version_before_learns_to_refuse_it(
    sql_url: str, open_sql: Callable[[], Stores]
) -> None:
    old = Database(sql_url, FixedClock())
    await rewrite(old, "DELETE FROM schema_version")
    await old.write(lambda connection: connection.execute(text("INSERT INTO schema_version VALUES (6, 'then')")))
    await old.dispose()
    await refuses_to_rewrite(open_sql())


LATEST = MIGRATIONS[-1].version


async def applied(database: Database) -> list[int]:
    query = text("SELECT version FROM schema_version ORDER BY version")
    return await database.read(lambda connection: list(connection.execute(query).scalars()))


async def test_a_fresh_database_has_the_latest_schema(sql_url: str) -> None:
    database = Database(sql_url, FixedClock())
    assert await applied(database) == [MIGRATIONS[-1].version]
    await database.dispose()


async def test_an_older_database_gets_what_it_lacks_once_and_in_order(sql_url: str) -> None:
    old = Database(sql_url, FixedClock())
    await SqlRunStore(old, FixedClock()).create(run(), [], None)
    await old.dispose()
    done: list[int] = []

    def migration(version: int) -> Migration:
        def apply(connection: Connection) -> None:
            done.append(version)
            connection.execute(text(f"ALTER TABLE runs ADD COLUMN extra_{version} INTEGER"))

        return Migration(version, "a test", apply)

    for _ in range(2):
        newer = Database(sql_url, FixedClock(), migrations=(*MIGRATIONS, migration(LATEST + 1), migration(LATEST + 2)))
        assert await applied(newer) == [LATEST, LATEST + 1, LATEST + 2]
        assert await SqlRunStore(newer, FixedClock()).get("contoso", "run-1") == run()
        await newer.dispose()
    assert done == [LATEST + 1, LATEST + 2]


async def test_a_database_of_the_first_version_learns_approvals(sql_url: str) -> None:
    """Version 1 is today's schema without what the later migrations brought."""
    old = Database(sql_url, FixedClock())
    await SqlRunStore(old, FixedClock()).create(run(), [], None)
    undo = ("DROP TABLE approvals", "DELETE FROM schema_version", "INSERT INTO schema_version VALUES (1, 'then')")
    for statement in undo:
        await old.write(lambda connection, statement=statement: connection.execute(text(statement)))
    await old.dispose()
    newer = Database(sql_url, FixedClock())
    store = SqlApprovalStore(newer, FixedClock())
    asked = await store.request(approval(FixedClock().now()))
    assert await store.of_run("contoso", "run-1") == (asked,)
    assert (await applied(newer))[:2] == [1, 2]
    await newer.dispose()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(sql_url: str) -> None:
    first = Database(sql_url, FixedClock())
    await applied(first)
    await first.dispose()

    def broken(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE runs ADD COLUMN extra INTEGER"))
        raise RuntimeError("half way")

    half = Database(sql_url, FixedClock(), migrations=(*MIGRATIONS, Migration(LATEST + 1, "a test", broken)))
    with pytest.raises(RuntimeError):
        await applied(half)
    await half.dispose()
    again = Database(sql_url, FixedClock())
    assert await applied(again) == [LATEST]
    with pytest.raises(LivoaError):
        await scalar(again, "SELECT extra FROM runs")
    await again.dispose()


async def test_a_database_newer_than_the_application_is_left_alone(sql_url: str) -> None:
    newer = Database(
        sql_url, FixedClock(), migrations=(*MIGRATIONS, Migration(LATEST + 1, "a test", lambda connection: None))
    )
    await applied(newer)
    await newer.dispose()
    older = Database(sql_url, FixedClock())
    with pytest.raises(LivoaError) as caught:
        await applied(older)
    assert caught.value.code == "store.schema_newer"
    await older.dispose()


async def test_openers_at_the_same_moment_agree_on_one_schema(sql_url: str) -> None:
    databases = [Database(sql_url, FixedClock()) for _ in range(6)]
    assert await asyncio.gather(*map(applied, databases)) == [[LATEST]] * 6
    for database in databases:
        await database.dispose()
