"""Steps that a worker carries out: hand a call on, and take up what came of it.

The gate is passed once for each attempt, before the call is handed on. From then on every look at that attempt asks its
assignment alone: is it answered, is it still open, or did its lease or its time run out? Looking twice is looking once, so a look
that died is simply made again. Undoings are not handed on: they are short, and a run that ends waits for them.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from engine.domain.base import iso_utc
from engine.domain.bus import Assignment, AssignmentStatus, command_of
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.execute import (
    ENGINE_WORDS,
    EXECUTE_RESPONSE,
    MAX_RESPONSE_BYTES,
    ExecuteError,
    ExecuteFailed,
    ExecuteRequest,
    ExecuteResponse,
    is_callees_code,
)
from engine.domain.outcomes import Cancelled, Dispatched, Failed, StepOutcome, Succeeded
from engine.domain.run import PayloadRef
from engine.domain.status import RunStatus
from engine.domain.telemetry_names import OPERATION, SPAN_AGENT, TOOL_NAME
from engine.ports.deps import Deps
from engine.step_runner import circuit
from engine.step_runner.authorise import CallInQuestion
from engine.step_runner.caching import may_reuse, remember
from engine.step_runner.call import Call, conclude, settle
from engine.step_runner.persistence import persistently
from engine.step_runner.task import StepTask
from engine.step_runner.unsure import told

_LOG = logging.getLogger("livoa.steps")

LEASE_LOST = "agent.lease_lost"
"""The worker that had the step stopped telling that it is alive."""
DEFAULT_LEASE_S = 60.0
"""How long a worker may be silent, where the manifest does not say."""
NO_BUS = "bus.not_configured"
_READ_AGAIN_AFTER = timedelta(seconds=30)
_ENDED = (AssignmentStatus.FINISHED, AssignmentStatus.VOID)
_NOT_A_WORKERS = ENGINE_WORDS - {"payload", "store"}
"""A worker reads the request from the stores and may say what kept it from that; it decides nothing."""


DIRECT_UP_TO_S = 300.0
"""Without a bus a call that is over this soon is made from here, where a host allows ten minutes; a longer one fails."""


def is_handed_on(task: StepTask, capability: Capability, deps: Deps) -> bool:
    """Whether a worker carries it out."""
    if not _may_be_handed_on(task, capability):
        return False
    return deps.step_queue.is_configured or capability.timeout_s > DIRECT_UP_TO_S


def _may_be_handed_on(task: StepTask, capability: Capability) -> bool:
    return capability.delivery == "service_bus" and task.purpose != "compensation"


async def handed_on_before(asked: CallInQuestion, deps: Deps) -> Assignment | None:
    """The assignment of this very attempt, if it was handed on."""
    task = asked.task
    if asked.capability is None or not _may_be_handed_on(task, asked.capability):
        return None
    known = await deps.assignments.get(task.tenant_id, task.run_id, task.key)
    return known if known is not None and known.attempt >= task.attempt else None


async def has_ended(task: StepTask, deps: Deps, *, answered: bool = False) -> bool:
    """Whether this attempt was handed on and is over, so that nothing begins by taking it up; ``answered``: by an answer."""
    ends = (AssignmentStatus.FINISHED,) if answered else _ENDED
    for purpose in ("step", "fallback"):
        key = task.model_copy(update={"purpose": purpose}).key
        known = await deps.assignments.get(task.tenant_id, task.run_id, key)
        if known is not None and known.attempt == task.attempt and known.status in ends:
            return True
    return False


async def hand_on(call: Call, capability: Capability, assignment: Assignment, reserved: int) -> StepOutcome:
    """Assign and send a call whose intent is on record. ``assignment`` comes from ``new_assignment``."""
    deps = call.deps
    attributes = {OPERATION: SPAN_AGENT, TOOL_NAME: capability.name}
    with deps.telemetry.span(f"send {capability.name}", kind="producer", attributes=attributes) as span:
        try:
            assignment = await deps.assignments.assign(assignment.model_copy(update={"traceparent": span.traceparent}))
            if assignment.attempt > call.task.attempt:
                await settle(call, 0)
                return Failed(code="step.superseded")
            await _send(assignment, deps)
        except LivoaError as err:
            # Should it have been assigned all the same, the next attempt takes its place, under the same idempotency key.
            span.fail(err.code)
            error = ExecuteError(code=err.code, message=err.message, retryable=err.status >= 500 and err.code != NO_BUS)
            return await conclude(call, capability, ExecuteFailed(error=error), reserved)
    return _dispatched(assignment, deps.clock.now())


async def new_assignment(call: Call, capability: Capability, plan_hash: str, request: ExecuteRequest) -> Assignment:
    """The assignment of a call. Content goes into the run's payloads, not into messages."""
    task, deps = call.task, call.deps
    body = request.model_dump_json().encode()
    return Assignment(
        tenant_id=task.tenant_id,
        run_id=task.run_id,
        step_id=task.step_id,
        item=task.item,
        attempt=task.attempt,
        purpose=task.purpose,
        key=task.key,
        capability=capability.name,
        plan_hash=plan_hash,
        request_ref=await deps.payloads.put(task.tenant_id, task.run_id, body),
        waiter=task.waiter or task.run_id,
        created_at=deps.clock.now(),
        deadline_at=request.deadline_at,
        lease_s=capability.lease_s or DEFAULT_LEASE_S,
    )


