"""Statuses of runs and steps, and how a run's status looks in the durable status-query shape."""

from __future__ import annotations

from enum import StrEnum


class RunStatus(StrEnum):
    """Where a run stands. ``partial`` means an answer exists but a non-optional step failed: never called succeeded."""

    ACCEPTED = "accepted"
    PLANNING = "planning"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    SUSPENDED = "suspended"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    DENIED = "denied"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"

    @property
    def is_final(self) -> bool:
        """True when nothing more will happen to the run."""
        return self in FINAL_RUN_STATUSES


FINAL_RUN_STATUSES = frozenset(
    {
        RunStatus.SUCCEEDED,
        RunStatus.PARTIAL,
        RunStatus.DENIED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.TERMINATED,
    }
)


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True when the step will not change any more."""
        return self in FINAL_STEP_STATUSES


FINAL_STEP_STATUSES = frozenset(
    {StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.DENIED, StepStatus.SKIPPED, StepStatus.CANCELLED}
)

DURABLE_STATUS: dict[RunStatus, str] = {
    RunStatus.ACCEPTED: "Pending",
    RunStatus.PLANNING: "Running",
    RunStatus.AWAITING_APPROVAL: "Running",
    RunStatus.RUNNING: "Running",
    RunStatus.CANCELLING: "Running",
    RunStatus.SUSPENDED: "Suspended",
    RunStatus.SUCCEEDED: "Completed",
    RunStatus.PARTIAL: "Completed",
    RunStatus.DENIED: "Failed",
    RunStatus.FAILED: "Failed",
    RunStatus.CANCELLED: "Terminated",
    RunStatus.TERMINATED: "Terminated",
}
"""``runtimeStatus`` of the durable status shape for each run status; the exact one travels in ``customStatus.status``."""
