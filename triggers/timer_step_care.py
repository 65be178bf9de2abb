"""What the sweep does about steps that workers have: take back what lapsed, send again what nobody took, tell again what ended.

Everything here can be done twice, by any number of sweeps at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.domain.bus import Assignment, AssignmentStatus
from engine.domain.errors import LivoaError
from engine.domain.run import StepRecord
from engine.domain.status import StepStatus
from engine.ports.deps import Deps
from engine.step_runner import record_meanwhile, send_command
from triggers.http_adapter import DurableClient
from triggers.starting import tell_step_ended

LIMIT = 1_000
SEND_AFTER_S = 15.0
"""A younger command is still in the hands of the step that makes it."""
TELL_AFTER_S = 10.0
"""An end that is younger is being announced by whoever stored it."""
TELL_FOR_S = 900.0
"""For so long after the end of a step its waiter is told again; whoever is deaf longer looks when the step's time is over."""

_LOG = logging.getLogger("livoa.sweep")


@dataclass(slots=True)
class BusCare:
    """How many steps of workers were taken back, sent again, told again, or could not be helped."""

    taken_back: int = 0
    sent: int = 0
    told: int = 0
    failed: int = 0


async def care_for_steps(deps: Deps, client: DurableClient, now: datetime) -> BusCare:
    """Look after what is open too long and what ended lately. One step's failure does not keep the others waiting."""
    done = BusCare()
    before = now - timedelta(seconds=SEND_AFTER_S)
    bus_is_there = deps.step_queue.is_configured
    for assignment in await deps.assignments.overdue(now, unsent_since=before, limit=LIMIT):
        try:
            if await _take_back(assignment, deps, client, now):
                done.taken_back += 1
            elif bus_is_there and assignment.status is AssignmentStatus.QUEUED:
                await send_command(assignment, deps)
                done.sent += 1
        except Exception as err:
            done.failed += 1
            if isinstance(err, LivoaError) and err.code.startswith("bus."):
                bus_is_there = False  # once is enough to know
            _LOG.warning("sweep could not help a step", exc_info=True, extra={"run_id": assignment.run_id})
    for assignment in await deps.assignments.ended_since(now - timedelta(seconds=TELL_FOR_S), LIMIT):
        if await _is_unheard(assignment, deps, now):
            await record_meanwhile(assignment, deps)
            done.told += await tell_step_ended(assignment, client)
    return done


async def _take_back(assignment: Assignment, deps: Deps, client: DurableClient, now: datetime) -> bool:
    """Void it if its lease ran out, its deadline passed or its step is over, and say so to whoever waits."""
    of = (assignment.tenant_id, assignment.run_id, assignment.key, assignment.token)
    is_left = assignment.status is AssignmentStatus.QUEUED and await _is_left(assignment, deps)
    void = await deps.assignments.void(*of, now=now, lapsed_only=not is_left)
    if void is None:
        return False
    await record_meanwhile(void, deps)
    await tell_step_ended(void, client)
    return True


async def _is_left(assignment: Assignment, deps: Deps) -> bool:
    """True when its attempt is over already: a store assigned it and lost the answer, so the attempt failed and nothing was sent.

    Sent now, it would have its effect after the step is on record as failed.
    """
    record = await _record_of(assignment, deps)
    if record is None or record.attempt < assignment.attempt:
        return False
    return record.attempt > assignment.attempt or record.status is not StepStatus.RUNNING


async def _record_of(assignment: Assignment, deps: Deps) -> StepRecord | None:
    return await deps.runs.get_step(assignment.tenant_id, assignment.run_id, assignment.step_id, assignment.item)


async def _is_unheard(assignment: Assignment, deps: Deps, now: datetime) -> bool:
    """True while the step it was for has not gone on."""
    if assignment.ended_at is None or abs(now - assignment.ended_at) < timedelta(seconds=TELL_AFTER_S):
        return False
    record = await _record_of(assignment, deps)
    return record is not None and record.status is StepStatus.RUNNING and record.attempt == assignment.attempt