async def take_up(asked: CallInQuestion, assignment: Assignment, deps: Deps) -> StepOutcome:
    """Look at an attempt that was handed on: still open, or concluded with what came of it."""
    task, capability = asked.task, asked.capability
    if capability is None or assignment.attempt > task.attempt:
        return Failed(code="step.superseded")
    ended = await _ended(assignment, deps)
    if isinstance(ended, Dispatched | Failed):
        return ended
    try:
        response = await _response(ended, deps)
    except LivoaError as err:
        # The work is done and the attempt is not used up: whoever looks again later finds the answer.
        _LOG.warning("a worker's answer cannot be read yet", extra={"run_id": task.run_id, "code": err.code})
        look_by = iso_utc(deps.clock.now() + _READ_AGAIN_AFTER)
        return Dispatched(event=ended.event, look_by=look_by, left_s=_READ_AGAIN_AFTER.total_seconds())
    if response is None:
        return await _voided(asked, capability, ended, deps)
    record = await deps.runs.get_step(task.tenant_id, task.run_id, task.record_id, task.item)
    journal = asked.journal.with_inputs(asked.inputs_sha256, assignment.created_at)
    if record is not None and record.attempt == task.attempt:
        journal = replace(journal, input_sha256=record.input_sha256, started_at=record.started_at)
    call = Call(task, asked.view, journal, asked.inputs, deps)
    passed = await deps.circuits.permit(asked.view.tenant, capability, task.attempt_key)
    if passed.granted:
        given_s = (ended.deadline_at - ended.created_at).total_seconds()
        await circuit.report(passed, circuit.circuit_outcome(response, capability, given_s), task, deps)
    reserved, begun = capability.cost.per_call_micro_usd, ended.worker is not None
    outcome = await conclude(call, capability, response, reserved, begun=begun)
    if isinstance(outcome, Succeeded) and may_reuse(asked.view.step, capability, task.purpose):
        await _remember(asked, ended, capability, deps)
    return outcome


async def _remember(asked: CallInQuestion, ended: Assignment, capability: Capability, deps: Deps) -> None:
    """Keep the result for who asks the same, by the inputs that were sent. Never in the way of the step, which has its result."""
    try:
        data = await deps.payloads.get(ended.tenant_id, ended.run_id, ended.request_ref)
        inputs = ExecuteRequest.model_validate_json(data).inputs
    except (LivoaError, ValidationError):
        _LOG.warning("a result could not be remembered", extra={"run_id": ended.run_id})
        return
    await remember(replace(asked, inputs=inputs), capability, deps)


async def _ended(assignment: Assignment, deps: Deps) -> Assignment | Dispatched | Failed:
    """The assignment once it is finished or void; one that has lapsed is ended here."""
    if assignment.status in _ENDED:
        return assignment
    of = (assignment.tenant_id, assignment.run_id, assignment.key)
    void = await deps.assignments.void(*of, assignment.token, now=deps.clock.now(), lapsed_only=True)
    if void is not None:
        return void
    current = await deps.assignments.get(*of)
    if current is None or current.token != assignment.token:
        return Failed(code="step.superseded")
    if current.status in _ENDED:
        return current
    if current.sent_at is None:
        await _send(current, deps)
    return _dispatched(current, deps.clock.now())


