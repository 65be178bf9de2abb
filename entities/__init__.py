"""Durable entities: thin shells around the pure reducers of ``engine.limits``. What they decide is decided there.

The durable SDK does not undo what a failed operation did to the state. So an operation computes the new state and its result
first, both as values, and sets the state in its last statement; what cannot be understood is answered, not raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.domain.names import CIRCUIT_BREAKER, TENANT_QUOTA
from engine.ports.deps import DepsProvider

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint, DurableEntityContext


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of both entities. Of ``deps`` they use the clock."""
    from azure.durable_functions import Blueprint

    from entities.circuit_breaker import circuit_breaker
    from entities.tenant_quota import tenant_quota

    def now_ms() -> int:
        return int(deps().clock.now().timestamp() * 1_000)

    # The Python worker refuses any other parameter name than "context".
    def quota(context: DurableEntityContext) -> None:
        tenant_quota(context, now_ms())

    def breaker(context: DurableEntityContext) -> None:
        circuit_breaker(context, now_ms())

    blueprint = Blueprint()
    for name, body in ((TENANT_QUOTA, quota), (CIRCUIT_BREAKER, breaker)):
        body.__name__ = name
        blueprint.entity_trigger(context_name="context", entity_name=name)(body)
    return blueprint
