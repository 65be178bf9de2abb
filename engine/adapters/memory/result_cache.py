"""Results of deterministic capabilities in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

import threading

from engine.ports.result_cache import CachedResult


class MemoryResultCache:
    """Results by tenant and hash."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: dict[tuple[str, str], CachedResult] = {}

    async def get(self, tenant_id: str, asked_sha256: str) -> CachedResult | None:
        """See ``ResultCache.get``."""
        with self._lock:
            return self._results.get((tenant_id, asked_sha256))

    async def put(self, tenant_id: str, asked_sha256: str, result: CachedResult) -> None:
        """See ``ResultCache.put``."""
        with self._lock:
            known = self._results.get((tenant_id, asked_sha256))
            if known is None or known.made_at < result.made_at:
                self._results[tenant_id, asked_sha256] = result

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``ResultCache.remove_run``."""
        with self._lock:
            gone = [key for key, known in self._results.items() if key[0] == tenant_id and known.run_id == run_id]
            for key in gone:
                del self._results[key]
            return len(gone)
