"""The audit log: one hash chain per tenant. Write-ahead: when an append fails, the effect it announces must not happen."""

from __future__ import annotations

from typing import Protocol, TypeGuard

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

    async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
        """The record that an entry of this id has, or None."""
        ...


class RewritingAuditLog(AuditLog, Protocol):
    """An audit log whose records say the same as their entries in another form, such as commitments in the place of hashes."""

    async def as_recorded(self, entry: AuditEntry) -> AuditEntry:
        """The entry as ``append`` chains it, so that a record can be held against it. Raises what ``append`` does."""
        ...


async def as_recorded(entry: AuditEntry, log: AuditLog) -> AuditEntry:
    """What a record of this entry says in that log."""
    return await log.as_recorded(entry) if _rewrites(log) else entry


class WatchingAuditLog(AuditLog, Protocol):
    """An audit log that does something once a record stands."""

    async def chained(self, record: AuditRecord) -> None:
        """What ``append`` does after it chained ``record``. Raises nothing: the record stands."""
        ...


async def chained(record: AuditRecord, log: AuditLog) -> None:
    """Tell the log of a record that was chained together with other writes, and not by its ``append``."""
    if _watches(log):
        await log.chained(record)


def _watches(log: AuditLog) -> TypeGuard[WatchingAuditLog]:
    return hasattr(log, "chained")


def _rewrites(log: AuditLog) -> TypeGuard[RewritingAuditLog]:
    # Not isinstance: that would look at every member of the protocol, twice for each record.
    return hasattr(log, "as_recorded")
