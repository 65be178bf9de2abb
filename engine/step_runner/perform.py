"""One attempt of one step, in the order that makes it safe.

principal → bind → policy (and its cures) → circuit → [budget, record start, audit intent] → call → check output → store →
[audit result, settle, record]. What stands in brackets is one commit where the stores are one database (``in_turn``).
The intent is durable before the call; when it cannot be written the call does not happen. Everything may be delivered
twice: finished work answers from its record, unfinished work repeats the call under the same idempotency key.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Any

from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.base import iso_utc
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.events import BudgetEventData, DegradedEventData, EventType, new_event
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteResponse
from engine.domain.outcomes import Cancelled, Failed, StepOutcome, Succeeded, Waiting
from engine.domain.run import Run, StepRecord
from engine.domain.status import RunStatus
from engine.domain.telemetry_names import (
    AGENT_NAME,
    OPERATION,
    RUN_ID,
    SPAN_AGENT,
    SPAN_TOOL,
    STEP_ATTEMPT,
    STEP_ID,
    STEP_STATUS,
    TOOL_NAME,
)
from engine.evidence.canonical import canonical_sha256
from engine.evidence.on_record import put_on_record
from engine.plan import (
    Approval,
    Bound,
    Unbound,
    bind_for_each,
    bind_inputs,
    bind_wait,
    evaluate_when,
    falls_back,
)
from engine.ports.calls import NotIntended, Opening, OutOfBudget, Void
from engine.ports.deps import Deps
from engine.ports.invoker import LEAVE_RUNNING
from engine.ports.telemetry import Attribute
from engine.step_runner import circuit
from engine.step_runner.asking import NotApproved, Question, Unanswered, ask
from engine.step_runner.authorise import Barred, CallInQuestion, Cleared, authorise
from engine.step_runner.caching import remember, reused
from engine.step_runner.call import Call, call_deadline, conclude, request_of, settle
from engine.step_runner.evidence import decision_entry, degraded_entry, intent_entry
from engine.step_runner.handover import hand_on, handed_on_before, has_ended, is_handed_on, new_assignment, take_up
from engine.step_runner.in_turn import open_call
from engine.step_runner.progress import ProgressReporter
from engine.step_runner.records import Journal, allowed_attempts, answered, reason_to_fall_back
from engine.step_runner.suspension import OUT_OF_BUDGET, held, suspend_for_budget
from engine.step_runner.task import StepTask
from engine.step_runner.unknown import record_unknown_results
from engine.step_runner.view import StepView, load_view

_LOG = logging.getLogger("livoa.steps")


async def perform_step(task: StepTask, deps: Deps) -> StepOutcome:
    """Perform one attempt and return its outcome. Expected failures are outcomes; only surprises raise."""
    run, record = await deps.runs.get_with_step(task.tenant_id, task.run_id, task.step_id, task.item)
    if run is None:
        return Failed(code="run.not_found")
    known = answered(record, task.attempt) if record is not None else None
    if known is not None:
        return known
    if run.status.is_final:
        # An earlier delivery may have announced its call after the run was closed.
        await record_unknown_results(run, deps)
    is_cancelling = run.status is RunStatus.CANCELLING
    if run.status.is_final or (is_cancelling and not await has_ended(task, deps, answered=True)):
        return Cancelled()
    if (suspended := held(run)) is not None and not await has_ended(task, deps):
        return suspended
    attributes: dict[str, Attribute] = {
        RUN_ID: run.run_id,
        STEP_ID: task.step_id,
        STEP_ATTEMPT: task.attempt,
        OPERATION: SPAN_TOOL,
    }
    with deps.telemetry.span(SPAN_TOOL, traceparent=run.traceparent, attributes=attributes) as span:
        try:
            outcome = await _attempt(task, run, record, deps)
        except LivoaError as err:
            # A store that fails now may work later; what happened so far is found again under the same keys.
            outcome = Failed(code=err.code, retryable=err.status >= 500)
        span.set(STEP_STATUS, outcome.status)
        if isinstance(outcome, Failed):
            span.fail(outcome.code)
    return outcome


async def _attempt(task: StepTask, run: Run, record: StepRecord | None, deps: Deps) -> StepOutcome:
    view = await load_view(task, run, deps)
    journal = Journal(
        task,
        deps,
        kind=view.step.kind,
        capability=view.step.capability,
        max_attempts=allowed_attempts(view.step, deps.catalog),
        skips_failures=view.step.on_failure == "skip",
    )
    bound = _bind(task, view)
    if isinstance(bound, Unbound):
        return await unbound_outcome(bound, journal)
    if view.step.wait is not None:
        return await _wait(view, journal, deps)
    if view.step.approval is not None:
        return await _question(task, view, view.step.approval, journal, deps)
    name = view.step.capability or ""
    capability = deps.catalog.capabilities.get(name)
    if capability is not None and falls_back(view.step, capability):
        journal = replace(journal, falls_back=True)
        if (reason := reason_to_fall_back(record, journal)) is not None:
            return await fall_back(reason, CallInQuestion(task, view, journal, name, capability, bound.inputs), deps)
    return await dispatch(CallInQuestion(task, view, journal, name, capability, bound.inputs), deps)


async def fall_back(reason: str, asked: CallInQuestion, deps: Deps) -> StepOutcome:
    """Call what the manifest says stands in for the step's capability, through the same gate and under a key of its own."""
    name = asked.capability.fallback if asked.capability is not None else None
    task = asked.task.model_copy(update={"purpose": "fallback"})
    journal = replace(asked.journal, task=task, capability=name, falls_back=False, degraded=reason)
    capability = deps.catalog.capabilities.get(name or "")
    principal, now = asked.view.run.principal, deps.clock.now()
    await deps.audit.append(degraded_entry(task, principal, now, capability=name, reason=reason))
    event = new_event(EventType.DEGRADED_ENTERED, DegradedEventData(part="step", reason=reason), f"degraded/{task.key}")
    await deps.events.append(task.tenant_id, task.run_id, [event])
    return await dispatch(replace(asked, task=task, journal=journal, name=name or "", capability=capability), deps)


