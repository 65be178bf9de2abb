"""Keys of runs: one document in the partition of its run, which outlives its key so that no second one is made."""

from __future__ import annotations

import asyncio
import base64
from datetime import datetime

from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import RUNS
from engine.adapters.cosmos.repository import PAGE, Document, Find, TenantRepository
from engine.adapters.cosmos.run_partition import RUN_ID
from engine.adapters.store_rules import bounded
from engine.domain.base import iso_utc
from engine.ports.run_keys import RunKey, WrappedKey

_KEY_ID = "key"
_USABLE, _OWNED, _DESTROYED = "usable", "owned", "destroyed"
"""States of a key record. ``owned`` is usable too: its run was seen to exist."""
_UNOWNED = (
    "c.kind = 'key' AND c.state = 'usable' AND c.createdAt < @before "
    "AND (c.createdAt > @at OR (c.createdAt = @at AND c.runId > @run))"
)
MAX_LOOKED_AT = 5_000
"""Keys that one call looks at; the next one goes on, because those with a run are marked."""
_AT_ONCE = 16


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
        """See ``RunKeys.ownerless``.

        Looks at no more than ``MAX_LOOKED_AT`` keys, oldest first. A key whose run exists is marked, so that each is looked at
        once in its life and not by every pass: its run cannot go before the key does.
        """
        repository, size = self._of(tenant_id), bounded(limit)
        orphans: list[RunKey] = []
        at, run_id = "", ""
        for _ in range(MAX_LOOKED_AT // PAGE):
            values = {"before": iso_utc(created_before), "at": at, "run": run_id}
            found = await repository.find(Find(_UNOWNED, values, PAGE, ("createdAt", "runId")))
            for first in range(0, len(found), _AT_ONCE):
                some = found[first : first + _AT_ONCE]
                owned = await asyncio.gather(*(self._is_owned(repository, each["runId"]) for each in some))
                orphans += [_key_of(key) for key, has_run in zip(some, owned, strict=True) if not has_run]
                if len(orphans) >= size:
                    return tuple(orphans[:size])
            if len(found) < PAGE:
                break
            at, run_id = found[-1]["createdAt"], found[-1]["runId"]
        return tuple(orphans)

    async def _is_owned(self, repository: TenantRepository, run_id: str) -> bool:
        if await repository.read(run_id, RUN_ID) is None:
            return False

        def change(found: Document | None) -> tuple[None, Document | None]:
            usable = found is not None and found["state"] == _USABLE
            return None, _document(_key_of(found)) | {"state": _OWNED} if found is not None and usable else None

        await repository.update(run_id, _KEY_ID, change)
        return True

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, RUNS, tenant_id)


def _document(key: RunKey) -> Document:
    wrapped = key.wrapped
    return {
        "kind": "key",
        "state": _USABLE if wrapped is not None else _DESTROYED,
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
