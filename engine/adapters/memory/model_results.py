"""Results of model calls in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

import threading

from engine.domain.errors import LivoaError
from engine.ports.model_results import ModelCallKey, ModelResultRecord


class MemoryModelResults:
    """Results and request counts by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[ModelCallKey, int] = {}
        self._results: dict[ModelCallKey, ModelResultRecord] = {}

    def forget(self, tenant_id: str, run_id: str) -> None:
        """Remove a run's results."""
        with self._lock:
            for kept in (self._requests, self._results):
                for key in [key for key in kept if (key.tenant_id, key.run_id) == (tenant_id, run_id)]:
                    del kept[key]

    async def get(self, key: ModelCallKey) -> ModelResultRecord | None:
        """See ``ModelResults.get``."""
        with self._lock:
            return self._results.get(key)

    async def begin(self, key: ModelCallKey) -> int:
        """See ``ModelResults.begin``."""
        with self._lock:
            self._requests[key] = self._requests.get(key, 0) + 1
            return self._requests[key]

    async def put(self, key: ModelCallKey, result: ModelResultRecord) -> ModelResultRecord:
        """See ``ModelResults.put``."""
        with self._lock:
            if key not in self._requests:
                raise LivoaError("store.unavailable", "a model's result came without its request", status=503)
            return self._results.setdefault(key, result)
