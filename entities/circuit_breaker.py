"""``circuit_breaker``, one per circuit: the shared state of a capability in a region. Rules: ``engine.limits.breaker``.

It is signalled failures, probes and samples of successes, and read by everybody else, so its load does not grow with traffic.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, get_args

from engine.limits.breaker import Breaker, BreakerOp, BreakerRules, CallOutcome, Permit, Report, apply_breaker

if TYPE_CHECKING:
    from azure.durable_functions import DurableEntityContext

_MAX_LEASE_CHARS = 400
_OUTCOMES: dict[Any, CallOutcome] = {outcome: outcome for outcome in get_args(CallOutcome)}
_RULES = frozenset(field.name for field in fields(BreakerRules))


def circuit_breaker(context: DurableEntityContext, now_ms: int) -> None:
    """One operation: ``permit {lease_id, rules?}`` or ``report {lease_id, generation, outcome, rules?}``.

    ``rules`` are those of a tenant that has its own circuits. Result: ``BreakerResult`` as JSON, or
    ``{"error": "breaker.malformed"}``, which changes nothing.
    """
    value = context.get_input()
    op, rules = _parsed(context.operation_name, value), _rules(value)
    if op is None or rules is None:
        context.set_result({"error": "breaker.malformed"})
        return
    stored = context.get_state()
    before = Breaker() if stored is None else Breaker.from_json(stored)
    after, result = apply_breaker(before, op, now_ms, name=context.entity_key, rules=rules)
    context.set_result(asdict(result))
    context.set_state(after.to_json())


def _parsed(operation: str | None, value: Any) -> BreakerOp | None:
    lease_id = value.get("lease_id") if isinstance(value, dict) else None
    if not isinstance(lease_id, str) or not 0 < len(lease_id) <= _MAX_LEASE_CHARS:
        return None
    generation, outcome = value.get("generation"), value.get("outcome")
    match operation:
        case "permit":
            return Permit(lease_id)
        case "report" if isinstance(generation, int) and isinstance(outcome, str) and outcome in _OUTCOMES:
            return Report(lease_id, generation, _OUTCOMES[outcome])
        case _:
            return None


def _rules(value: Any) -> BreakerRules | None:
    """The rules that came along, the platform's when none did, None when they are no rules."""
    given = value.get("rules") if isinstance(value, dict) else None
    if given is None:
        return BreakerRules()
    if not isinstance(given, dict) or set(given) != _RULES:
        return None
    if not all(isinstance(figure, int) and figure > 0 for figure in given.values()):
        return None
    return BreakerRules(**given)
