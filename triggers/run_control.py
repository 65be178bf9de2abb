"""What suspending, resuming and terminating do, in an order in which dying between any two steps loses nothing.

The audit record comes first, then the store, which is the truth; telling the durable engine only saves waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

from engine.domain.audit import AuditEntry, AuditType
from engine.domain.base import JsonObject
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import EventType, NewEvent, RunEventData, new_event
from engine.domain.names import TENANT_QUOTA, map_part_id, resume_event
from engine.domain.run import PayloadRef, Run
from engine.domain.status import RunStatus, StepStatus
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from engine.ports.deps import Deps
from engine.ports.run_store import RunChange
from engine.scheduler import part_starts
from engine.step_runner import SUSPENDABLE, finish_run
from triggers.endpoint import Call
from triggers.starting import is_started, try_start
from triggers.submission import append_audit

_LOG = logging.getLogger("livoa.runs")
TERMINATED_CODE = "run.terminated"
_SUSPENDED = frozenset({RunStatus.SUSPENDED})


async def suspend(run: Run, call: Call) -> Run:
    """Suspend the run; one that is suspended stays so. Raises ``ConflictError("run.finished" | "run.cancelling")``."""
    if run.status is RunStatus.SUSPENDED:
        return run
    await append_audit(_entry(run, call, AuditType.RUN_SUSPENDED), call.deps)
    change = RunChange(status=RunStatus.SUSPENDED, suspended_reason="request")
    event = _event(run, EventType.RUN_SUSPENDED, "suspended on request")
    try:
        return await call.deps.runs.change(run.tenant_id, run.run_id, change, [event], only_from=SUSPENDABLE)
    except ConflictError:
        current = await call.deps.runs.get(run.tenant_id, run.run_id) or run
        if current.status is RunStatus.SUSPENDED:
            return current
        raise _not_now(current, "suspend") from None


async def resume(run: Run, call: Call, limit_micro_usd: int | None) -> Run:
    """Resume the run, with a higher budget if one is given.

    Raises ``ConflictError("run.not_suspended")``, ``LivoaError`` 422 ``budget.out_of_bounds`` and ``budget.not_raised``.
    """
    if run.status is not RunStatus.SUSPENDED:
        raise _not_now(run, "resume")
    body: JsonObject = {"reason": run.suspended_reason or ""}
    if limit_micro_usd is not None:
        await _check_limit(run, limit_micro_usd, call.deps)
        body["max_cost_micro_usd"] = limit_micro_usd
    await append_audit(_entry(run, call, AuditType.RUN_RESUMED, body), call.deps)
    if limit_micro_usd is not None:
        await call.deps.budgets.raise_limit(run.tenant_id, run.run_id, limit_micro_usd=limit_micro_usd)
    # Without a plan in force it has to be planned still; waiting for people is found out again by whoever waits.
    change = RunChange(status=RunStatus.RUNNING if run.plan_version else RunStatus.ACCEPTED)
    event = _event(run, EventType.RUN_RESUMED, "resumed on request")
    try:
        resumed = await call.deps.runs.change(run.tenant_id, run.run_id, change, [event], only_from=_SUSPENDED)
    except ConflictError:
        current = await call.deps.runs.get(run.tenant_id, run.run_id) or run
        raise _not_now(current, "resume") from None
    await _wake(resumed, call)
    return resumed


async def terminate(run: Run, call: Call) -> Run:
    """End the run at once: nothing is undone, no answer is composed, what is under way is not waited for.

    The store learns it first, so whatever still returns changes nothing. Raises ``ConflictError("run.finished")``.
    """
    if run.status.is_final:
        raise ConflictError("run.finished", "This run is over; there is nothing to terminate.")
    await append_audit(_entry(run, call, AuditType.RUN_TERMINATE_REQUESTED), call.deps)
    plan = await _plan_of(run, call.deps)
    steps = [step["id"] for step in (plan or {}).get("steps", ())]
    await finish_run(
        {
            "tenant_id": run.tenant_id,
            "run_id": run.run_id,
            "status": RunStatus.TERMINATED.value,
            "code": TERMINATED_CODE,
            "steps": {StepStatus.CANCELLED.value: steps},
            "codes": dict.fromkeys(steps, TERMINATED_CODE),
        },
        call.deps,
    )
    for instance_id in (*await _part_ids(run, plan, call.deps), run.run_id):
        await _quietly(run, call.durable.terminate(instance_id, TERMINATED_CODE))
    await _give_place_back(run, call)
    return await call.deps.runs.get(run.tenant_id, run.run_id) or run


async def _check_limit(run: Run, limit_micro_usd: int, deps: Deps) -> None:
    tenant = await deps.tenants.get(run.tenant_id)
    bound = tenant.bounds.max_cost_micro_usd if tenant is not None else 0
    if limit_micro_usd > bound:
        words = f"At most {bound} micro-USD are allowed for a run of this tenant."
        raise LivoaError("budget.out_of_bounds", words, status=422, pointer="/max_cost_micro_usd")
    state = await deps.budgets.state(run.tenant_id, run.run_id)
    if state is not None and limit_micro_usd <= state.limit_micro_usd:
        words = f"The budget of this run is {state.limit_micro_usd} micro-USD already; it can only be raised."
        raise LivoaError("budget.not_raised", words, status=422, pointer="/max_cost_micro_usd")


async def _wake(run: Run, call: Call) -> None:
    """Tell whoever waits. What is not heard is found by the watchdog of the run."""
    if not await is_started(run, call.durable):
        tenant = await call.deps.tenants.get(run.tenant_id)
        await try_start(run, call.durable, tenant.quota if tenant is not None else None)
        return
    plan = await _plan_of(run, call.deps)
    for instance_id in (run.run_id, *await _part_ids(run, plan, call.deps)):
        told = call.durable.raise_event(instance_id, resume_event(run.suspensions), {"run_id": run.run_id})
        await _quietly(run, told)


async def _plan_of(run: Run, deps: Deps) -> JsonObject | None:
    return await _payload(run, run.plan_ref, deps) if run.plan_ref is not None else None


async def _payload(run: Run, ref: PayloadRef, deps: Deps) -> JsonObject:
    plan: JsonObject = json.loads(await deps.payloads.get(run.tenant_id, run.run_id, ref))
    return plan


async def _part_ids(run: Run, plan: JsonObject | None, deps: Deps) -> list[str]:
    """The instances of the parts of maps that are under way. Those that are over, or never were, take no notice."""
    tenant = await deps.tenants.get(run.tenant_id)
    if plan is None or tenant is None:
        return []
    records = await deps.runs.steps(run.tenant_id, run.run_id)
    counts = {r.step_id: r.item_count or 0 for r in records if r.kind == "map" and not r.status.is_final}
    if not any(counts.values()):
        return []
    plans = [await _payload(run, version.plan_ref, deps) for version in run.earlier_plans]
    order = await asyncio.to_thread(_order, [*plans, plan], tenant, deps)
    return [
        map_part_id(run.run_id, place, first)
        for place, step_id in enumerate(order)
        for first in part_starts(counts.get(step_id, 0))
    ]


def _order(plans: Iterable[JsonObject], tenant: TenantConfig, deps: Deps) -> Iterable[str]:
    """The ids of the steps by their numbers, by which instances are named: in the order of the skeleton, and what a later
    version of the plan has added behind that."""
    ids: dict[str, None] = {}
    for plan in plans:
        checked = check_plan(plan, tenant=tenant, catalog=deps.catalog).plan
        if checked is None:
            return []
        ids |= dict.fromkeys(checked.plan.steps[index].id for index in checked.order)
    return list(ids)


async def _give_place_back(run: Run, call: Call) -> None:
    """An orchestration that is terminated gives nothing back; should this get lost, the lease expires."""
    call.deps.entities.use(call.durable)
    await _quietly(run, call.deps.entities.signal(TENANT_QUOTA, run.tenant_id, "release", {"run_id": run.run_id}))


async def _quietly(run: Run, work: Any) -> None:
    try:
        await work
    except Exception:
        # The store knows already; the engine takes longer to find out.
        _LOG.info("an instance was not told", exc_info=True, extra={"run_id": run.run_id})


def _event(run: Run, kind: EventType, words: str) -> NewEvent:
    return new_event(kind, RunEventData(message=words), f"{kind.value}/{run.version}")


def _entry(run: Run, call: Call, kind: AuditType, body: JsonObject | None = None) -> AuditEntry:
    return AuditEntry(
        tenant_id=run.tenant_id,
        entry_id=f"{run.run_id}/{kind.value}/{run.version}/{call.principal.subject}",
        type=kind,
        at=call.deps.clock.now(),
        run_id=run.run_id,
        actor=call.principal.subject,
        body={"client_app": call.principal.client_app, "status": run.status.value, **(body or {})},
    )


def _not_now(run: Run, what: str) -> ConflictError:
    if run.status.is_final:
        return ConflictError("run.finished", f"This run is over; there is nothing to {what}.")
    if run.status is RunStatus.CANCELLING:
        return ConflictError("run.cancelling", f"This run is being cancelled; there is nothing to {what}.")
    return ConflictError("run.not_suspended", f"This run is not suspended; it is {run.status.value}.")
