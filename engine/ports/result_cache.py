"""Earlier results of deterministic capabilities: where they lie, by what was asked. Rows hold references, never content."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from engine.domain.run import PayloadRef


@dataclass(frozen=True, slots=True)
class CachedResult:
    """The output ``output`` of a step of ``run_id``, in whose payloads it lies, made at ``made_at``."""

    run_id: str
    output: PayloadRef
    made_at: datetime


class ResultCache(Protocol):
    """Results by tenant and by the hash of what was asked. Losing an entry costs a call, nothing else."""

    async def get(self, tenant_id: str, asked_sha256: str) -> CachedResult | None:
        """The latest result, however old, or None."""
        ...

    async def put(self, tenant_id: str, asked_sha256: str, result: CachedResult) -> None:
        """Remember a result; it replaces an older one, and an older one does not replace it."""
        ...

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """Forget what lies in a run's payloads. Returns how many entries."""
        ...


class NoResultCache:
    """Nothing is remembered."""

    async def get(self, tenant_id: str, asked_sha256: str) -> CachedResult | None:
        """None."""
        return None

    async def put(self, tenant_id: str, asked_sha256: str, result: CachedResult) -> None:
        """Nothing happens."""

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """There is nothing to forget."""
        return 0
