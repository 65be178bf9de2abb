"""A database of every version there ever was becomes today's, with everything that was in it. The old ones were made by those
versions themselves (``tests/support/old_schema``)."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database
from engine.adapters.sql.migrations import MIGRATIONS
from engine.adapters.sql.written_once import guard_audit_records
from engine.domain.errors import LivoaError
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.ports.ended_runs import Stage
from tests.contract.stores.builders import claim, entry, event, run, step
from tests.contract.stores.conftest import CosmosWorld, Stores, new_database, sql_stores
from tests.support.old_schema import FOLDER, fill, statements_of, text_of

LATEST = MIGRATIONS[-1].version
OLD = range(1, LATEST)


def load(url: str, version: int) -> None:
    """Make the database of a version."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.executescript(text_of(version))
        return
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        for statement in statements_of(version):
            connection.execute(text(statement.replace(":", r"\:")))
        if version >= 7:
            guard_audit_records(connection)
    engine.dispose()


@pytest.fixture(params=OLD, ids=lambda version: f"from-{version}")
async def old(request: pytest.FixtureRequest, sql_url: str) -> AsyncIterator[Stores]:
    """Stores of today over a database of then."""
    load(sql_url, request.param)
    stores = sql_stores(sql_url)
    yield stores
    assert stores.database is not None
    await stores.database.dispose()


def shape(connection: Connection) -> dict[str, Any]:
    """Tables, columns with their types and whether they may be null, keys, indexes and triggers."""
    found: dict[str, Any] = {}
    look = inspect(connection)
    for name in look.get_table_names():
        columns = {each["name"]: (str(each["type"]), each["nullable"]) for each in look.get_columns(name)}
        indexes = {each["name"]: tuple(each["column_names"]) for each in look.get_indexes(name)}
        found[name] = (columns, indexes, look.get_pk_constraint(name)["constrained_columns"])
    if connection.dialect.name == "sqlite":
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
        found["triggers"] = list(connection.execute(text(query)).scalars())
    return found


def without_collations(found: dict[str, Any]) -> dict[str, Any]:
    """Old databases of PostgreSQL are made from SQLite's text here, which names no collation."""
    return {
        name: ({c: (kind.split(" COLLATE")[0], null) for c, (kind, null) in value[0].items()}, *value[1:])
        if isinstance(value, tuple)
        else value
        for name, value in found.items()
    }


def test_every_version_but_the_latest_has_its_database_kept() -> None:
    kept = sorted(int(path.stem) for path in FOLDER.glob("*.sql"))
    assert [version for version in kept if version != LATEST] == list(OLD), "see tests/support/old_schema.py"
    for version in kept:
        assert f'INSERT INTO "schema_version" VALUES({version},' in text_of(version)