def _bind(task: StepTask, view: StepView) -> Bound | Unbound:
    """Evaluate ``when``, then bind the inputs; of one item inside a map, whose ``when`` was decided when it was expanded."""
    environment = view.environment()
    if task.item is not None:
        items = bind_for_each(view.step, environment)
        if isinstance(items, Unbound):
            return items
        if task.item >= len(items):
            return Unbound("step.item_missing", "/for_each", "missing", f"there is no item {task.item}")
        return bind_inputs(view.step, view.environment(items[task.item]))
    if view.step.when is not None:
        decided = evaluate_when(view.step.when, environment)
        if isinstance(decided, Unbound):
            return decided
        if not decided:
            return Unbound("step.when_false", "/when", "skipped", "its condition is false")
    return bind_inputs(view.step, environment)


async def unbound_outcome(unbound: Unbound, journal: Journal) -> StepOutcome:
    """A step whose inputs do not come together is skipped when a producer was skipped, and has failed otherwise."""
    if unbound.reason == "skipped":
        return await journal.skipped(unbound.code, unbound.message)
    return await journal.failed(unbound.code, f"{unbound.pointer}: {unbound.message}", retryable=False)


async def _wait(view: StepView, journal: Journal, deps: Deps) -> StepOutcome:
    """A wait is over at an instant fixed when it was first looked at.

    Whoever finds a length of time (``for_s``) begun in the future knows that the clock was set back, and counts it anew: so no
    set-back makes it longer by more than its own length. An instant (``until``) is one of the clock, whatever that is set to.
    """
    now = deps.clock.now()
    record = await deps.runs.get_step(view.run.tenant_id, view.run.run_id, view.step.id)
    started_at = record.started_at if record is not None and record.started_at is not None else now
    if view.step.wait is not None and "for_s" in view.step.wait.model_fields_set:
        started_at = min(started_at, now)
    until = bind_wait(view.step, view.environment(), started_at)
    if isinstance(until, Unbound):
        return await unbound_outcome(until, journal)
    journal = journal.with_inputs(canonical_sha256({"until": iso_utc(until)}), started_at)
    if until > now:
        await journal.started()
        return Waiting(until_at=iso_utc(until), left_s=(until - now).total_seconds())
    output = json.dumps({"until": iso_utc(until)}).encode()
    ref = await deps.payloads.put(view.run.tenant_id, view.run.run_id, output)
    return await journal.succeeded(ref)


async def _question(task: StepTask, view: StepView, approval: Approval, journal: Journal, deps: Deps) -> StepOutcome:
    """An ``approval`` step: its output is the answer, when that is yes."""
    shown = {"question": approval.question}
    arguments_sha256 = canonical_sha256(shown)
    journal = journal.with_inputs(arguments_sha256, deps.clock.now())
    question = Question("question", shown, approval.timeout_s, arguments_sha256)
    answer = await ask(question, task, view, journal, deps)
    if isinstance(answer, Unanswered):
        return answer.outcome
    if isinstance(answer, NotApproved):
        return await journal.denied(answer.code, answer.message)
    if not answer.approver_differs or answer.decided_at is None:
        return await journal.denied("approval.self", "the run's requester cannot be the one who answers")
    output = {"approved": True, "by": answer.decided_by, "at": iso_utc(answer.decided_at)}
    ref = await deps.payloads.put(task.tenant_id, task.run_id, json.dumps(output).encode())
    return await journal.succeeded(ref)


