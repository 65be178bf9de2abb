"""Audit chains in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

import threading

from engine.adapters.store_rules import bounded
from engine.domain.audit import AuditEntry, AuditRecord
from engine.evidence import chain


class MemoryAuditLog:
    """One list of records per tenant."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chains: dict[str, list[AuditRecord]] = {}
        self._by_entry: dict[tuple[str, str], AuditRecord] = {}

    async def append(self, entry: AuditEntry) -> AuditRecord:
        """See ``AuditLog.append``."""
        with self._lock:
            known = self._by_entry.get((entry.tenant_id, entry.entry_id))
            if known is not None:
                return known
            records = self._chains.setdefault(entry.tenant_id, [])
            # Through JSON, so that the caller's body can change without the record changing with it.
            record = AuditRecord.model_validate_json(chain(records[-1] if records else None, entry).model_dump_json())
            records.append(record)
            self._by_entry[entry.tenant_id, entry.entry_id] = record
            return record

    async def read(
        self, tenant_id: str, *, after_seq: int, limit: int, run_id: str | None = None
    ) -> tuple[AuditRecord, ...]:
        """See ``AuditLog.read``. At most 1,000 records a call."""
        with self._lock:
            records = self._chains.get(tenant_id, [])[max(0, after_seq) :]
            return tuple(r for r in records if run_id is None or r.run_id == run_id)[: bounded(limit)]

    async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
        """See ``AuditLog.find``."""
        with self._lock:
            return self._by_entry.get((tenant_id, entry_id))