async def test_it_gets_the_shape_of_a_fresh_one(old: Stores, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert old.database is not None
    kind = await old.database.read(lambda connection: connection.dialect.name)
    with new_database("sqlite" if kind == "sqlite" else "postgres", tmp_path_factory.mktemp("fresh")) as url:
        fresh = Database(url, FixedClock())
        wanted = await fresh.read(shape)
        await fresh.dispose()
    assert without_collations(await old.database.read(shape)) == without_collations(wanted)
    applied = text("SELECT max(version) FROM schema_version")
    assert await old.database.read(lambda connection: connection.execute(applied).scalar_one()) == LATEST


async def test_what_was_in_it_is_there_and_the_chain_goes_on(old: Stores) -> None:
    found = await old.runs.get("contoso", "run-1")
    assert found is not None
    assert (found.status, found.title) == (RunStatus.SUCCEEDED, "Why did sales fall?")
    assert [each.step_id for each in await old.runs.steps("contoso", "run-1")] == ["spend"]
    assert [each.item for each in await old.runs.items("contoso", "run-1", "each")] == [0]
    events = await old.events.read("contoso", "run-1", after_seq=0, limit=9)
    assert [each.seq for each in events] == [1, 2, 3]
    assert (await old.runs.create(run(), [], claim())).outcome == "existing"
    state = await old.budgets.state("contoso", "run-1")
    assert state is not None
    assert (state.limit_micro_usd, state.reserved_micro_usd) == (100, 5)
    assert (await old.audit.append(entry("run-1/new"))).seq == 4
    assert verify(await old.audit.read("contoso", after_seq=0, limit=9), "contoso") == []


async def test_everything_of_today_works_on_it(old: Stores) -> None:
    assert await old.runs.put_step(step("more", "run-2", status=StepStatus.SUCCEEDED), [event("more")])
    assert await old.budgets.reserve("contoso", "run-1", "run-1/more", amount_micro_usd=5)
    assert await old.run_keys.get("contoso", "run-1") is None
    old.clock.advance(10**8)
    (due,) = await old.ended_runs.ended("contoso", before=old.clock.now(), stage=Stage.GONE, limit=9)
    assert due.run_id == "run-1"
    assert await old.ended_runs.remove("contoso", "run-1")
    assert await old.runs.get("contoso", "run-2") is not None


async def test_a_database_of_a_later_version_is_refused_and_left_alone(sql_url: str) -> None:
    await fill(sql_url)
    database = Database(sql_url, FixedClock())
    add = text(f"INSERT INTO schema_version VALUES ({LATEST + 1}, 'then')")
    await database.write(lambda connection: connection.execute(add))
    await database.dispose()
    stores = sql_stores(sql_url)
    for ask in (stores.runs.get("contoso", "run-1"), stores.audit.append(entry("new"))):
        with pytest.raises(LivoaError) as caught:
            await ask
        assert caught.value.code == "store.schema_newer"
    assert stores.database is not None
    await stores.database.dispose()


def documents_of(cosmos: CosmosWorld) -> list[dict[str, Any]]:
    databases = cosmos.fake.account.databases.values()
    return [each for containers in databases for c in containers.values() for each in c.documents.values()]


async def test_every_document_says_which_layout_it_has(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(status=RunStatus.RUNNING), [event("first")], claim())
    await stores.runs.put_step(step(), [event("second")])
    await stores.audit.append(entry("one"))
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    found = documents_of(cosmos)
    assert len({document["kind"] for document in found}) >= 6
    assert {(document["kind"], document["schemaVersion"]) for document in found if document["schemaVersion"] != 1} == {
        ("account", 2)
    }


@pytest.mark.parametrize("version", [2, 0, -1, "1", 1.5])
async def test_a_document_of_another_layout_is_refused_wherever_it_is_met(cosmos: CosmosWorld, version: Any) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(status=RunStatus.RUNNING), [event("first")], None)
    await stores.runs.put_step(step(), [event("second")])
    await stores.audit.append(entry("one"))
    for document in documents_of(cosmos):
        document["schemaVersion"] = version
    before = [dict(document) for document in documents_of(cosmos)]
    for ask in (
        stores.runs.get("contoso", "run-1"),
        stores.runs.steps("contoso", "run-1"),
        stores.runs.unfinished(10),
        stores.events.read("contoso", "run-1", after_seq=0, limit=9),
        stores.runs.put_step(step(status=StepStatus.SUCCEEDED), []),
        stores.audit.append(entry("two")),
        stores.audit.read("contoso", after_seq=0, limit=9),
    ):
        with pytest.raises(LivoaError) as caught:
            await ask
        assert (caught.value.code, caught.value.status) == ("store.schema_newer", 500)
    assert documents_of(cosmos) == before


async def test_a_document_from_before_layouts_had_numbers_is_read(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(status=RunStatus.RUNNING), [event("first")], None)
    for document in documents_of(cosmos):
        del document["schemaVersion"]
    assert await stores.runs.get("contoso", "run-1") is not None
    assert await stores.runs.put_step(step(), [event("second")])
