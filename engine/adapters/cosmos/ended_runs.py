"""Runs on their way out of Cosmos DB: every document in a run's partition but the record of its key, and elsewhere the claim and
the reservations of its budget.

The run's own document goes last, so a removal that stopped is found and finished. The account of its budget holds amounts only
and expires by itself.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from engine.adapters.cosmos.budget import BUDGET_SCOPE, reservations_of_run
from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.repository import PAGE, Document, Find, TenantRepository
from engine.adapters.cosmos.run_partition import RUN_ID, RunPartitions, run_of
from engine.adapters.store_rules import FINAL_STATUSES, bounded, not_finished
from engine.domain.base import iso_utc
from engine.domain.run import Run
from engine.ports.ended_runs import Stage

_ENDED = (
    "c.kind = 'run' AND ARRAY_CONTAINS(@final, c.status)"
    " AND (NOT IS_DEFINED(c.retentionStage) OR c.retentionStage < @stage)"
    " AND (c.updatedAt < @before OR (NOT IS_DEFINED(c.updatedAt) AND c.createdAt < @before))"
)
_DELETES_AT_ONCE = 16


class CosmosEndedRuns:
    """Ended runs in a Cosmos DB database."""

    def __init__(self, partitions: RunPartitions) -> None:
        self._partitions = partitions

    async def ended(self, tenant_id: str, *, before: datetime, stage: Stage, limit: int) -> tuple[Run, ...]:
        """See ``EndedRuns.ended``. Of more than ``limit`` any, and those in order."""
        values = {"final": list(FINAL_STATUSES), "stage": stage.value, "before": iso_utc(before)}
        found = await self._partitions.repository(tenant_id).find(Find(_ENDED, values, bounded(limit)))
        return tuple(sorted(map(run_of, found), key=lambda run: (run.updated_at, run.run_id)))

    async def mark(self, tenant_id: str, run_id: str, stage: Stage) -> None:
        """See ``EndedRuns.mark``. A run that is written once more after it ended loses its mark, and is looked at again."""

        def change(found: Document | None) -> tuple[None, Document | None]:
            return None, found | {"retentionStage": stage.value} if found is not None else None

        await self._partitions.repository(tenant_id).update(run_id, RUN_ID, change)

    async def remove(self, tenant_id: str, run_id: str) -> bool:
        """See ``EndedRuns.remove``."""
        repository = self._partitions.repository(tenant_id)
        head = await self._partitions.head(tenant_id, run_id)
        if head is not None and not head.run.status.is_final:
            raise not_finished(head.run)
        find = Find("NOT ARRAY_CONTAINS(@stay, c.id)", {"stay": [RUN_ID, "key"]}, PAGE, fields=("id",))
        await _delete_found(repository, find, run_id)
        tenants = TenantRepository(self._partitions.connection, TENANTS, tenant_id)
        await _delete_found(tenants, reservations_of_run(run_id), BUDGET_SCOPE)
        if head is None:
            return False
        made = Find("c.kind = 'claim' AND c.createId = @create", {"create": head.create_id}, PAGE, fields=("id",))
        await _delete(tenants, [(document["scope"], document["id"]) for document in await tenants.find(made)])
        return await repository.delete(run_id, RUN_ID)


async def _delete_found(repository: TenantRepository, find: Find, scope: str) -> None:
    while found := await repository.find(find, scope):
        await _delete(repository, [(scope, document["id"]) for document in found])


async def _delete(repository: TenantRepository, places: list[tuple[str, str]]) -> None:
    for start in range(0, len(places), _DELETES_AT_ONCE):
        await asyncio.gather(*(repository.delete(*place) for place in places[start : start + _DELETES_AT_ONCE]))
