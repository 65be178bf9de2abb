"""Keys of runs: one document in the partition of its run, which outlives its key so that no second one is made."""

from __future__ import annotations

import base64
from datetime import datetime

from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.repository import PAGE, Document, Find, TenantRepository
from engine.adapters.store_rules import bounded
from engine.domain.base import iso_utc
from engine.ports.run_keys import RunKey, WrappedKey

_KEY_ID = "key"
_RUNS_AND_KEYS = (
    "c.runId > @after AND (c.kind = 'run' OR (c.kind = 'key' AND c.createdAt < @before AND c.state = 'usable'))"
)


class CosmosRunKeys:
    """Key records in a Cosmos DB database."""

    def __init__(self, connection: CosmosConnection) -> None:
        self._connection = connection

    async def get(self, tenant_id: str, run_id: str) -> RunKey | None:
        """See ``RunKeys.get``."""
        found = await self._of(tenant_id).read(run_id, _KEY_ID)
        return _key_of(found) if found is not None else None

    async def create(self, key: RunKey) -> RunKey:
        """See ``RunKeys.create``."""

        def change(found: Document | None) -> tuple[RunKey, Document | None]:
            return (_key_of(found), None) if found is not None else (key, _document(key))

        return await self._of(key.tenant_id).update(key.run_id, _KEY_ID, change)

    async def destroy(self, tenant_id: str, run_id: str, at: datetime) -> RunKey:
        """See ``RunKeys.destroy``."""

        def change(found: Document | None) -> tuple[RunKey, Document | None]:
            stands = _key_of(found) if found is not None else RunKey(tenant_id, run_id, "", None, at)
            if stands.destroyed_at is not None:
                return stands, None
            gone = RunKey(tenant_id, run_id, stands.key_id, None, stands.created_at, at)
            return gone, _document(gone)

        return await self._of(tenant_id).update(run_id, _KEY_ID, change)

    async def ownerless(self, tenant_id: str, *, created_before: datetime, limit: int) -> tuple[RunKey, ...]:
        """See ``RunKeys.ownerless``. Walks over the tenant's runs and keys, a page at a time."""
        repository, size, after = self._of(tenant_id), bounded(limit), ""
        orphans: list[RunKey] = []
        while len(orphans) < size:
            values = {"after": after, "before": iso_utc(created_before)}
            find = Find(_RUNS_AND_KEYS, values, PAGE, ("runId",), fields=("kind",))
            found = await repository.find(find)
            whole = len(found) < PAGE
            # The last run of a full page may have its other document on the next one.
            last = found[-1]["runId"] if found and not whole else None
            page = [document for document in found if document["runId"] != last]
            owned = {document["runId"] for document in page if document["kind"] == "run"}
            for document in page:
                if document["kind"] == "key" and document["runId"] not in owned:
                    key = await self.get(tenant_id, document["runId"])
                    orphans += [key] if key is not None and key.wrapped is not None else []
            if whole:
                break
            after = page[-1]["runId"]
        return tuple(orphans[:size])

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, RUNS, tenant_id)


def _document(key: RunKey) -> Document:
    wrapped = key.wrapped
    return {
        "kind": "key",
        "state": "usable" if wrapped is not None else "destroyed",
        "keyId": key.key_id,
        "kekId": wrapped.kek_id if wrapped is not None else "",
        "wrapped": base64.b64encode(wrapped.data).decode() if wrapped is not None else None,
        "createdAt": iso_utc(key.created_at),
        "destroyedAt": iso_utc(key.destroyed_at) if key.destroyed_at is not None else None,
    }


def _key_of(document: Document) -> RunKey:
    wrapped, ended = document["wrapped"], document["destroyedAt"]
    return RunKey(
        document["tenantId"],
        document["runId"],
        document["keyId"],
        WrappedKey(document["kekId"], base64.b64decode(wrapped)) if wrapped is not None else None,
        datetime.fromisoformat(document["createdAt"]),
        datetime.fromisoformat(ended) if ended is not None else None,
    )
