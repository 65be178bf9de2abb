"""One attempt that may be made, and what comes of it: check the answer, store it, write it down, settle, record."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.outcomes import StepOutcome
from engine.domain.run import PayloadRef
from engine.domain.telemetry_names import METRIC_STEP_DURATION
from engine.plan import validate_output
from engine.ports.calls import Closing
from engine.ports.deps import Deps
from engine.step_runner.evidence import result_entry
from engine.step_runner.in_turn import close_call
from engine.step_runner.persistence import persistently
from engine.step_runner.records import Ending, Journal
from engine.step_runner.task import StepTask
from engine.step_runner.unsure import told
from engine.step_runner.view import StepView

_LOG = logging.getLogger("livoa.steps")


@dataclass(slots=True)
class Call:
    """One attempt on its way to the capability."""

    task: StepTask
    view: StepView
    journal: Journal
    inputs: JsonObject
    deps: Deps


async def settle(call: Call, spent_micro_usd: int) -> None:
    """Give back what the attempt had reserved, but for what it spent."""
    await call.deps.budgets.settle(
        call.task.tenant_id, call.task.run_id, call.task.attempt_key, spent_micro_usd=spent_micro_usd
    )


def call_deadline(call: Call, capability: Capability, now: datetime) -> datetime:
    """By when an attempt that begins ``now`` must have answered."""
    if call.task.purpose == "compensation":  # often because the deadline has passed
        return now + timedelta(seconds=capability.timeout_s)
    timeout_s = min(call.view.step.timeout_s or capability.timeout_s, capability.timeout_s)
    return min(now + timedelta(seconds=timeout_s), call.view.run.deadline_at)


def request_of(call: Call, capability: Capability, deadline_at: datetime) -> ExecuteRequest:
    """What the capability is asked."""
    return ExecuteRequest(
        tenant_id=call.task.tenant_id,
        run_id=call.task.run_id,
        step_id=call.task.step_id,
        item=call.task.item,
        attempt=call.task.attempt,
        capability=capability.name,
        inputs=call.inputs,
        idempotency_key=call.task.key,
        deadline_at=deadline_at,
        plan_hash=call.view.plan_hash,
    )


async def conclude(
    call: Call, capability: Capability, response: ExecuteResponse, reserved: int, *, begun: bool = True
) -> StepOutcome:
    """Check, store, and close the call. A result that cannot be written down is asked for again under the same key.

    ``begun`` is False when nobody took the call up, so that there is no effect to warn of."""
    output, error, cost = await _assess(call, capability, response, reserved)
    if error is not None and begun:
        error = error.model_copy(update={"message": told(error.code, error.message, capability)})
    status = "succeeded" if error is None else "failed"
    entry = result_entry(
        call.task,
        call.view.run.principal,
        call.deps.clock.now(),
        status=status,
        code=error.code if error else None,
        output=output,
        cost_micro_usd=cost,
    )
    ending = _ending(call.journal, output, error, cost, agents_words=isinstance(response, ExecuteFailed))
    closing = Closing(ending.step, entry, call.task.attempt_key, cost)
    outcome = await call.journal.end(ending, lambda: close_call(closing, call.deps))
    _tell(call, capability, status, error)
    return outcome


def _tell(call: Call, capability: Capability, status: str, error: ExecuteError | None) -> None:
    """Telemetry of a call that is closed."""
    started_at = call.journal.started_at
    if started_at is not None:
        elapsed_s = (call.deps.clock.now() - started_at).total_seconds()
        call.deps.telemetry.record(METRIC_STEP_DURATION, elapsed_s, {"status": status})
    _LOG.info(
        "step performed",
        extra={
            "run_id": call.task.run_id,
            "step_id": call.task.step_id,
            "item": call.task.item,
            "attempt": call.task.attempt,
            "capability": capability.name,
            "status": status,
            "code": error.code if error else None,
        },
    )


def _ending(
    journal: Journal, output: PayloadRef | None, error: ExecuteError | None, cost: int, *, agents_words: bool
) -> Ending:
    if error is None:
        return journal.success(output, cost_micro_usd=cost)
    return journal.failure(
        error.code,
        error.message,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
        cost_micro_usd=cost,
        agents_words=agents_words,
    )


async def _assess(
    call: Call, capability: Capability, response: ExecuteResponse, reserved: int
) -> tuple[PayloadRef | None, ExecuteError | None, int]:
    """What came of the call: the stored output or an error, and what it cost."""
    if not isinstance(response, ExecuteSucceeded):
        return None, response.error, 0
    cost = reserved if response.usage.cost_micro_usd is None else response.usage.cost_micro_usd
    try:
        output, error = await _accept(call, capability, response.output)
    except LivoaError as err:
        output, error = None, ExecuteError(code=err.code, message=err.message, retryable=err.status >= 500)
    if error is not None and call.journal.is_repeated(error.retryable):
        cost = 0  # the next attempt is answered with this same success, and pays for it
    return output, error, cost


async def _accept(call: Call, capability: Capability, output: Any) -> tuple[PayloadRef | None, ExecuteError | None]:
    violations = validate_output(capability, output)
    if violations:
        places = ", ".join(f"{violation.pointer or '/'} ({violation.code})" for violation in violations[:3])
        return None, ExecuteError(
            code="agent.contract_violation", message=f"the output does not fit its schema: {places}"
        )
    try:
        data = json.dumps(output, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return None, ExecuteError(code="agent.contract_violation", message="the output is not JSON")
    task = call.task
    return await persistently(lambda: call.deps.payloads.put(task.tenant_id, task.run_id, data)), None
