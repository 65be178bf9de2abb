"""What a repair starts from: the plan as it runs, what stays of it and how far that is, in the words of the planner's port."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from activities.payloads import load_json
from engine.domain.base import Frozen, JsonObject
from engine.domain.ids import WireId
from engine.domain.run import ErrorInfo, Run, StepRecord
from engine.domain.status import StepStatus
from engine.domain.tenant import TenantConfig
from engine.plan import CheckedPlan, Step, spoilt_by
from engine.ports.deps import Deps
from engine.ports.planner import FinishedStep, SuffixRepair
from planner_graph.seen.shapes import shape_of

_MAX_SUMMARIES = 50
_MAX_SUMMARISED_BYTES = 256 * 1024
"""Larger outputs, and those of further steps, are told of without their shape; the manifests say it too."""


class RepairTask(Frozen):
    """One repair of one run: the ``number``-th (from 1), because step ``step_id`` failed for good with ``code``."""

    tenant_id: WireId
    run_id: WireId
    number: int = Field(ge=1)
    step_id: WireId
    code: str = Field(default="", max_length=200)


def not_repairable(
    task: RepairTask, plan: CheckedPlan, tenant: TenantConfig, records: dict[str, StepRecord]
) -> ErrorInfo | None:
    """Why there is nothing to repair, or nobody to do it. The scheduler asks for no such thing; the store may know better."""
    if task.number > tenant.planner.max_run_repairs:
        return ErrorInfo(code="plan.repairs_exhausted", message="the tenant has no plan repaired as often as that")
    step, record = plan.plan.step(task.step_id), records.get(task.step_id)
    if step is None or step.on_failure != "repair" or (record is not None and record.status is StepStatus.SUCCEEDED):
        return ErrorInfo(code="plan.repair_needless", message="the plan in force has no such step that failed")
    behind = spoilt_by(plan.document, task.step_id) - {task.step_id}
    if any(step_id in records for step_id in behind):
        return ErrorInfo(
            code="plan.repair_late", message="what comes after the failed step has gone on without a repair"
        )
    return None


async def suffix_of(
    run: Run, task: RepairTask, plan: CheckedPlan, records: dict[str, StepRecord], deps: Deps
) -> SuffixRepair:
    """The repair as planners know it."""
    spoilt = spoilt_by(plan.document, task.step_id)
    stays = [step for step in plan.steps if step.id not in spoilt]
    shown = [step.id for step in stays if _is_shown(records.get(step.id))][:_MAX_SUMMARIES]
    summaries = {step_id: await _summary(run, records[step_id], deps) for step_id in shown}
    record = records.get(task.step_id)
    return SuffixRepair(
        plan=plan.document,
        finished=tuple(_kept(step, records.get(step.id), summaries.get(step.id, {})) for step in stays),
        failed_step_id=task.step_id,
        failed_code=task.code or (record.error.code if record is not None and record.error is not None else ""),
        taken=await _taken(run, plan, deps),
    )


async def _taken(run: Run, plan: CheckedPlan, deps: Deps) -> tuple[str, ...]:
    """The ids of the steps of all versions so far."""
    ids: dict[str, None] = {}
    for version in run.earlier_plans:
        document = await load_json(run, version.plan_ref, deps)
        ids |= dict.fromkeys(step["id"] for step in document["steps"])
    return tuple(ids | dict.fromkeys(step.id for step in plan.steps))


def _is_shown(record: StepRecord | None) -> bool:
    if record is None or record.status is not StepStatus.SUCCEEDED or record.output_ref is None:
        return False
    return record.output_ref.size_bytes <= _MAX_SUMMARISED_BYTES


async def _summary(run: Run, record: StepRecord, deps: Deps) -> JsonObject:
    if record.output_ref is None:
        return {}
    output: Any = await load_json(run, record.output_ref, deps)
    return {"output": await asyncio.to_thread(shape_of, output)}


def _kept(step: Step, record: StepRecord | None, summary: JsonObject) -> FinishedStep:
    status = record.status if record is not None else StepStatus.PENDING
    return FinishedStep(step.id, step.capability or "", status.value, summary)
