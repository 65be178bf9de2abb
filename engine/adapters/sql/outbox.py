"""What other systems are to be told of, written in the transaction of the event and removed when it has been sent."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import OUTBOX
from engine.adapters.store_rules import MAX_LIMIT, bounded
from engine.domain.base import iso_utc
from engine.domain.events import RunEvent
from engine.domain.run_messages import LIFECYCLE_EVENTS
from engine.ports.run_messages import WaitingRun

_OF_RUN = (OUTBOX.c.tenant_id == bindparam("p_tenant"), OUTBOX.c.run_id == bindparam("p_run"))
_OLDEST = (
    select(OUTBOX.c.tenant_id, OUTBOX.c.run_id)
    .order_by(OUTBOX.c.at, OUTBOX.c.tenant_id, OUTBOX.c.run_id)
    .limit(MAX_LIMIT)
)
_WAITING = select(OUTBOX.c.document).where(*_OF_RUN).order_by(OUTBOX.c.seq).limit(bindparam("p_limit"))
_TOLD = delete(OUTBOX).where(*_OF_RUN, OUTBOX.c.seq <= bindparam("p_seq"))


def keep_for_others(connection: Connection, events: Sequence[RunEvent]) -> None:
    """Put those of ``events`` into the outbox that other systems are told of."""
    rows = [
        {
            "tenant_id": event.tenant_id,
            "run_id": event.run_id,
            "seq": event.seq,
            "at": iso_utc(event.at),
            "document": event.model_dump_json(),
        }
        for event in events
        if event.type in LIFECYCLE_EVENTS
    ]
    if rows:
        connection.execute(insert(OUTBOX), rows)


class SqlOutbox:
    """The outbox in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def runs_waiting(self, limit: int) -> tuple[WaitingRun, ...]:
        """See ``Outbox.runs_waiting``. Among the oldest 1,000 events."""
        rows = await self._database.read(lambda connection: connection.execute(_OLDEST).all())
        # In order of their oldest event, each once.
        runs = dict.fromkeys(WaitingRun(row.tenant_id, row.run_id) for row in rows)
        return tuple(runs)[: bounded(limit)]

    async def waiting(self, tenant_id: str, run_id: str, limit: int) -> tuple[RunEvent, ...]:
        """See ``Outbox.waiting``. At most 1,000."""
        where = {"p_tenant": tenant_id, "p_run": run_id, "p_limit": bounded(limit)}
        documents = await self._database.read(lambda connection: connection.execute(_WAITING, where).scalars().all())
        return tuple(RunEvent.model_validate_json(document) for document in documents)

    async def told(self, tenant_id: str, run_id: str, *, through_seq: int) -> None:
        """See ``Outbox.told``."""
        where = {"p_tenant": tenant_id, "p_run": run_id, "p_seq": through_seq}
        await self._database.write(lambda connection: connection.execute(_TOLD, where))
