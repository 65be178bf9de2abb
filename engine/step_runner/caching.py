"""``cache: true``: a step is answered with an earlier result of the same capability and inputs, where that is as good.

Only for capabilities whose manifest says that they are deterministic and have no effects, within one tenant, and only after
policy has cleared the call for this caller: what is saved is the call, not the decision. A result that is too old, gone with its
run, or no longer fits the schema is no result. Remembering is never in the way of the step.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta

from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.outcomes import StepOutcome
from engine.domain.status import StepStatus
from engine.evidence.canonical import canonical_sha256
from engine.evidence.on_record import put_on_record
from engine.plan import Step, validate_output
from engine.ports.deps import Deps
from engine.ports.result_cache import CachedResult
from engine.step_runner.authorise import CallInQuestion, Cleared
from engine.step_runner.evidence import reused_entry
from engine.step_runner.records import Journal

_LOG = logging.getLogger("livoa.steps")


def may_reuse(step: Step, capability: Capability, purpose: str) -> bool:
    """True when an earlier result will do: the plan says so, and the manifest that results do not depend on when one asks."""
    return step.cache and purpose == "step" and capability.is_cacheable


async def reused(cleared: Cleared, journal: Journal, deps: Deps) -> StepOutcome | None:
    """The outcome by an earlier result, or None when the call is to be made."""
    call, capability = cleared.call, cleared.capability
    if not may_reuse(call.view.step, capability, call.task.purpose):
        return None
    record = await deps.runs.get_step(call.task.tenant_id, call.task.run_id, call.task.record_id, call.task.item)
    if record is not None and record.status is StepStatus.RUNNING:
        return None  # a call is on record: what came of it has to be found out
    found = await _find(cleared, deps)
    if found is None:
        return None
    known, data = found
    output = await deps.payloads.put(call.task.tenant_id, call.task.run_id, data, known.output.media_type)
    journal = replace(journal, reused_from=known.run_id)
    if not await journal.started():
        return await journal.known()
    entry = reused_entry(
        call.task,
        call.view.run.principal,
        deps.clock.now(),
        capability=capability,
        plan_hash=call.view.plan_hash,
        inputs_sha256=call.inputs_sha256,
        decision=cleared.decision,
        output=output,
        made_by=known.run_id,
    )
    await put_on_record(entry, deps.audit)
    return await journal.succeeded(output)


async def _find(cleared: Cleared, deps: Deps) -> tuple[CachedResult, bytes] | None:
    """A usable result and its content."""
    task, capability = cleared.call.task, cleared.capability
    try:
        known = await deps.result_cache.get(task.tenant_id, _asked_sha256(cleared.call, capability))
        # The lower bound: what a clock that was set back has yet to come has no age that could be held against anything.
        most = timedelta(seconds=capability.cache_s)
        if known is None or not timedelta() <= deps.clock.now() - known.made_at <= most:
            return None
        data = await deps.payloads.get(task.tenant_id, known.run_id, known.output)
    except LivoaError as err:
        # Gone with its run, or a store in trouble: the call can still be made.
        _LOG.info("an earlier result cannot be used", extra={"run_id": task.run_id, "code": err.code})
        return None
    return (known, data) if not validate_output(capability, json.loads(data)) else None


async def remember(call: CallInQuestion, capability: Capability, deps: Deps) -> None:
    """Keep where the result of a call that succeeded lies."""
    task = call.task
    if not may_reuse(call.view.step, capability, task.purpose):
        return
    try:
        record = await deps.runs.get_step(task.tenant_id, task.run_id, task.record_id, task.item)
        if record is None or record.output_ref is None or record.degraded is not None:
            return
        result = CachedResult(task.run_id, record.output_ref, record.finished_at or deps.clock.now())
        await deps.result_cache.put(task.tenant_id, _asked_sha256(call, capability), result)
    except LivoaError as err:
        _LOG.warning("a result could not be remembered", extra={"run_id": task.run_id, "code": err.code})


def _asked_sha256(call: CallInQuestion, capability: Capability) -> str:
    """What makes two calls the same: the capability in this version, and the inputs as they are sent."""
    asked = {"capability": capability.name, "version": capability.version, "inputs": call.inputs}
    return canonical_sha256(asked)
