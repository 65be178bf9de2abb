"""The two transition tables: how a step's status and a run's phase may move. Data only; nothing else changes either.

A move that is not in a table is a defect of the scheduler, never a reaction to the outside: stale and duplicate events
are dropped before they get here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from engine.domain.status import StepStatus


class StepTrigger(StrEnum):
    """What can happen to a step."""

    START = "start"
    WAIT = "wait"
    SUCCEED = "succeed"
    FAIL = "fail"
    DENY = "deny"
    SKIP = "skip"
    CANCEL = "cancel"


STEP_TABLE: Mapping[tuple[StepStatus, StepTrigger], StepStatus] = {
    (StepStatus.PENDING, StepTrigger.START): StepStatus.RUNNING,
    (StepStatus.PENDING, StepTrigger.SKIP): StepStatus.SKIPPED,
    (StepStatus.PENDING, StepTrigger.CANCEL): StepStatus.CANCELLED,
    (StepStatus.RUNNING, StepTrigger.WAIT): StepStatus.WAITING,
    (StepStatus.RUNNING, StepTrigger.SUCCEED): StepStatus.SUCCEEDED,
    (StepStatus.RUNNING, StepTrigger.FAIL): StepStatus.FAILED,
    (StepStatus.RUNNING, StepTrigger.DENY): StepStatus.DENIED,
    (StepStatus.RUNNING, StepTrigger.SKIP): StepStatus.SKIPPED,
    (StepStatus.RUNNING, StepTrigger.CANCEL): StepStatus.CANCELLED,
    (StepStatus.WAITING, StepTrigger.START): StepStatus.RUNNING,
    (StepStatus.WAITING, StepTrigger.FAIL): StepStatus.FAILED,
    (StepStatus.WAITING, StepTrigger.CANCEL): StepStatus.CANCELLED,
}
"""Where a step goes. ``waiting`` covers a backoff before the next attempt, a ``wait`` step that is not due, and a step that has
failed while the repair of its plan is under way."""


class RunPhase(StrEnum):
    """What a run is busy with; finer than its public status."""

    PLANNING = "planning"
    RUNNING = "running"
    COMPOSING = "composing"
    UNDOING = "undoing"
    FINISHING = "finishing"
    OVER = "over"


class RunTrigger(StrEnum):
    """What can happen to a run as a whole."""

    PLANNED = "planned"
    SETTLED = "settled"
    DECIDED = "decided"
    LOST = "lost"
    UNDONE = "undone"
    RECORDED = "recorded"


RUN_TABLE: Mapping[tuple[RunPhase, RunTrigger], RunPhase] = {
    (RunPhase.PLANNING, RunTrigger.PLANNED): RunPhase.RUNNING,
    (RunPhase.PLANNING, RunTrigger.DECIDED): RunPhase.FINISHING,
    (RunPhase.RUNNING, RunTrigger.SETTLED): RunPhase.COMPOSING,
    (RunPhase.RUNNING, RunTrigger.DECIDED): RunPhase.FINISHING,
    (RunPhase.COMPOSING, RunTrigger.DECIDED): RunPhase.FINISHING,
    (RunPhase.RUNNING, RunTrigger.LOST): RunPhase.UNDOING,
    (RunPhase.COMPOSING, RunTrigger.LOST): RunPhase.UNDOING,
    (RunPhase.UNDOING, RunTrigger.UNDONE): RunPhase.FINISHING,
    (RunPhase.FINISHING, RunTrigger.RECORDED): RunPhase.OVER,
}
"""Where a run goes. ``settled``: every step is final and an answer is due. ``decided``: the final status is known.
``lost``: it is known too, the run came to nothing, and there are effects to undo. ``undone``: that is over."""
