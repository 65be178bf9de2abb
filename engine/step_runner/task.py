"""What is asked of the step runner: one attempt of one step, or of one item of a map."""

from __future__ import annotations

from pydantic import Field

from engine.domain.base import Frozen
from engine.domain.ids import WireId, step_key


class StepTask(Frozen):
    """One attempt. Built from an activity's input; holds ids only."""

    tenant_id: WireId
    run_id: WireId
    step_id: WireId
    attempt: int = Field(default=1, ge=1, le=1_000)
    item: int | None = Field(default=None, ge=0)
    waiter: WireId | None = None
    """The durable instance that waits for the outcome, when it is not the run's own."""

    @property
    def key(self) -> str:
        """The idempotency key of the effect: the same for every attempt."""
        return step_key(self.run_id, self.step_id, self.item)

    @property
    def attempt_key(self) -> str:
        """Identifies this attempt in budgets, events and audit entries."""
        return f"{self.key}#{self.attempt}"
