"""Results of deterministic capabilities: one document per tenant and question, which expires by itself."""

from __future__ import annotations

from datetime import datetime

from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.repository import Document, Find, TenantRepository
from engine.adapters.cosmos.run_partition import id_of
from engine.domain.base import iso_utc
from engine.domain.run import PayloadRef
from engine.ports.result_cache import CachedResult

RESULT_TTL_S = 30 * 24 * 3_600
"""A result nobody renewed for a month. Losing one costs a call."""
_AT_ONCE = 1_000


class CosmosResultCache:
    """Cached results in a Cosmos DB database."""

    def __init__(self, connection: CosmosConnection) -> None:
        self._connection = connection

    async def get(self, tenant_id: str, asked_sha256: str) -> CachedResult | None:
        """See ``ResultCache.get``."""
        found = await self._of(tenant_id).read(_scope(asked_sha256), "result")
        if found is None:
            return None
        output = PayloadRef.model_validate_json(found["document"])
        return CachedResult(found["forRun"], output, datetime.fromisoformat(found["madeAt"]))

    async def put(self, tenant_id: str, asked_sha256: str, result: CachedResult) -> None:
        """See ``ResultCache.put``."""
        made_at = iso_utc(result.made_at)

        def keep(found: Document | None) -> tuple[None, Document | None]:
            if found is not None and found["madeAt"] >= made_at:
                return None, None
            facts = {"kind": "result", "forRun": result.run_id, "madeAt": made_at, "ttl": RESULT_TTL_S}
            return None, facts | {"document": result.output.model_dump_json()}

        await self._of(tenant_id).update(_scope(asked_sha256), "result", keep)

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``ResultCache.remove_run``. A result of another run that replaces one meanwhile may go with it."""
        repository, gone = self._of(tenant_id), 0
        find = Find("c.kind = 'result' AND c.forRun = @run", {"run": run_id}, _AT_ONCE, fields=("id",))
        while found := await repository.find(find):
            for document in found:
                gone += await repository.delete(document["scope"], document["id"])
        return gone

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, TENANTS, tenant_id)


def _scope(asked_sha256: str) -> str:
    return id_of("result", asked_sha256)