async def _response(ended: Assignment, deps: Deps) -> ExecuteResponse | None:
    """What came of it; None when it was taken back because the run ends."""
    now = deps.clock.now()
    if ended.response_ref is not None:
        if ended.response_ref.size_bytes > 2 * MAX_RESPONSE_BYTES:
            return _failed("agent.contract_violation", "the worker's answer is too large", retryable=False)
        return await _answer(ended, ended.response_ref, deps)
    at = ended.ended_at or now
    if at >= ended.deadline_at:
        words = "no worker took it in time" if ended.worker is None else "no answer in time"
        return _failed("agent.timeout", words, retryable=True)
    if ended.lease_until_at is not None and at >= ended.lease_until_at:
        return _failed(LEASE_LOST, "the worker that had it stopped answering", retryable=True)
    return None


async def _answer(ended: Assignment, ref: PayloadRef, deps: Deps) -> ExecuteResponse | None:
    """The worker's answer. Raises while the payloads cannot be reached; what can never be read is no answer."""
    try:
        data = await persistently(lambda: deps.payloads.get(ended.tenant_id, ended.run_id, ref))
        response = EXECUTE_RESPONSE.validate_json(data)
    except ValidationError:
        return _failed("agent.contract_violation", "the worker's answer is none", retryable=False)
    except LivoaError as err:
        if err.status >= 500:
            raise
        return _failed("agent.contract_violation", f"the worker's answer is not there: {err.code}", retryable=False)
    if isinstance(response, ExecuteFailed) and not is_callees_code(response.error.code, _NOT_A_WORKERS):
        return ExecuteFailed(error=response.error.model_copy(update={"code": "agent.error"}))
    return response


async def _voided(asked: CallInQuestion, capability: Capability, ended: Assignment, deps: Deps) -> StepOutcome:
    run = await deps.runs.get(asked.task.tenant_id, asked.task.run_id)
    if run is None or run.status.is_final or run.status is RunStatus.CANCELLING:
        return Cancelled()
    words = "it was taken back from its worker"
    if ended.worker is not None:
        words = told(LEASE_LOST, words, capability)
    return await asked.journal.failed(LEASE_LOST, words, retryable=True)


async def send_command(assignment: Assignment, deps: Deps) -> None:
    """Send its command, and count that. Sending it twice is harmless: one lease is taken. Raises like ``StepQueue.send``."""
    again = f".{assignment.sends}" if assignment.sends else ""  # no duplicate: the one before may be lost
    message_id = f"{assignment.key}#{assignment.token}{again}"
    await deps.step_queue.send(command_of(assignment), session_id=assignment.session_id, message_id=message_id)
    of = (assignment.tenant_id, assignment.run_id, assignment.key, assignment.token)
    await deps.assignments.sent(*of, deps.clock.now())


async def _send(assignment: Assignment, deps: Deps) -> None:
    """Send its command. When the bus cannot be reached it stays unsent, and the sweep sends it. Raises when there is none."""
    of = (assignment.tenant_id, assignment.run_id, assignment.key, assignment.token)
    try:
        await send_command(assignment, deps)
    except LivoaError as err:
        if err.code == NO_BUS:
            await deps.assignments.void(*of, now=deps.clock.now(), lapsed_only=False)
            raise
        _LOG.warning("a command could not be sent yet", extra={"run_id": assignment.run_id, "code": err.code})


def _dispatched(assignment: Assignment, now: datetime) -> Dispatched:
    left_s = (assignment.deadline_at - now).total_seconds()
    return Dispatched(event=assignment.event, look_by=iso_utc(assignment.deadline_at), left_s=left_s)


def _failed(code: str, message: str, *, retryable: bool) -> ExecuteFailed:
    return ExecuteFailed(error=ExecuteError(code=code, message=message, retryable=retryable))


__all__ = [
    "LEASE_LOST",
    "hand_on",
    "handed_on_before",
    "has_ended",
    "is_handed_on",
    "new_assignment",
    "send_command",
    "take_up",
]
