"""Putting a fact on record so that what stands there is that very fact.

An id that is known keeps its record, which is right for the same fact delivered twice. But a second delivery may differ: policy,
the catalog or what was read has changed since, or somebody with the database has written the id first. Such a fact gets a
record of its own, beside the other.
"""

from __future__ import annotations

from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.errors import LivoaError
from engine.evidence.canonical import canonical_sha256
from engine.ports.audit_log import AuditLog, as_recorded


async def put_on_record(entry: AuditEntry, audit: AuditLog) -> AuditRecord:
    """The record that says what ``entry`` says, under its id or under one that its body's hash makes its own.

    Raises what ``AuditLog.append`` does, and ``LivoaError("audit.entry_taken")`` when something else stands under both.
    """
    wanted = await as_recorded(entry, audit)
    record = await audit.append(entry)
    if says(record, wanted):
        return record
    own = beside(entry, wanted)
    record = await audit.append(own)
    if not says(record, await as_recorded(own, audit)):
        raise entry_taken()
    return record


def says(record: AuditRecord, entry: AuditEntry) -> bool:
    """True when the record is of this fact. ``entry`` as it is recorded."""
    return (record.type, record.run_id, record.actor, record.body) == (
        entry.type,
        entry.run_id,
        entry.actor,
        entry.body,
    )


def beside(entry: AuditEntry, wanted: AuditEntry) -> AuditEntry:
    """The entry under an id of its own, for when its id is another fact's. ``wanted`` is the entry as it is recorded."""
    return entry.model_copy(update={"entry_id": f"{entry.entry_id}/{canonical_sha256(wanted.body)[:16]}"})


def entry_taken() -> LivoaError:
    """Something else stands under both ids."""
    return LivoaError("audit.entry_taken", "the audit log holds something else under this entry's id", status=500)
