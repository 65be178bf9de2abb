"""How the world comes in: HTTP and timers. Parse, authenticate, hand over; no decision about a run is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ports.deps import DepsProvider

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


def build(deps: DepsProvider, *, streaming: bool) -> list[Blueprint]:
    """Every blueprint of this package. ``streaming`` chooses the way of serving HTTP for the whole app (ADR 0003)."""
    from triggers import (
        http_admin,
        http_approvals,
        http_audit,
        http_audit_content,
        http_checkpoints,
        http_control,
        http_events,
        http_grants,
        http_health,
        http_limits,
        http_plans,
        http_rerun,
        http_runs,
        openapi,
        timer_checkpoints,
        timer_sweep,
    )

    served = [
        m.build(deps, streaming=streaming)
        for m in (
            http_runs,
            http_control,
            http_rerun,
            http_audit,
            http_audit_content,
            http_checkpoints,
            http_approvals,
            http_events,
            http_plans,
            http_grants,
            http_health,
            http_admin,
            http_limits,
            openapi,
        )
    ]
    return [*served, timer_sweep.build(deps), timer_checkpoints.build(deps)]
