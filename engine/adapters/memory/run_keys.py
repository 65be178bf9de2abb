"""Keys of runs in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from engine.adapters.memory.run_store import MemoryRunStore
from engine.adapters.store_rules import bounded
from engine.ports.run_keys import RunKey


class MemoryRunKeys:
    """Key records by tenant and run. ``runs`` says which of them belong to a run."""

    def __init__(self, runs: MemoryRunStore | None = None) -> None:
        self._runs = runs
        self._rows: dict[tuple[str, str], RunKey] = {}

    async def get(self, tenant_id: str, run_id: str) -> RunKey | None:
        """See ``RunKeys.get``."""
        return self._rows.get((tenant_id, run_id))

    async def create(self, key: RunKey) -> RunKey:
        """See ``RunKeys.create``."""
        return self._rows.setdefault((key.tenant_id, key.run_id), key)

    async def destroy(self, tenant_id: str, run_id: str, at: datetime) -> RunKey:
        """See ``RunKeys.destroy``."""
        found = self._rows.get((tenant_id, run_id)) or RunKey(tenant_id, run_id, "", None, at)
        gone = replace(found, wrapped=None, destroyed_at=found.destroyed_at or at)
        self._rows[tenant_id, run_id] = gone
        return gone

    async def ownerless(self, tenant_id: str, *, created_before: datetime, limit: int) -> tuple[RunKey, ...]:
        """See ``RunKeys.ownerless``."""
        found = [
            key
            for place, key in sorted(self._rows.items())
            if place[0] == tenant_id and key.wrapped is not None and key.created_at < created_before
        ]
        orphans = [key for key in found if self._runs is None or await self._runs.get(tenant_id, key.run_id) is None]
        return tuple(orphans[: bounded(limit)])