async def dispatch(asked: CallInQuestion, deps: Deps) -> StepOutcome:
    """Make one call that is bound, if it may be made: from asking policy to the last record, or to handing it on."""
    if (assignment := await handed_on_before(asked, deps)) is not None:
        return await take_up(asked, assignment, deps)
    if (suspended := held(asked.view.run)) is not None:
        return suspended
    inputs_sha256 = asked.inputs_sha256
    asked = replace(asked, journal=asked.journal.with_inputs(inputs_sha256, deps.clock.now()))
    cleared = await authorise(asked, deps)
    if isinstance(cleared, Unanswered):
        return cleared.outcome
    if cleared.call.redacted or cleared.call.masked:  # what was taken out of the inputs is not in what the records name
        inputs_sha256 = cleared.call.inputs_sha256
    journal = replace(cleared.call.journal, input_sha256=inputs_sha256)
    call = Call(asked.task, asked.view, journal, cleared.call.inputs, deps)
    if isinstance(cleared, Barred):
        return await _denied(call, cleared, inputs_sha256)
    if (earlier := await reused(cleared, journal, deps)) is not None:
        await settle(call, 0)  # an earlier delivery may have made the call and died with its reservation
        return earlier
    passed = await deps.circuits.permit(call.view.tenant, cleared.capability, call.task.attempt_key)
    if not passed.granted:
        await settle(call, 0)  # as of a denial: an earlier delivery may have died with its reservation
        return await circuit.held_off(passed, call.task, call.journal, deps)
    amount = cleared.capability.cost.per_call_micro_usd
    refused = await _prepare(call, cleared, inputs_sha256, amount)
    if refused is not None:
        await circuit.report(passed, "neutral", call.task, deps)
        return refused
    begun_at = deps.clock.now()
    deadline_at = call_deadline(call, cleared.capability, begun_at)
    if is_handed_on(call.task, cleared.capability, deps) and deadline_at > begun_at:
        return await _hand_on(call, cleared.capability, deadline_at, amount)
    response = await _invoke(call, cleared.capability, begun_at, deadline_at)
    given_s = (deadline_at - begun_at).total_seconds()
    await circuit.report(passed, circuit.circuit_outcome(response, cleared.capability, given_s), call.task, deps)
    outcome = await conclude(call, cleared.capability, response, amount)
    if isinstance(outcome, Succeeded):
        await remember(cleared.call, cleared.capability, deps)
    return outcome


async def _hand_on(call: Call, capability: Capability, deadline_at: datetime, amount: int) -> StepOutcome:
    request = request_of(call, capability, deadline_at)
    assignment = await new_assignment(call, capability, call.view.plan_hash, request)
    return await hand_on(call, capability, assignment, amount)


async def _prepare(call: Call, cleared: Cleared, inputs_sha256: str, amount: int) -> StepOutcome | None:
    """Everything between the decision and the call. An outcome when there will be no call."""
    intent = _intent(call, cleared, inputs_sha256, amount)
    opening = Opening(call.journal.start(), intent, call.task.attempt_key, amount, _abandoned(call.task))
    opened = await open_call(opening, call.deps)
    if isinstance(opened, OutOfBudget):
        if (known := await call.journal.found()) is not None:  # void as well, so the money is nothing to stop a run for
            return known
        await _tell_exhausted(call)
        if call.task.purpose != "compensation":
            return await suspend_for_budget(call.task, call.deps)
        return await call.journal.failed(OUT_OF_BUDGET, "the run's budget does not cover this step", retryable=False)
    if isinstance(opened, Void):
        return await call.journal.known()
    if isinstance(opened, NotIntended):
        return await _unannounced(call, opened.error)
    if cleared.capability.side_effect == "external":  # beyond recall, so not even the store may deny it later
        try:
            await _anchored(opened.intent, call.deps)
        except Exception as err:
            return await _unannounced(call, err)
    return None


async def _unannounced(call: Call, error: Exception) -> StepOutcome:
    """Whatever keeps the intent from being written, or anchored, keeps the effect from happening."""
    where = {"run_id": call.task.run_id, "step_id": call.task.step_id}
    _LOG.error("audit intent failed", exc_info=error, extra=where)
    await settle(call, 0)
    return await call.journal.failed("audit.unavailable", "the intent could not be recorded", retryable=True)


