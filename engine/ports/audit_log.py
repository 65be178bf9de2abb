"""The audit log: one hash chain per tenant. Write-ahead: when an append fails, the effect it announces must not happen."""

from __future__ import annotations

from typing import Protocol

from engine.domain.audit import AuditEntry, AuditRecord


class AuditLog(Protocol):
    """Append-only chains. No update, no delete."""

    async def append(self, entry: AuditEntry) -> AuditRecord:
        """Chain the entry durably and return its record. A known ``entry_id`` returns the record it already has, whatever
        the time. Raises on any failure: the caller must not go on with the effect."""
        ...

    async def read(
        self, tenant_id: str, *, after_seq: int, limit: int, run_id: str | None = None
    ) -> tuple[AuditRecord, ...]:
        """Records with ``seq > after_seq`` in order, optionally of one run."""
        ...
