"""What is asked of the step runner: one attempt of one step, or of one item of a map."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen
from engine.domain.ids import UNDO_SUFFIX, WireId, step_key, undo_id
from engine.domain.run import StepRecord

_SUFFIXES = {"step": "", "fallback": "/fallback", "compensation": "/undo"}


class StepTask(Frozen):
    """One attempt. Built from an activity's input; holds ids only."""

    tenant_id: WireId
    run_id: WireId
    step_id: WireId
    attempt: int = Field(default=1, ge=1, le=1_000)
    item: int | None = Field(default=None, ge=0)
    waiter: WireId | None = None
    """The durable instance that waits for the outcome, when it is not the run's own."""
    purpose: Literal["step", "fallback", "compensation"] = "step"
    """What is called: the step's capability, what stands in for it, or what undoes it."""

    @property
    def key(self) -> str:
        """The idempotency key of the effect: the same for every attempt."""
        key = step_key(self.run_id, self.step_id, self.item)
        return key + _SUFFIXES[self.purpose]

    @property
    def record_id(self) -> str:
        """Under which id it is recorded."""
        return undo_id(self.step_id) if self.purpose == "compensation" else self.step_id

    @property
    def attempt_key(self) -> str:
        """Identifies this attempt in budgets, events and audit entries."""
        return f"{self.key}#{self.attempt}"


def task_of(record: StepRecord, attempt: int) -> StepTask:
    """The task that an attempt was recorded for."""
    fields = {"tenant_id": record.tenant_id, "run_id": record.run_id, "item": record.item, "attempt": attempt}
    if record.step_id.endswith(UNDO_SUFFIX):
        step_id = record.step_id.removesuffix(UNDO_SUFFIX)
        return StepTask.model_validate(fields | {"step_id": step_id, "purpose": "compensation"})
    purpose = "fallback" if record.degraded is not None else "step"
    return StepTask.model_validate(fields | {"step_id": record.step_id, "purpose": purpose})
