"""Assignments of steps to workers: one document for each effect, in the partition of its run."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from engine.adapters.assignment_rules import Rule, RuledAssignments, look_at, unsent_since
from engine.adapters.cosmos.across_tenants import find_across_tenants
from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.repository import Document, Find, TenantRepository
from engine.adapters.cosmos.run_partition import id_of
from engine.adapters.store_rules import bounded
from engine.domain.base import iso_utc
from engine.domain.bus import Assignment

T = TypeVar("T")

_KIND = "c.kind = 'assignment'"
_OPEN = "c.kind = 'assignment' AND c.status IN ('queued', 'leased')"
_OVERDUE = (
    "c.kind = 'assignment' AND c.status IN ('queued', 'leased')"
    " AND (c.lookAt <= @now OR (c.status = 'queued' AND c.sentOrMadeAt < @unsentSince))"
)
_ENDED = "c.kind = 'assignment' AND c.endedAt >= @since"
_MOST = 10_000


class CosmosAssignments(RuledAssignments):
    """Assignments in a Cosmos DB database."""

    def __init__(self, connection: CosmosConnection) -> None:
        self._connection = connection

    async def get(self, tenant_id: str, run_id: str, key: str) -> Assignment | None:
        """See ``Assignments.get``."""
        found = await self._of(tenant_id).read(run_id, _id(key))
        return _assignment_of(found) if found is not None else None

    async def overdue(self, now: datetime, *, unsent_since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments.overdue``. At most 1,000."""
        values = {"now": iso_utc(now), "unsentSince": iso_utc(unsent_since)}
        find = Find(_OVERDUE, values, bounded(limit), ("createdAt", "key"))
        return tuple(map(_assignment_of, await find_across_tenants(self._connection, RUNS, find)))

    async def ended_since(self, since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments.ended_since``. At most 1,000."""
        find = Find(_ENDED, {"since": iso_utc(since)}, bounded(limit), ("endedAt", "key"))
        return tuple(map(_assignment_of, await find_across_tenants(self._connection, RUNS, find)))

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``Assignments.remove_run``."""
        repository, gone = self._of(tenant_id), 0
        for document in await repository.find(Find(_KIND, {}, _MOST, fields=("id",)), run_id):
            gone += await repository.delete(run_id, document["id"])
        return gone

    async def _update(self, tenant_id: str, run_id: str, key: str, rule: Rule[T]) -> T:
        def change(found: Document | None) -> tuple[T, Document | None]:
            answer, row = rule(_assignment_of(found) if found is not None else None)
            return answer, _document(row) if row is not None else None

        return await self._of(tenant_id).update(run_id, _id(key), change)

    async def _open_of(self, tenant_id: str, run_id: str) -> tuple[Assignment, ...]:
        found = await self._of(tenant_id).find(Find(_OPEN, {}, _MOST, ("createdAt", "key")), run_id)
        return tuple(map(_assignment_of, found))

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, RUNS, tenant_id)


def _id(key: str) -> str:
    return id_of("assignment", key)


def _document(row: Assignment) -> Document:
    return {
        "kind": "assignment",
        "key": row.key,
        "status": row.status.value,
        "createdAt": iso_utc(row.created_at),
        "lookAt": iso_utc(look_at(row)),
        "sentOrMadeAt": iso_utc(unsent_since(row)),
        "endedAt": iso_utc(row.ended_at) if row.ended_at is not None else None,
        "document": row.stored(),
    }


def _assignment_of(document: Document) -> Assignment:
    return Assignment.model_validate_json(document["document"])
