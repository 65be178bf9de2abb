"""What other systems are to be told of: a document for each write with such events, gone once they are sent."""

from __future__ import annotations

from engine.adapters.cosmos.across_tenants import find_across_tenants
from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.repository import Find, TenantRepository
from engine.adapters.cosmos.run_partition import events_of
from engine.adapters.store_rules import MAX_LIMIT, bounded
from engine.domain.events import RunEvent
from engine.ports.run_messages import WaitingRun


class CosmosOutbox:
    """The outbox in a Cosmos DB database."""

    def __init__(self, connection: CosmosConnection) -> None:
        self._connection = connection

    async def runs_waiting(self, limit: int) -> tuple[WaitingRun, ...]:
        """See ``Outbox.runs_waiting``. Among the oldest 1,000 writes."""
        find = Find("c.kind = 'outbox'", {}, MAX_LIMIT, ("at",), fields=("at",))
        found = await find_across_tenants(self._connection, RUNS, find)
        runs = dict.fromkeys(WaitingRun(document["tenantId"], document["runId"]) for document in found)
        return tuple(runs)[: bounded(limit)]

    async def waiting(self, tenant_id: str, run_id: str, limit: int) -> tuple[RunEvent, ...]:
        """See ``Outbox.waiting``. Of at most ``limit`` writes, each whole: a part of a document cannot be taken out."""
        find = Find("c.kind = 'outbox'", {}, bounded(limit), ("seq",))
        found = await TenantRepository(self._connection, RUNS, tenant_id).find(find, run_id)
        return tuple(event for document in found for event in events_of(document))

    async def told(self, tenant_id: str, run_id: str, *, through_seq: int) -> None:
        """See ``Outbox.told``."""
        repository = TenantRepository(self._connection, RUNS, tenant_id)
        find = Find("c.kind = 'outbox' AND c.lastSeq <= @seq", {"seq": through_seq}, MAX_LIMIT, fields=("id",))
        for document in await repository.find(find, run_id):
            await repository.delete(run_id, document["id"])
