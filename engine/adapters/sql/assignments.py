"""Assignments of steps to workers: one row for each effect, changed while it is held."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, insert, or_, select, update

from engine.adapters.assignment_rules import OPEN, Rule, RuledAssignments, look_at, unsent_since
from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import ASSIGNMENTS
from engine.adapters.store_rules import bounded
from engine.domain.base import iso_utc
from engine.domain.bus import Assignment, AssignmentStatus

T = TypeVar("T")

_OPEN = sorted(status.value for status in OPEN)
_OF_RUN = (ASSIGNMENTS.c.tenant_id == bindparam("p_tenant"), ASSIGNMENTS.c.run_id == bindparam("p_run"))
_OF_KEY = (*_OF_RUN, ASSIGNMENTS.c.key == bindparam("p_key"))
_ROW = select(ASSIGNMENTS.c.document).where(*_OF_KEY)
_OPEN_OF_RUN = (
    select(ASSIGNMENTS.c.document).where(*_OF_RUN, ASSIGNMENTS.c.status.in_(_OPEN)).order_by(ASSIGNMENTS.c.key)
)
_OVERDUE = (
    select(ASSIGNMENTS.c.document)
    .where(
        or_(
            and_(ASSIGNMENTS.c.status.in_(_OPEN), ASSIGNMENTS.c.look_at <= bindparam("p_now")),
            and_(
                ASSIGNMENTS.c.status == AssignmentStatus.QUEUED.value,
                ASSIGNMENTS.c.sent_or_made_at < bindparam("p_unsent_since"),
            ),
        )
    )
    .order_by(ASSIGNMENTS.c.created_at, ASSIGNMENTS.c.key)
    .limit(bindparam("p_limit"))
)
_ENDED = (
    select(ASSIGNMENTS.c.document)
    .where(ASSIGNMENTS.c.ended_at >= bindparam("p_since"))
    .order_by(ASSIGNMENTS.c.ended_at, ASSIGNMENTS.c.key)
    .limit(bindparam("p_limit"))
)


class SqlAssignments(RuledAssignments):
    """Assignments in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, tenant_id: str, run_id: str, key: str) -> Assignment | None:
        """See ``Assignments.get``."""
        where = {"p_tenant": tenant_id, "p_run": run_id, "p_key": key}
        document = await self._database.read(lambda connection: connection.execute(_ROW, where).scalar())
        return Assignment.model_validate_json(document) if document is not None else None

    async def overdue(self, now: datetime, *, unsent_since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments.overdue``. At most 1,000."""
        where = {"p_now": iso_utc(now), "p_unsent_since": iso_utc(unsent_since), "p_limit": bounded(limit)}
        return await self._found(_OVERDUE, where)

    async def ended_since(self, since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments.ended_since``. At most 1,000."""
        return await self._found(_ENDED, {"p_since": iso_utc(since), "p_limit": bounded(limit)})

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``Assignments.remove_run``."""
        gone = delete(ASSIGNMENTS).where(*_OF_RUN)
        where = {"p_tenant": tenant_id, "p_run": run_id}
        return await self._database.write(lambda connection: connection.execute(gone, where).rowcount)

    async def _update(self, tenant_id: str, run_id: str, key: str, rule: Rule[T]) -> T:
        where = {"p_tenant": tenant_id, "p_run": run_id, "p_key": key}
        return await self._database.write(lambda connection: _apply(connection, where, rule))

    async def _open_of(self, tenant_id: str, run_id: str) -> tuple[Assignment, ...]:
        return await self._found(_OPEN_OF_RUN, {"p_tenant": tenant_id, "p_run": run_id})

    async def _found(self, query: Any, where: dict[str, Any]) -> tuple[Assignment, ...]:
        documents = await self._database.read(lambda connection: connection.execute(query, where).scalars().all())
        return tuple(Assignment.model_validate_json(document) for document in documents)


def _apply(connection: Connection, where: dict[str, str], rule: Rule[T]) -> T:
    document = connection.execute(_ROW.with_for_update(), where).scalar()
    answer, row = rule(Assignment.model_validate_json(document) if document is not None else None)
    if row is None:
        return answer
    if document is None:
        # A twin that was first refuses this insert, and the second try finds its row.
        connection.execute(insert(ASSIGNMENTS), _row(row))
    else:
        connection.execute(update(ASSIGNMENTS).where(*_OF_KEY).values(**_row(row)), where)
    return answer


def _row(row: Assignment) -> dict[str, Any]:
    return {
        "tenant_id": row.tenant_id,
        "run_id": row.run_id,
        "key": row.key,
        "status": row.status.value,
        "created_at": iso_utc(row.created_at),
        "look_at": iso_utc(look_at(row)),
        "sent_or_made_at": iso_utc(unsent_since(row)),
        "ended_at": iso_utc(row.ended_at) if row.ended_at is not None else None,
        "document": row.stored(),
    }
