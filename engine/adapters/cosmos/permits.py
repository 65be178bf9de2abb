"""Permits of tenants: one document per tenant and door, a token bucket, changed under its etag."""

from __future__ import annotations

from engine.adapters.admission import bucket_rules
from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.repository import Document, TenantRepository
from engine.domain.tenant import Quota
from engine.limits.token_bucket import Bucket, draw_up_to
from engine.ports.clock import Clock
from engine.ports.quota import Door, PermitBlock


class CosmosPermitLedger:
    """Permits in a Cosmos DB database, by ``clock``. A block whose answer was lost is gone: fewer come in, never more."""

    def __init__(self, connection: CosmosConnection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock

    async def lease(self, tenant_id: str, quota: Quota, permits: int, door: Door = "submissions") -> PermitBlock:
        """See ``PermitLedger.lease``."""
        now_ms, rules = int(self._clock.now().timestamp() * 1_000), bucket_rules(quota, door)

        def draw(found: Document | None) -> tuple[PermitBlock, Document]:
            bucket = Bucket(found["left"], found["atMs"]) if found is not None else Bucket.full(rules, now_ms)
            bucket, taken, retry_after_ms = draw_up_to(bucket, permits, now_ms, rules)
            return PermitBlock(taken, retry_after_ms), {"kind": "permits", "left": bucket.left, "atMs": bucket.at_ms}

        name = "bucket" if door == "submissions" else door
        return await TenantRepository(self._connection, TENANTS, tenant_id).update("permits", name, draw)
