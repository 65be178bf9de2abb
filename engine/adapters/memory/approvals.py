"""Approvals in the memory of a ``MemoryRunStore``. Not durable: only tests may rely on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from engine.adapters.approval_rules import (
    MAX_OF_RUN,
    ApprovalWrite,
    closed,
    is_call_under_way,
    not_found,
    replied,
    requested,
)
from engine.adapters.memory.run_store import MemoryRunStore
from engine.adapters.store_rules import bounded, run_not_found
from engine.domain.approval import Approval, ApprovalAnswer, ApprovalStatus
from engine.domain.events import NewEvent
from engine.domain.run import Run
from engine.ports.clock import Clock
from engine.ports.run_store import RunChange

_Work = Callable[[Run], ApprovalWrite]


class MemoryApprovalStore:
    """Approvals by tenant, run and id, each run's in the order in which they were asked."""

    def __init__(self, runs: MemoryRunStore, clock: Clock) -> None:
        self._runs = runs
        self._clock = clock
        self._approvals: dict[tuple[str, str], dict[str, Approval]] = {}

    def forget(self, tenant_id: str, run_id: str) -> None:
        """Remove a run's approvals."""
        self._approvals.pop((tenant_id, run_id), None)

    async def request(self, approval: Approval) -> Approval:
        """See ``ApprovalStore.request``."""
        now = self._clock.now()

        def write(run: Run) -> ApprovalWrite:
            kept = self._of(approval.tenant_id, approval.run_id)
            others = [
                other
                for other in kept.values()
                if other.binding.place == approval.binding.place and other.approval_id != approval.approval_id
            ]
            records = self._runs.records(approval.tenant_id, approval.run_id)
            busy = any(is_call_under_way(record) for record in records)
            return requested(run, approval, kept.get(approval.approval_id), others, busy=busy, now=now)

        return self._apply(approval.tenant_id, approval.run_id, write)

    async def get(self, tenant_id: str, run_id: str, approval_id: str) -> Approval | None:
        """See ``ApprovalStore.get``."""
        return self._of(tenant_id, run_id).get(approval_id)

    async def of_run(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore.of_run``."""
        return tuple(sorted(self._of(tenant_id, run_id).values(), key=_age))[-MAX_OF_RUN:]

    async def pending(self, tenant_id: str, *, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore.pending``. At most 1,000 approvals."""
        found = [
            approval
            for (tenant, run_id), kept in self._approvals.items()
            if tenant == tenant_id and not self._is_over(tenant, run_id)
            for approval in kept.values()
            if approval.is_pending
        ]
        return tuple(sorted(found, key=_age)[: bounded(limit)])

    async def answer(self, tenant_id: str, run_id: str, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """See ``ApprovalStore.answer``."""

        def write(run: Run) -> ApprovalWrite:
            approval = self._of(tenant_id, run_id).get(approval_id)
            if approval is None:
                raise not_found()
            return replied(run, approval, answer, self._clock.now())

        return self._apply(tenant_id, run_id, write)

    async def close(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore.close``."""
        if self._runs.peek(tenant_id, run_id) is None:
            raise run_not_found(run_id)
        void = closed(self._of(tenant_id, run_id).values(), self._clock.now())
        if void and not self._is_over(tenant_id, run_id):
            self._apply(tenant_id, run_id, lambda run: ApprovalWrite(void[0], void))
        return void

    async def answered_since(self, since: datetime, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore.answered_since``. At most 1,000 approvals."""
        found = [
            (approval.decided_at, approval.approval_id, approval)
            for (tenant, run_id), kept in self._approvals.items()
            if not self._is_over(tenant, run_id)
            for approval in kept.values()
            if approval.status in (ApprovalStatus.GRANTED, ApprovalStatus.REFUSED)
            and approval.decided_at is not None
            and approval.decided_at >= since
        ]
        return tuple(approval for _, _, approval in sorted(found, key=lambda entry: entry[:2])[: bounded(limit)])

    def _of(self, tenant_id: str, run_id: str) -> dict[str, Approval]:
        return self._approvals.get((tenant_id, run_id), {})

    def _is_over(self, tenant_id: str, run_id: str) -> bool:
        run = self._runs.peek(tenant_id, run_id)
        return run is None or run.status.is_final

    def _apply(self, tenant_id: str, run_id: str, work: _Work) -> Approval:
        written: list[ApprovalWrite] = []

        def change(run: Run) -> tuple[RunChange | None, list[NewEvent]]:
            written[:] = [work(run)]
            status = written[0].run_status
            return RunChange(status=status) if status is not None else None, written[0].events

        self._runs.apply(tenant_id, run_id, change)
        (write,) = written
        kept = self._approvals.setdefault((tenant_id, run_id), {})
        kept |= {approval.approval_id: approval for approval in write.changed}
        return write.result


def _age(approval: Approval) -> tuple[datetime, str]:
    return approval.requested_at, approval.approval_id
