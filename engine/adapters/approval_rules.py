"""The rules every approval store applies, as pure functions: what asking, answering and ending make of the approvals of one run.

Adapters differ in how they make a write atomic, never in what it means. Nothing here stores anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from engine.domain.approval import Approval, ApprovalAnswer, answered, event_of, expired, replaced_by, voided
from engine.domain.errors import ConflictError, NotFoundError
from engine.domain.events import NewEvent
from engine.domain.run import Run, StepRecord
from engine.domain.status import RunStatus, StepStatus

MAX_OF_RUN = 1_000
"""Most approvals of one run that a read returns."""


@dataclass(frozen=True, slots=True)
class ApprovalWrite:
    """What one operation writes: approvals as they are now, and the run's status when it changes. ``result`` is its answer."""

    result: Approval
    changed: tuple[Approval, ...] = ()
    run_status: RunStatus | None = None

    @property
    def events(self) -> list[NewEvent]:
        """One event for each change."""
        return [event_of(approval) for approval in self.changed]


def not_found() -> NotFoundError:
    """The one answer for an absent approval and for another tenant's."""
    return NotFoundError("approval.not_found", "There is no such approval.")


def is_call_under_way(record: StepRecord) -> bool:
    """True when a call of this step or item may be open. A map's own record is open as long as its items are."""
    is_parent = record.kind == "map" and record.item is None
    return record.status is StepStatus.RUNNING and not is_parent


def requested(
    run: Run, approval: Approval, known: Approval | None, others: Iterable[Approval], *, busy: bool, now: datetime
) -> ApprovalWrite:
    """Ask. ``known`` is what stands under the same id, ``others`` the run's other approvals of the same place; ``busy`` says
    that a call of the run is under way.

    Raises ``ConflictError("run.finished")``.
    """
    if run.status.is_final or run.status is RunStatus.CANCELLING:
        raise ConflictError("run.finished", f"the run is {run.status.value}; nothing is asked any more")
    stale = tuple(
        after
        for before in others
        if (after := voided(before, now, replaced_by(before.binding, approval.binding))) is not before
    )
    if known is None:
        return ApprovalWrite(approval, (*stale, approval), _asking_status(run, approval, busy=busy))
    current = expired(known, now)
    changed = (*stale, *(() if current is known else (current,)))
    status = _asking_status(run, current, busy=busy) if current.is_pending else _going_on(run, current)
    return ApprovalWrite(current, changed, status)


def replied(run: Run, approval: Approval, answer: ApprovalAnswer, now: datetime) -> ApprovalWrite:
    """Answer. Raises as ``ApprovalStore.answer``."""
    if approval.is_pending and (run.status.is_final or run.status is RunStatus.CANCELLING):
        raise ConflictError("approval.closed", f"The run is {run.status.value}; there is nothing to answer any more.")
    current = answered(approval, answer, now)
    if current is approval:
        return ApprovalWrite(approval)
    return ApprovalWrite(current, (current,), _going_on(run, current))


def closed(approvals: Iterable[Approval], now: datetime) -> tuple[Approval, ...]:
    """What a run's end makes of its pending approvals."""
    return tuple(voided(approval, now, "approval.run_over") for approval in approvals if approval.is_pending)


def _asking_status(run: Run, approval: Approval, *, busy: bool) -> RunStatus | None:
    return RunStatus.AWAITING_APPROVAL if run.status is _asked_in(approval) and not busy else None


def _asked_in(approval: Approval) -> RunStatus:
    """The status of a run that asks this: its first plan is asked about before it runs, a repaired one while it does."""
    return RunStatus.PLANNING if approval.binding.kind == "plan" and approval.plan_version <= 1 else RunStatus.RUNNING


def _going_on(run: Run, approval: Approval) -> RunStatus | None:
    if run.status is not RunStatus.AWAITING_APPROVAL:
        return None
    return _asked_in(approval)
