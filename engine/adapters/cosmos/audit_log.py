"""One audit chain per tenant. A record's id is its number and it is only ever created, so a fork is a refused write.

A chain lies in spans of ``SPAN_RECORDS`` records, each a logical partition, because a logical partition has a largest size. Each
span has a document of its own that names the last record: a chain whose tail was cut off shows a gap with the next append.
A known entry is refused by the container's unique key, so nobody has to look for one before each append. Where a container was
made without that key, and for chains that go beyond their first span, it is looked for.
Reads and the search for a known entry follow the read of that document in the same session, so they see all that it sees; this
takes an account with bounded staleness or a stronger consistency, as all stores here do.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from engine.adapters.cosmos.connection import AbsentError, CosmosConnection, MovedError, ResponseHook, UnsureError
from engine.adapters.cosmos.definitions import AUDIT
from engine.adapters.cosmos.repository import Create, Document, Find, Operation, Replace, TenantRepository
from engine.adapters.store_rules import bounded
from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.errors import LivoaError
from engine.evidence import Head, chain

SPAN_RECORDS = 1_000_000
"""Fixed for good: it says where a record lies."""


class CosmosAuditLog:
    """Audit chains in a Cosmos DB database. ``span_records`` is for tests."""

    def __init__(self, connection: CosmosConnection, *, span_records: int = SPAN_RECORDS) -> None:
        self._connection, self._span_records = connection, span_records
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()
        self._last_span: dict[str, int] = {}
        self._unique: bool | None = None

    async def append(self, entry: AuditEntry) -> AuditRecord:
        """See ``AuditLog.append``. Durable when it returns."""
        # Appends of this process wait for each other instead of running into each other's numbers.
        lock = self._locks.setdefault((id(asyncio.get_running_loop()), entry.tenant_id), asyncio.Lock())
        async with lock:
            look = not await self._refuses_twins()

            async def attempt() -> AuditRecord:
                nonlocal look
                try:
                    return await self._append(entry, look=look)
                except (MovedError, UnsureError):
                    look = True  # it may be there already, by another hand or our own
                    raise

            return await self._connection.settled(attempt)

    async def read(
        self, tenant_id: str, *, after_seq: int, limit: int, run_id: str | None = None
    ) -> tuple[AuditRecord, ...]:
        """See ``AuditLog.read``. At most 1,000 records a call."""
        repository, size = self._repository(tenant_id), bounded(limit)
        where, parameters = "c.kind = 'record' AND c.seq > @after", {"after": after_seq, "run": run_id}
        if run_id is None:
            del parameters["run"]
        else:
            where += " AND c.runId = @run"
        found: list[Document] = []
        # Record n lies in span (n - 1) // span_records, so the first one wanted, after_seq + 1, in this one.
        span = max(0, after_seq) // self._span_records
        while len(found) < size:
            found += await repository.find(Find(where, parameters, size - len(found), ("seq",)), str(span))
            if len(found) >= size or not await self._is_full(repository, span):
                break
            span += 1
        return tuple(AuditRecord.model_validate_json(document["document"]) for document in found)

    async def find(self, tenant_id: str, entry_id: str) -> AuditRecord | None:
        """See ``AuditLog.find``."""
        return await self._known(self._repository(tenant_id), entry_id)

    async def _known(self, repository: TenantRepository, entry_id: str) -> AuditRecord | None:
        known = await repository.find(Find("c.entryId = @entry", {"entry": entry_id}, 1))
        return AuditRecord.model_validate_json(known[0]["document"]) if known else None

    async def _refuses_twins(self) -> bool:
        """Whether the container has the unique key that it is defined with. Not while that cannot be told."""
        if self._unique is None:

            async def work(container: Any, charge: ResponseHook) -> Any:
                return await container.read(response_hook=charge)

            try:
                found = await self._connection.call(AUDIT, "properties", work)
            except (LivoaError, AbsentError):
                return False
            keys = (found.get("uniqueKeyPolicy") or {}).get("uniqueKeys") or ()
            self._unique = any(key.get("paths") == list(AUDIT.unique) for key in keys)
        return self._unique

    async def _append(self, entry: AuditEntry, *, look: bool) -> AuditRecord:
        repository = self._repository(entry.tenant_id)
        span, stored = await self._head(repository, entry.tenant_id)
        is_first_span = stored is None or stored["seq"] < self._span_records
        if look or not is_first_span:  # the key holds within a logical partition
            known = await self._known(repository, entry.entry_id)
            if known is not None:
                return known
        record = chain(Head(stored["seq"], stored["hash"]) if stored is not None else None, entry)
        head = {"id": "head", "kind": "head", "seq": record.seq, "hash": record.hash}
        goes_to = (record.seq - 1) // self._span_records
        follows = stored is not None and goes_to == span
        operations: list[Operation] = [Create(_document(record))]
        operations.append(Replace(head, stored["_etag"]) if follows and stored is not None else Create(head))
        await repository.write(str(goes_to), operations)
        self._last_span[entry.tenant_id] = goes_to
        return record

    async def _head(self, repository: TenantRepository, tenant_id: str) -> tuple[int, Document | None]:
        """The span that holds the last record, and the document that names it (None: there is no record)."""
        span = self._last_span.get(tenant_id, 0)
        stored = await repository.read(str(span), "head")
        while stored is not None and stored["seq"] == (span + 1) * self._span_records:
            following = await repository.read(str(span + 1), "head")
            if following is None:
                break
            span, stored = span + 1, following
        return span, stored

    async def _is_full(self, repository: TenantRepository, span: int) -> bool:
        stored = await repository.read(str(span), "head")
        return stored is not None and bool(stored["seq"] == (span + 1) * self._span_records)

    def _repository(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, AUDIT, tenant_id)


def _document(record: AuditRecord) -> Document:
    return {
        "id": f"record:{record.seq:012d}",
        "kind": "record",
        "seq": record.seq,
        "entryId": record.entry_id,
        "runId": record.run_id,
        "document": record.model_dump_json(),
    }
