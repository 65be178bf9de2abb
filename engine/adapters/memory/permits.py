"""Permits of tenants in memory. One process only."""

from __future__ import annotations

from engine.adapters.admission import bucket_rules
from engine.domain.tenant import Quota
from engine.limits.token_bucket import Bucket, draw_up_to
from engine.ports.clock import Clock
from engine.ports.quota import Door, PermitBlock


class MemoryPermitLedger:
    """A bucket per tenant and door."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, Door], Bucket] = {}

    async def lease(self, tenant_id: str, quota: Quota, permits: int, door: Door = "submissions") -> PermitBlock:
        """See ``PermitLedger.lease``."""
        now_ms, rules = int(self._clock.now().timestamp() * 1_000), bucket_rules(quota, door)
        bucket = self._buckets.get((tenant_id, door)) or Bucket.full(rules, now_ms)
        self._buckets[tenant_id, door], taken, retry_after_ms = draw_up_to(bucket, permits, now_ms, rules)
        return PermitBlock(taken, retry_after_ms)
