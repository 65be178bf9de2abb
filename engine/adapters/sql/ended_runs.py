"""Runs on their way out of a database. Everything with the columns ``tenant_id`` and ``run_id`` goes with a run, but for its
audit records and the record of its key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.run_store import run_of_row
from engine.adapters.sql.tables import AUDIT_RECORDS, EVENTS, METADATA, RUN_KEYS, RUNS
from engine.adapters.store_rules import FINAL_STATUSES, bounded, not_finished
from engine.domain.base import iso_utc
from engine.domain.run import Run
from engine.ports.ended_runs import Stage

EVENTS_AT_ONCE = 2_000
"""Most events that one transaction removes."""
_STAY = (AUDIT_RECORDS, RUN_KEYS)


def tables_of_a_run() -> tuple[Table, ...]:
    """What is removed with a run, in an order in which nothing refers to what is gone already. ``runs`` is the last one."""
    mine = [table for table in METADATA.sorted_tables if {"tenant_id", "run_id"} <= set(table.columns.keys())]
    return (*(table for table in reversed(mine) if table not in (*_STAY, RUNS)), RUNS)


class SqlEndedRuns:
    """Ended runs in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ended(self, tenant_id: str, *, before: datetime, stage: Stage, limit: int) -> tuple[Run, ...]:
        """See ``EndedRuns.ended``."""
        query = (
            select(RUNS)
            .where(
                RUNS.c.tenant_id == tenant_id,
                RUNS.c.status.in_(FINAL_STATUSES),
                RUNS.c.retention_stage < stage.value,
                RUNS.c.updated_at < iso_utc(before),
            )
            .order_by(RUNS.c.updated_at, RUNS.c.run_id)
            .limit(bounded(limit))
        )
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return tuple(map(run_of_row, rows))

    async def mark(self, tenant_id: str, run_id: str, stage: Stage) -> None:
        """See ``EndedRuns.mark``."""
        change = update(RUNS).where(*_of(RUNS, tenant_id, run_id)).values(retention_stage=stage.value)
        await self._database.write(lambda connection: connection.execute(change))

    async def remove(self, tenant_id: str, run_id: str) -> bool:
        """See ``EndedRuns.remove``. Events in batches, everything else in one transaction."""
        while await self._database.write(lambda connection: _remove_events(connection, tenant_id, run_id)):
            pass
        return await self._database.write(lambda connection: _remove(connection, tenant_id, run_id))


def _of(table: Table, tenant_id: str, run_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.tenant_id == tenant_id, table.c.run_id == run_id


def _refuse_unfinished(connection: Connection, tenant_id: str, run_id: str) -> None:
    row = connection.execute(select(RUNS).where(*_of(RUNS, tenant_id, run_id)).with_for_update()).one_or_none()
    if row is not None and row.status not in FINAL_STATUSES:
        raise not_finished(run_of_row(row))


def _remove_events(connection: Connection, tenant_id: str, run_id: str) -> bool:
    """One batch; True while there may be more."""
    _refuse_unfinished(connection, tenant_id, run_id)
    first = connection.execute(select(func.min(EVENTS.c.seq)).where(*_of(EVENTS, tenant_id, run_id))).scalar()
    if first is None:
        return False
    batch = (*_of(EVENTS, tenant_id, run_id), EVENTS.c.seq < first + EVENTS_AT_ONCE)
    connection.execute(delete(EVENTS).where(*batch))
    return True


def _remove(connection: Connection, tenant_id: str, run_id: str) -> bool:
    _refuse_unfinished(connection, tenant_id, run_id)
    gone = 0
    for table in tables_of_a_run():
        gone = connection.execute(delete(table).where(*_of(table, tenant_id, run_id))).rowcount
    return gone > 0
