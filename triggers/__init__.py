"""How the world comes in: HTTP, messages and timers. Parse, authenticate, hand over; no decision about a run is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ports.deps import DepsProvider

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


def build(deps: DepsProvider, *, streaming: bool, results_queue: str | None = None) -> list[Blueprint]:
    """Every blueprint of this package. ``streaming`` chooses the way of serving HTTP for the whole app (ADR 0003).
    ``results_queue`` is where workers answer; None where there is no bus, and then no queue is read."""
    built = [*_http(deps, streaming=streaming), *_timers(deps)]
    return built if results_queue is None else [*built, *_bus(deps, results_queue)]


# Imported inside, because whoever needs one view of this package must not load all of it.


def _http(deps: DepsProvider, *, streaming: bool) -> list[Blueprint]:
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
        http_links,
        http_plans,
        http_rerun,
        http_retention,
        http_runs,
        openapi,
    )  # fmt: skip

    served = (
        http_runs, http_control, http_rerun, http_retention, http_links, http_audit, http_audit_content, http_checkpoints,
        http_approvals, http_events, http_plans, http_grants, http_health, http_admin, http_limits, openapi,
    )  # fmt: skip
    return [module.build(deps, streaming=streaming) for module in served]


def _timers(deps: DepsProvider) -> list[Blueprint]:
    from triggers import timer_checkpoints, timer_retention, timer_sweep

    return [timer_sweep.build(deps), timer_checkpoints.build(deps), timer_retention.build(deps)]


def _bus(deps: DepsProvider, results_queue: str) -> list[Blueprint]:
    from triggers import bus_run_requests, bus_step_results, timer_run_events

    return [
        bus_run_requests.build(deps),
        timer_run_events.build(deps),
        bus_step_results.build(deps, queue=results_queue),
    ]
