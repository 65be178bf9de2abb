"""The circuit in front of a call: what counts against it, and what a step does that is not let through.

What one caller did wrong never counts: refusals of a request, broken contracts, conflicts, and time-outs of callers that gave
less time than the capability asks for. Otherwise one tenant could stop a capability for all.
"""

from __future__ import annotations

import logging
from datetime import datetime

from engine.domain.audit import ENGINE_ACTOR, AuditEntry, AuditType
from engine.domain.capability import Capability
from engine.domain.errors import LivoaError
from engine.domain.events import BreakerEventData, EventType, new_event
from engine.domain.execute import RESULT_UNKNOWN, ExecuteResponse, ExecuteSucceeded
from engine.domain.outcomes import StepOutcome
from engine.ports.breakers import CircuitOutcome, CircuitPass
from engine.ports.deps import Deps
from engine.step_runner.records import Journal
from engine.step_runner.task import StepTask

_LOG = logging.getLogger("livoa.steps")
OPEN_CODE = "agent.circuit_open"
_OF_OTHERS = frozenset({"agent.conflict", "agent.lease_lost", "agent.no_credential", "agent.no_grant"})
"""Say something about another call, about the worker that had it, or about our own identity and keys."""
_HEALTH_WORDS = ("agent.", "auth.", "grant.")
"""First words of the codes that a caller of an agent gives its failures. An agent's own codes say something about the work."""


def circuit_outcome(response: ExecuteResponse, capability: Capability, given_s: float) -> CircuitOutcome:
    """What a response says about the health of the capability; ``given_s`` is the time that it was given.

    Unreachable, 429 and 5xx are failures: they come as retryable ``agent.*`` or ``auth.*``. A time-out is one when the capability
    had the time that its manifest asks for, and so is a call that was cut off in the middle."""
    if isinstance(response, ExecuteSucceeded):
        return "success"
    error = response.error
    if error.code in ("agent.timeout", RESULT_UNKNOWN):
        return "failure" if given_s >= capability.timeout_s else "neutral"
    ill = error.retryable and error.code.startswith(_HEALTH_WORDS) and error.code not in _OF_OTHERS
    return "failure" if ill else "neutral"


async def held_off(passed: CircuitPass, task: StepTask, journal: Journal, deps: Deps) -> StepOutcome:
    """The step is not let through: it says so in the run's log and comes back when the circuit may be tried."""
    await _tell(passed.circuit, passed.generation, passed.open_until_at, task, deps)
    message = "calls of this capability have failed so often that they stop for a while"
    # What can fall back does so now: it would find the circuit open again.
    later = not journal.falls_back
    wait_s = passed.retry_after_s if later else None
    return await journal.failed(OPEN_CODE, message, retryable=later, retry_after_s=wait_s)


async def report(passed: CircuitPass, outcome: CircuitOutcome, task: StepTask, deps: Deps) -> None:
    """Tell the circuit how the call ended, and the run when that opened it. Never in the way of the call's own result."""
    open_until_at = await deps.circuits.report(passed, outcome)
    if open_until_at is not None:
        # Opening began the generation after that of the call.
        await _tell(passed.circuit, passed.generation + 1, open_until_at, task, deps)


async def _tell(circuit: str, generation: int, open_until_at: datetime | None, task: StepTask, deps: Deps) -> None:
    data = BreakerEventData(breaker=circuit, open_until_at=open_until_at)
    # Once per run for each opening, however many of its steps meet it.
    event = new_event(EventType.BREAKER_OPENED, data, f"breaker.opened/{circuit}/{generation}")
    entry = AuditEntry(
        tenant_id=task.tenant_id,
        entry_id=f"{task.run_id}/{AuditType.BREAKER_OPENED.value}/{circuit}/{generation}",
        type=AuditType.BREAKER_OPENED,
        at=deps.clock.now(),
        run_id=task.run_id,
        actor=ENGINE_ACTOR,
        body={"circuit": circuit, "generation": generation, "met_by": task.step_id},
    )
    try:
        await deps.audit.append(entry)
        await deps.events.append(task.tenant_id, task.run_id, [event])
    except LivoaError:
        _LOG.warning("an open circuit could not be told to its run", exc_info=True, extra={"run_id": task.run_id})
