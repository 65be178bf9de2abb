"""An audit log that has a checkpoint made after every thousandth record, so that a busy minute does not wait for the clock.

The record is durable whether or not the checkpoint can be made: the timer makes up for it.
"""

from __future__ import annotations

import logging

from engine.domain.audit import AuditEntry, AuditRecord
from engine.ports.audit_log import AuditLog, as_recorded
from engine.ports.checkpoints import Checkpoints

EVERY_RECORDS = 1_000

_LOG = logging.getLogger("livoa.audit")


class WatchedAuditLog:
    """Implements ``AuditLog`` over another one."""

    def __init__(self, inner: AuditLog, checkpoints: Checkpoints, *, every_records: int = EVERY_RECORDS) -> None:
        self._inner, self._checkpoints, self._every = inner, checkpoints, every_records

    async def append(self, entry: AuditEntry) -> AuditRecord:
        """See ``AuditLog.append``."""
        record = await self._inner.append(entry)
        await self.chained(record)
        return record

    async def chained(self, record: AuditRecord) -> None:
        """See ``WatchingAuditLog.chained``."""
        if record.seq % self._every == 0:
            try:
                await self._checkpoints.make(record.tenant_id)
            except Exception:
                _LOG.exception("no checkpoint could be made", extra={"tenant_id": record.tenant_id})

    async def as_recorded(self, entry: AuditEntry) -> AuditEntry:
        """See ``RewritingAuditLog.as_recorded``."""
        return await as_recorded(entry, self._inner)

    async def read(
        self, tenant_id: str, *, after_seq: int, limit: int, run_id: str | None = None
    ) -> tuple[AuditRecord, ...]:
        """See ``AuditLog.read``."""
        return await self._inner.read(tenant_id, after_seq=after_seq, limit=limit, run_id=run_id)

    async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
        """See ``AuditLog.find``."""
        return await self._inner.find(tenant_id, entry_id)
