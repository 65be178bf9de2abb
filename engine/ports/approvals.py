"""Approvals of runs. Every write is one transaction with its event and with the status of the run it concerns."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from engine.domain.approval import Approval, ApprovalAnswer
from engine.domain.errors import LivoaError


class ApprovalStore(Protocol):
    """Questions to people and their answers.

    A run is ``awaiting_approval`` from the moment something is asked while no call of the run is under way, until the answer or
    the next start of a step. Unknown run: ``NotFoundError("run.not_found")``; unknown approval:
    ``NotFoundError("approval.not_found")``.
    """

    async def request(self, approval: Approval) -> Approval:
        """Ask, or find what was asked before under the same id (its time may be over by now: then it is expired).

        Other open or granted approvals of the same place become void. Raises ``ConflictError("run.finished")`` when the run is
        over or is being cancelled.
        """
        ...

    async def get(self, tenant_id: str, run_id: str, approval_id: str) -> Approval | None:
        """One approval, or None when it is absent or another tenant's."""
        ...

    async def of_run(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """All approvals of a run, oldest first; at most 1,000, of which the latest."""
        ...

    async def pending(self, tenant_id: str, *, limit: int) -> tuple[Approval, ...]:
        """What may be answered in a tenant, oldest first. Those whose time is over may still be among them."""
        ...

    async def answer(self, tenant_id: str, run_id: str, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """Write down an answer. The same answer of the same person again changes nothing.

        Raises ``ConflictError("approval.closed")`` when it has another answer, is void, or the run is over or is being
        cancelled; ``LivoaError("approval.expired", status=410)`` when its time is over.
        """
        ...

    async def close(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """The run ends: whatever is still pending becomes void. Returns what became void now."""
        ...

    async def answered_since(self, since: datetime, limit: int) -> tuple[Approval, ...]:
        """Granted and refused approvals of any tenant's unfinished runs, decided at ``since`` or later, oldest decision first:
        what the sweep reminds of. Not reachable from any route."""
        ...


class NoApprovals:
    """Where no approval can be kept, none can be given: every question fails closed."""

    async def request(self, approval: Approval) -> Approval:
        """See ``ApprovalStore``. Raises ``LivoaError("approval.unavailable")``."""
        raise _unavailable()

    async def get(self, tenant_id: str, run_id: str, approval_id: str) -> Approval | None:
        """See ``ApprovalStore``."""
        return None

    async def of_run(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore``."""
        return ()

    async def pending(self, tenant_id: str, *, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore``."""
        return ()

    async def answer(self, tenant_id: str, run_id: str, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """See ``ApprovalStore``. Raises ``LivoaError("approval.unavailable")``."""
        raise _unavailable()

    async def close(self, tenant_id: str, run_id: str) -> tuple[Approval, ...]:
        """See ``ApprovalStore``."""
        return ()

    async def answered_since(self, since: datetime, limit: int) -> tuple[Approval, ...]:
        """See ``ApprovalStore``."""
        return ()


def _unavailable() -> LivoaError:
    return LivoaError("approval.unavailable", "Approvals cannot be kept here.", status=503)
