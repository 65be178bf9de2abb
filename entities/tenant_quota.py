"""``tenant_quota``, one per tenant (key: the tenant): the leases of its runs. See ``engine.limits.quota`` for every rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.limits.quota import Acquire, QuotaOp, QuotaState, Release, Renew, apply_quota

if TYPE_CHECKING:
    from azure.durable_functions import DurableEntityContext


def tenant_quota(context: DurableEntityContext, now_ms: int) -> None:
    """One operation: ``acquire {run_id, limit, lease_ms}``, ``renew {run_id, lease_ms}``, ``release {run_id}``.

    Result: ``QuotaResult`` as JSON, or ``{"error": "quota.malformed"}``, which changes nothing.
    """
    op = _parsed(context.operation_name, context.get_input())
    if op is None:
        context.set_result({"error": "quota.malformed"})
        return
    stored = context.get_state()
    before = QuotaState() if stored is None else QuotaState.from_json(stored)
    after, result = apply_quota(before, op, now_ms)
    context.set_result(result.to_json())
    context.set_state(after.to_json())


def _parsed(operation: str | None, value: Any) -> QuotaOp | None:
    if not isinstance(value, dict) or not isinstance(run_id := value.get("run_id"), str) or not 0 < len(run_id) <= 100:
        return None
    limit, lease_ms = _positive(value.get("limit")), _positive(value.get("lease_ms"))
    match operation:
        case "acquire" if limit and lease_ms:
            return Acquire(run_id, limit, lease_ms)
        case "renew" if lease_ms:
            return Renew(run_id, lease_ms)
        case "release":
            return Release(run_id)
        case _:
            return None


def _positive(value: Any) -> int:
    """The value when it is a positive integer, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
