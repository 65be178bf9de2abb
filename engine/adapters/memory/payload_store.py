"""Payloads in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

import hashlib
import threading

from engine.adapters.payload_rules import checked, payload_not_found, refuse_too_large
from engine.domain.run import PayloadRef
from engine.ports.payload_store import Committed


class MemoryPayloadStore:
    """Content by tenant, run and hash."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, str], dict[str, bytes]] = {}

    async def put(self, tenant_id: str, run_id: str, data: bytes, media_type: str = "application/json") -> PayloadRef:
        """See ``PayloadStore.put``."""
        refuse_too_large(data)
        ref = PayloadRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), media_type=media_type)
        with self._lock:
            self._objects.setdefault((tenant_id, run_id), {})[ref.sha256] = bytes(data)
        return ref

    async def get(self, tenant_id: str, run_id: str, ref: PayloadRef) -> bytes:
        """See ``PayloadStore.get``."""
        with self._lock:
            data = self._objects.get((tenant_id, run_id), {}).get(ref.sha256)
        if data is None:
            raise payload_not_found()
        return checked(data, ref)

    async def committed(self, tenant_id: str, run_id: str, commitment: str) -> Committed:
        """See ``PayloadStore.committed``. Commitments are plain hashes here."""
        with self._lock:
            data = self._objects.get((tenant_id, run_id), {}).get(commitment)
        if data is None:
            raise payload_not_found()
        return Committed(data)

    async def delete_run(self, tenant_id: str, run_id: str) -> int:
        """See ``PayloadStore.delete_run``."""
        with self._lock:
            return len(self._objects.pop((tenant_id, run_id), {}))