async def _denied(call: Call, barred: Barred, inputs_sha256: str) -> StepOutcome:
    entry = decision_entry(
        call.task,
        call.view.run.principal,
        call.deps.clock.now(),
        capability=barred.call.name,
        plan_hash=call.view.plan_hash,
        inputs_sha256=inputs_sha256,
        decision=barred.decision,
        cures=barred.call.cures,
        code=barred.code,
    )
    await put_on_record(entry, call.deps.audit)
    await settle(call, 0)  # an earlier delivery may have been allowed, and died with its reservation
    return await call.journal.denied(barred.code, barred.message)


def _abandoned(task: StepTask) -> tuple[str, ...]:
    """Keys of attempts that may have died with their reservations: this one repeats their call, and pays for it."""
    purposes = ("fallback", "step") if task.purpose == "fallback" else (task.purpose,)
    earlier = [
        task.model_copy(update={"attempt": attempt, "purpose": purpose})
        for attempt in range(1, task.attempt)
        for purpose in purposes
    ]
    return tuple(one.attempt_key for one in earlier)


async def _tell_exhausted(call: Call) -> None:
    task, deps = call.task, call.deps
    state = await deps.budgets.state(task.tenant_id, task.run_id)
    data = BudgetEventData(
        step_id=task.record_id,
        reserved_micro_usd=state.reserved_micro_usd if state else 0,
        spent_micro_usd=state.spent_micro_usd if state else 0,
        limit_micro_usd=state.limit_micro_usd if state else 0,
    )
    event = new_event(EventType.BUDGET_EXHAUSTED, data, f"budget.exhausted/{task.attempt_key}")
    await deps.events.append(task.tenant_id, task.run_id, [event])


def _intent(call: Call, cleared: Cleared, inputs_sha256: str, amount: int) -> AuditEntry:
    return intent_entry(
        call.task,
        call.view.run.principal,
        call.deps.clock.now(),
        capability=cleared.capability,
        plan_hash=call.view.plan_hash,
        inputs_sha256=inputs_sha256,
        decision=cleared.decision,
        reserved_micro_usd=amount,
        approval=cleared.call.approval,
        redacted=cleared.call.redacted,
        masked=cleared.call.masked,
    )


async def _anchored(record: AuditRecord, deps: Deps) -> None:
    """Raises unless a checkpoint holds the record. Only one machine may do without any."""
    made = await deps.checkpoints.make(record.tenant_id)
    if made is None and deps.settings.environment != "local":
        raise LivoaError("checkpoint.none", "this host makes no checkpoints", status=503)
    if made is not None and made.size < record.seq:
        raise LivoaError("checkpoint.behind", "the backlog of the chain took more than one checkpoint", status=503)


async def _left_running(asked: Coroutine[Any, Any, ExecuteResponse]) -> ExecuteResponse:
    """The response. A host that stops cuts this off, and delivers the step again: the execution goes on for who comes then."""
    task = asyncio.create_task(asked)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.cancel(LEAVE_RUNNING)
        await asyncio.wait({task})
        raise


async def _invoke(call: Call, capability: Capability, now: datetime, deadline_at: datetime) -> ExecuteResponse:
    remaining_s = (deadline_at - now).total_seconds()
    if remaining_s <= 0:
        return ExecuteFailed(error=ExecuteError(code="run.deadline", message="the run's deadline has passed"))
    request = request_of(call, capability, deadline_at)
    attributes = {AGENT_NAME: capability.endpoint, TOOL_NAME: capability.name, OPERATION: SPAN_AGENT}
    name = f"{SPAN_AGENT} {capability.endpoint}"
    with call.deps.telemetry.span(name, kind="client", attributes=attributes) as span:
        try:
            async with asyncio.timeout(remaining_s + 1):
                progress = ProgressReporter(call.task, capability.name, call.deps)
                asked = call.deps.invoker.invoke(capability, request, traceparent=span.traceparent, progress=progress)
                response = await _left_running(asked)
        except TimeoutError:
            error = ExecuteError(code="agent.timeout", message="no answer in time", retryable=True)
            response = ExecuteFailed(error=error)
        except Exception as err:
            # Not what the port promises; but the intent is on record, so there has to be a result.
            _LOG.exception("call raised", extra={"run_id": call.task.run_id, "step_id": call.task.step_id})
            error = ExecuteError(code="agent.error", message=f"the call raised {type(err).__name__}", retryable=True)
            response = ExecuteFailed(error=error)
        if isinstance(response, ExecuteFailed):
            span.fail(response.error.code)
    return response
