"""The event log of each run. It shares partition and transactions with the run store: an event is written with its change."""

from __future__ import annotations

from collections.abc import Sequence

from engine.adapters.cosmos.repository import Find
from engine.adapters.cosmos.run_partition import RunPartitions, RunState, Write, events_of
from engine.adapters.store_rules import bounded
from engine.domain.events import NewEvent, RunEvent


class CosmosEventLog:
    """Event logs in a Cosmos DB database."""

    def __init__(self, partitions: RunPartitions) -> None:
        self._partitions = partitions

    async def append(self, tenant_id: str, run_id: str, events: Sequence[NewEvent]) -> tuple[RunEvent, ...]:
        """See ``EventLog.append``."""

        async def plan(state: RunState) -> Write[None]:
            return Write(None) if state.run.status.is_final else Write(None, events=await state.unknown(events))

        return tuple((await self._partitions.write(tenant_id, run_id, plan)).appended)

    async def read(self, tenant_id: str, run_id: str, *, after_seq: int, limit: int) -> tuple[RunEvent, ...]:
        """See ``EventLog.read``. At most 1,000 events a call."""
        size = bounded(limit)
        find = Find("c.kind = 'events' AND c.lastSeq > @after", {"after": after_seq}, size, ("seq",))
        found = await self._partitions.repository(tenant_id).find(find, run_id)
        events = [event for document in found for event in events_of(document) if event.seq > after_seq]
        return tuple(events[:size])

    async def wait(self, tenant_id: str, run_id: str, *, after_seq: int, timeout_s: float) -> bool:
        """See ``EventLog.wait``. An event of another process is noticed within half a second."""

        async def holds() -> bool:
            head = await self._partitions.head(tenant_id, run_id)
            return head is not None and head.last_seq > after_seq

        return await self._partitions.wakeups.wait((tenant_id, run_id), holds, timeout_s)
