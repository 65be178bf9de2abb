"""The doors for submissions and for links: for each a token bucket per tenant, of which every process takes a block at a time.

Permits of a block are good for ``BLOCK_MS``; what is left of it then is lost, so that no process hoards. Blocks begin with one
permit and double while they are used up in time: a tenant whose requests are spread over many processes loses little.

While the shared count cannot be reached, a few emergency permits keep single requests alive, then nothing comes in: it fails
closed.

The shared count is a row of the run store's database and not a durable entity: a trigger can signal and read an entity, but
not call it, and a permit is worth nothing without its answer.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from engine.domain.tenant import Quota
from engine.limits.token_bucket import BucketRules
from engine.ports.clock import Clock
from engine.ports.quota import Admitted, Door, PermitLedger

BLOCK_MS = 10_000
OUTAGE_RETRY_S = 5
MAX_TENANTS = 10_000
_LOG = logging.getLogger("livoa.admission")


@dataclass(slots=True)
class _Block:
    size: int = 1
    permits: int = 0
    until_ms: int = 0
    refused_until_ms: int = 0
    emergency_used: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class BlockAdmission:
    """Implements ``Admission``. One per process."""

    def __init__(self, ledger: PermitLedger, clock: Clock) -> None:
        self._ledger, self._clock = ledger, clock
        self._blocks: dict[tuple[str, Door], _Block] = {}

    async def admit(self, tenant_id: str, quota: Quota, door: Door = "submissions") -> Admitted:
        """See ``Admission``."""
        if (tenant_id, door) not in self._blocks and len(self._blocks) >= MAX_TENANTS:
            self._blocks.clear()
        block = self._blocks.setdefault((tenant_id, door), _Block())
        async with block.lock:  # one process takes one block at a time
            if (known := self._known(block)) is not None:
                return known
            return await self._leased(tenant_id, quota, block, door)

    def _known(self, block: _Block) -> Admitted | None:
        """The answer that needs nobody: a permit in hand, or a refusal that still holds."""
        now_ms = self._now_ms()
        if block.permits and now_ms < block.until_ms:
            block.permits -= 1
            return Admitted(granted=True)
        if now_ms < block.refused_until_ms:
            return _refused(block.refused_until_ms - now_ms)
        return None

    async def _leased(self, tenant_id: str, quota: Quota, block: _Block, door: Door) -> Admitted:
        was_used_up = not block.permits and self._now_ms() < block.until_ms
        size = min(2 * block.size if was_used_up else 1, quota.permits_per_block)
        try:
            taken = await self._ledger.lease(tenant_id, quota, size, door)
        except Exception:
            # Whatever the store has: the count is unknown.
            _LOG.warning("permits cannot be counted, %d emergency permits used", block.emergency_used, exc_info=True)
            if block.emergency_used < quota.emergency_permits:
                block.emergency_used += 1
                return Admitted(granted=True)
            return Admitted(granted=False, retry_after_s=OUTAGE_RETRY_S)
        now_ms = self._now_ms()
        block.emergency_used = 0
        block.size, block.permits, block.until_ms = size, max(0, taken.permits - 1), now_ms + BLOCK_MS
        if taken.permits:
            return Admitted(granted=True)
        block.refused_until_ms = now_ms + taken.retry_after_ms
        return _refused(taken.retry_after_ms)

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1_000)


def bucket_rules(quota: Quota, door: Door = "submissions") -> BucketRules:
    """A tenant's bucket for a door."""
    if door == "links":
        return BucketRules(quota.links_per_minute, quota.link_burst, period_s=60)
    return BucketRules(quota.submissions_per_minute, quota.burst, period_s=60)


def _refused(wait_ms: int) -> Admitted:
    return Admitted(granted=False, retry_after_s=max(1, -(-wait_ms // 1_000)))
