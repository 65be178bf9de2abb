"""One audit chain per tenant. Appends stand in one line per tenant and can neither fork nor leave a gap.

SQLite: the write transaction excludes every other writer, of this process or another. PostgreSQL: the tenant's head row is
locked. Either way (tenant, seq) is the primary key, so a fork would be a refused insert and not a second branch.
The head is kept in a row of its own: a chain whose tail was cut off shows a gap as soon as the next record is appended.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.adapters.sql.engine import Database
from engine.adapters.sql.prepared import Prepared
from engine.adapters.sql.tables import AUDIT_HEADS, AUDIT_RECORDS
from engine.adapters.store_rules import bounded
from engine.domain.audit import AuditEntry, AuditRecord
from engine.evidence import Head, chain
from engine.evidence.on_record import beside, entry_taken, says

_KNOWN = (
    select(AUDIT_RECORDS.c.document)
    .where(AUDIT_RECORDS.c.tenant_id == bindparam("p_tenant"), AUDIT_RECORDS.c.entry_id == bindparam("p_entry"))
    .scalar_subquery()
)
_FIND = Prepared(select(_KNOWN.label("known")))
_HEAD = Prepared(
    select(AUDIT_HEADS.c.seq, AUDIT_HEADS.c.hash, _KNOWN.label("known"))
    .where(AUDIT_HEADS.c.tenant_id == bindparam("p_tenant"))
    .with_for_update()
)
_SET_HEAD = Prepared(
    update(AUDIT_HEADS)
    .where(AUDIT_HEADS.c.tenant_id == bindparam("p_tenant"))
    .values(seq=bindparam("p_seq"), hash=bindparam("p_hash"))
)
_ADD_HEAD = Prepared(insert(AUDIT_HEADS))
_ADD_RECORD = Prepared(insert(AUDIT_RECORDS))
_READ = (
    select(AUDIT_RECORDS.c.document)
    .where(AUDIT_RECORDS.c.tenant_id == bindparam("p_tenant"), AUDIT_RECORDS.c.seq > bindparam("p_after"))
    .order_by(AUDIT_RECORDS.c.seq)
    .limit(bindparam("p_limit"))
)
_READ_OF_RUN = _READ.where(AUDIT_RECORDS.c.run_id == bindparam("p_run"))


class SqlAuditLog:
    """Audit chains in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entry: AuditEntry) -> AuditRecord:
        """See ``AuditLog.append``. Durable (synced) when it returns."""
        return await self._database.write(lambda connection: _append(connection, entry))

    async def read(
        self, tenant_id: str, *, after_seq: int, limit: int, run_id: str | None = None
    ) -> tuple[AuditRecord, ...]:
        """See ``AuditLog.read``. At most 1,000 records a call."""
        parameters = {"p_tenant": tenant_id, "p_after": after_seq, "p_limit": bounded(limit)}
        query = _READ
        if run_id is not None:
            query, parameters = _READ_OF_RUN, parameters | {"p_run": run_id}
        documents = await self._database.read(lambda connection: connection.execute(query, parameters).scalars().all())
        return tuple(AuditRecord.model_validate_json(document) for document in documents)

    async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
        """See ``AuditLog.find``."""
        parameters = {"p_tenant": tenant_id, "p_entry": entry_id}
        document = await self._database.read(lambda connection: _FIND.scalar(connection, parameters))
        return None if document is None else AuditRecord.model_validate_json(document)


def record_in(connection: Connection, wanted: AuditEntry) -> AuditRecord:
    """``put_on_record`` within a transaction, which holds the tenant's head from then on. ``wanted``: the entry as recorded."""
    record = _append(connection, wanted)
    if says(record, wanted):
        return record
    own = beside(wanted, wanted)
    record = _append(connection, own)
    if not says(record, own):
        raise entry_taken()
    return record


def _append(connection: Connection, entry: AuditEntry) -> AuditRecord:
    head = _HEAD.first(connection, {"p_tenant": entry.tenant_id, "p_entry": entry.entry_id})
    # PostgreSQL may have looked for the entry before it waited for the head; a twin written meanwhile then refuses the insert
    # below, and the second try finds it.
    if head is not None and head.known is not None:
        return AuditRecord.model_validate_json(head.known)
    record = chain(Head(head.seq, head.hash) if head else None, entry)
    if head is None:
        _ADD_HEAD.run(connection, {"tenant_id": record.tenant_id, "seq": record.seq, "hash": record.hash})
    else:
        _SET_HEAD.run(connection, {"p_tenant": record.tenant_id, "p_seq": record.seq, "p_hash": record.hash})
    row = {
        "tenant_id": record.tenant_id,
        "seq": record.seq,
        "entry_id": record.entry_id,
        "run_id": record.run_id,
        "document": record.model_dump_json(),
    }
    _ADD_RECORD.run(connection, row)
    return record
