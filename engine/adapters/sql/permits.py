"""Permits of tenants: one row per tenant and door, a token bucket, changed while it is held."""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, bindparam, insert, select, update

from engine.adapters.admission import bucket_rules
from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import PERMITS
from engine.domain.tenant import Quota
from engine.limits.token_bucket import Bucket, BucketRules, draw_up_to
from engine.ports.quota import Door, PermitBlock

_OF_TENANT = PERMITS.c.tenant_id == bindparam("p_tenant")
_ROW = select(PERMITS.c.left_over, PERMITS.c.at_ms).where(_OF_TENANT)
_SET = update(PERMITS).where(_OF_TENANT).values(left_over=bindparam("p_left"), at_ms=bindparam("p_at"))


class SqlPermitLedger:
    """Permits in a ``Database``, by its clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lease(self, tenant_id: str, quota: Quota, permits: int, door: Door = "submissions") -> PermitBlock:
        """See ``PermitLedger.lease``."""
        now_ms = int(self._database.clock.now().timestamp() * 1_000)
        rules, row_id = bucket_rules(quota, door), _row_id(tenant_id, door)
        return await self._database.write(lambda connection: _lease(connection, row_id, rules, permits, now_ms))


def _row_id(tenant_id: str, door: Door) -> str:
    """A slash is in no tenant's id, so no tenant's row is another's; the hash keeps it as short as an id is."""
    return tenant_id if door == "submissions" else f"{door}/{hashlib.sha256(tenant_id.encode()).hexdigest()}"


def _lease(connection: Connection, row_id: str, rules: BucketRules, permits: int, now_ms: int) -> PermitBlock:
    row = connection.execute(_ROW.with_for_update(), {"p_tenant": row_id}).one_or_none()
    if row is None:
        bucket = Bucket.full(rules, now_ms)
        # A twin that was first refuses this insert, and the second try finds its row.
        connection.execute(insert(PERMITS), {"tenant_id": row_id, "left_over": bucket.left, "at_ms": bucket.at_ms})
    else:
        bucket = Bucket(row.left_over, row.at_ms)
    bucket, taken, retry_after_ms = draw_up_to(bucket, permits, now_ms, rules)
    connection.execute(_SET, {"p_tenant": row_id, "p_left": bucket.left, "p_at": bucket.at_ms})
    return PermitBlock(taken, retry_after_ms)
