"""Prepared statements: what they say is what SQLAlchemy says, and nothing that needs converting gets by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import LargeBinary, bindparam, column, insert, select, table, update

from engine.adapters.sql.prepared import Prepared
from engine.adapters.sql.tables import AUDIT_HEADS, RUNS
from tests.contract.stores.conftest import Stores

_OF_TENANT = AUDIT_HEADS.c.tenant_id == bindparam("p_tenant")
_HEAD = select(AUDIT_HEADS).where(_OF_TENANT)
_ADD = Prepared(insert(AUDIT_HEADS))
_SET = Prepared(update(AUDIT_HEADS).where(_OF_TENANT).values(seq=bindparam("p_seq")))


async def test_rows_are_those_that_sqlalchemy_reads(open_sql: Callable[[], Stores]) -> None:
    database = open_sql().database
    assert database is not None
    head, of_a = Prepared(_HEAD), {"p_tenant": "a"}
    rows = [{"tenant_id": tenant, "seq": 1, "hash": f"{tenant} 'x' é"} for tenant in ("a", "b")]
    await database.write(lambda connection: _ADD.run_each(connection, rows))
    assert await database.write(lambda connection: _SET.run(connection, of_a | {"p_seq": 7})) == 1
    assert await database.write(lambda connection: _SET.run(connection, {"p_tenant": "c", "p_seq": 7})) == 0
    wanted = await database.read(lambda connection: connection.execute(_HEAD, of_a).one())
    found = await database.read(lambda connection: head.first(connection, of_a))
    assert (found.tenant_id, found.seq, found.hash) == (wanted.tenant_id, wanted.seq, wanted.hash) == tuple(found)
    assert found.seq == 7
    assert await database.read(lambda connection: head.all(connection, of_a)) == [found]
    assert await database.read(lambda connection: head.scalar(connection, of_a)) == "a"
    assert await database.read(lambda connection: head.first(connection, {"p_tenant": "c"})) is None


async def test_values_of_the_statement_itself_are_bound_too(open_sql: Callable[[], Stores]) -> None:
    database = open_sql().database
    assert database is not None
    await database.write(lambda connection: _ADD.run(connection, {"tenant_id": "a", "seq": 3, "hash": "x"}))
    above = Prepared(select(AUDIT_HEADS.c.hash).where(_OF_TENANT, AUDIT_HEADS.c.seq > 2).limit(1))
    none = Prepared(select(AUDIT_HEADS.c.hash).where(_OF_TENANT, AUDIT_HEADS.c.seq > 3).limit(1))
    assert await database.read(lambda connection: above.scalar(connection, {"p_tenant": "a"})) == "x"
    assert await database.read(lambda connection: none.scalar(connection, {"p_tenant": "a"})) is None


@pytest.mark.parametrize(
    "statement",
    [
        select(RUNS.c.run_id).where(RUNS.c.status.in_(bindparam("p_statuses", expanding=True))),
        select(table("t", column("x", LargeBinary)).c.x),
        insert(table("t", column("x", LargeBinary))),
    ],
    ids=["text by parameters", "a column to convert", "a parameter to convert"],
)
def test_what_cannot_be_prepared_is_refused(statement: object) -> None:
    with pytest.raises(TypeError, match="one text"):
        Prepared(statement)  # type: ignore[arg-type]  # each is a select or an insert
