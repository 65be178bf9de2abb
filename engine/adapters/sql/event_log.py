"""The event log of each run. It shares tables and transactions with the run store: an event is written with its change.

``seq`` is handed out from a counter in the run's row, under the lock that every writer of the run takes first; that makes it
gapless under any number of writers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.adapters.sql.engine import OUTBOX_OPTION, Database
from engine.adapters.sql.outbox import keep_for_others
from engine.adapters.sql.prepared import Prepared
from engine.adapters.sql.tables import EVENTS, RUNS
from engine.adapters.store_rules import bounded, distinct, event_data, event_data_text, is_over, run_not_found
from engine.domain.base import iso_utc
from engine.domain.events import EventType, NewEvent, RunEvent
from engine.ports.clock import Clock

_OF_RUN = (RUNS.c.tenant_id == bindparam("p_tenant"), RUNS.c.run_id == bindparam("p_run"))
_EVENTS_OF_RUN = (EVENTS.c.tenant_id == bindparam("p_tenant"), EVENTS.c.run_id == bindparam("p_run"))
_STATE = Prepared(select(RUNS.c.last_seq, RUNS.c.status).where(*_OF_RUN).with_for_update())
_SET_LAST_SEQ = Prepared(update(RUNS).where(*_OF_RUN).values(last_seq=bindparam("p_seq")))
_KNOWN_KEYS = select(EVENTS.c.key).where(*_EVENTS_OF_RUN, EVENTS.c.key.in_(bindparam("p_keys", expanding=True)))
_KNOWN_KEY = Prepared(select(EVENTS.c.key).where(*_EVENTS_OF_RUN, EVENTS.c.key == bindparam("p_key")))
_ADD = Prepared(insert(EVENTS))
_READ = (
    select(EVENTS.c.seq, EVENTS.c.type, EVENTS.c.at, EVENTS.c.data)
    .where(*_EVENTS_OF_RUN, EVENTS.c.seq > bindparam("p_after"))
    .order_by(EVENTS.c.seq)
    .limit(bindparam("p_limit"))
)
_ANY_AFTER = select(EVENTS.c.seq).where(*_EVENTS_OF_RUN, EVENTS.c.seq > bindparam("p_after")).limit(1)
_KEYS_AT_ONCE = 500


def insert_events(
    connection: Connection, tenant_id: str, run_id: str, last_seq: int, events: Sequence[NewEvent], at: datetime
) -> list[dict[str, Any]]:
    """Insert the events whose keys are new, numbered after ``last_seq``, and return their rows.

    The caller holds the run's row and stores the new ``last_seq`` (the last event's, if any) in the same transaction.
    """
    by_key = distinct(events)
    if not by_key:
        return []
    known = _known_keys(connection, tenant_id, run_id, list(by_key))
    new = [event for key, event in by_key.items() if key not in known]
    rows: list[dict[str, Any]] = [
        {
            "tenant_id": tenant_id,
            "run_id": run_id,
            "seq": seq,
            "key": event.key,
            "type": event.type.value,
            "at": iso_utc(at),
            "data": event_data_text(event),
        }
        for seq, event in enumerate(new, start=last_seq + 1)
    ]
    if rows:
        _ADD.run_each(connection, rows)
        if connection.get_execution_options().get(OUTBOX_OPTION):
            keep_for_others(connection, [event_of(tenant_id, run_id, row) for row in rows])
    return rows


def event_of(tenant_id: str, run_id: str, row: Mapping[Any, Any]) -> RunEvent:
    """An event out of its row."""
    return RunEvent(
        tenant_id=tenant_id,
        run_id=run_id,
        seq=row["seq"],
        type=EventType(row["type"]),
        at=datetime.fromisoformat(row["at"]),
        data=event_data(row["data"]),
    )


def _known_keys(connection: Connection, tenant_id: str, run_id: str, keys: list[str]) -> set[str]:
    known: set[str] = set()
    if len(keys) == 1:  # nearly always, and without rendering a list twice as fast
        parameters: dict[str, Any] = {"p_tenant": tenant_id, "p_run": run_id, "p_key": keys[0]}
        return {row.key for row in _KNOWN_KEY.all(connection, parameters)}
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        parameters = {"p_tenant": tenant_id, "p_run": run_id, "p_keys": keys[start : start + _KEYS_AT_ONCE]}
        known.update(connection.execute(_KNOWN_KEYS, parameters).scalars())
    return known


class SqlEventLog:
    """Event logs in a ``Database``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def append(self, tenant_id: str, run_id: str, events: Sequence[NewEvent]) -> tuple[RunEvent, ...]:
        """See ``EventLog.append``."""

        def work(connection: Connection) -> list[dict[str, Any]]:
            run = {"p_tenant": tenant_id, "p_run": run_id}
            state = _STATE.first(connection, run)
            if state is None:
                raise run_not_found(run_id)
            if is_over(state.status):
                return []
            rows = insert_events(connection, tenant_id, run_id, state.last_seq, events, self._clock.now())
            if rows:
                _SET_LAST_SEQ.run(connection, run | {"p_seq": rows[-1]["seq"]})
            return rows

        rows = await self._database.write(work)
        if rows:
            self._database.wakeups.notify((tenant_id, run_id))
        return tuple(event_of(tenant_id, run_id, row) for row in rows)

    async def read(self, tenant_id: str, run_id: str, *, after_seq: int, limit: int) -> tuple[RunEvent, ...]:
        """See ``EventLog.read``. At most 1,000 events a call."""
        parameters = {"p_tenant": tenant_id, "p_run": run_id, "p_after": after_seq, "p_limit": bounded(limit)}
        rows = await self._database.read(lambda connection: connection.execute(_READ, parameters).mappings().all())
        return tuple(event_of(tenant_id, run_id, row) for row in rows)

    async def wait(self, tenant_id: str, run_id: str, *, after_seq: int, timeout_s: float) -> bool:
        """See ``EventLog.wait``. An event of another process is noticed within half a second."""
        parameters = {"p_tenant": tenant_id, "p_run": run_id, "p_after": after_seq}

        async def holds() -> bool:
            found = await self._database.read(lambda connection: connection.execute(_ANY_AFTER, parameters).first())
            return found is not None

        return await self._database.wakeups.wait((tenant_id, run_id), holds, timeout_s)
