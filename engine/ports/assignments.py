"""Assignments of steps to workers: who may answer for a step, decided by the store alone.

All times are the store's callers' clock. Every method is idempotent; what is refused is a value, not an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from engine.domain.bus import Assignment
from engine.domain.errors import LivoaError
from engine.domain.run import PayloadRef

LeaseRefusal = Literal["unknown", "superseded", "held", "lapsed", "ended"]
"""``unknown``: no such assignment of that tenant and run. ``superseded``: the token is not the latest. ``held``: a worker has it
(even if that lease ran out: it is taken once for each token, unless its holder gives it back). ``lapsed``: its lease ran
out and it was taken back, for a later attempt to take up what the agent is at. ``ended``: finished, or void for good."""


@dataclass(frozen=True, slots=True)
class Leased:
    """The worker holds the assignment until its ``lease_until_at``."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class NotLeased:
    """The worker must not act."""

    reason: LeaseRefusal


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is stored. ``new`` is False when the same answer was stored before."""

    assignment: Assignment
    new: bool


class Assignments(Protocol):
    """One row for each (tenant, key). Other tenants' rows look absent."""

    async def assign(self, assignment: Assignment) -> Assignment:
        """Insert, or find the row of the same attempt as it stands. A later attempt replaces an earlier one's row: its token is
        the one before plus one, status queued. An earlier attempt than the stored one changes nothing and gets the stored row."""
        ...

    async def get(self, tenant_id: str, run_id: str, key: str) -> Assignment | None:
        """The row as it stands, or None."""
        ...

    async def sent(self, tenant_id: str, run_id: str, key: str, token: int, at: datetime) -> None:
        """Count that its command was sent."""
        ...

    async def lease(
        self, tenant_id: str, run_id: str, key: str, token: int, *, worker: str, nonce: str, now: datetime
    ) -> Leased | NotLeased:
        """Take a queued assignment for ``lease_s``. The same worker with the same nonce asking again gets its lease again."""
        ...

    async def heartbeat(
        self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str, now: datetime
    ) -> Leased | NotLeased:
        """Renew the lease of who holds it, also one that ran out and was not voided: nobody else has the work. ``ended`` tells
        the worker to stop, ``superseded`` and ``lapsed`` to let go of what the next attempt will take up."""
        ...

    async def release(self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str) -> Assignment | None:
        """Give back what one holds, without an answer: it is queued and unsent again, for anybody to lease under the same token.
        The answer of who gave it back does not count any more. None when it was not one's own."""
        ...

    async def finish(
        self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str, response_ref: PayloadRef, now: datetime
    ) -> Finished | NotLeased:
        """Store the answer of who holds the lease. A lease that ran out but was not voided yet still counts. A wrong nonce is
        ``unknown``."""
        ...

    async def void(
        self, tenant_id: str, run_id: str, key: str, token: int, *, now: datetime, lapsed_only: bool
    ) -> Assignment | None:
        """End an assignment nobody has answered. With ``lapsed_only`` only one whose lease has run out or whose deadline has
        passed. Returns the row when it is void now, None when it was left alone.

        ``void_reason`` is ``lapsed`` for a lease that ran out before the deadline, ``revoked`` for anything else; without
        ``lapsed_only`` a ``lapsed`` one becomes ``revoked``."""
        ...

    async def void_run(self, tenant_id: str, run_id: str, now: datetime) -> tuple[Assignment, ...]:
        """The run ends: whatever is open becomes void. Returns what became void now."""
        ...

    async def overdue(self, now: datetime, *, unsent_since: datetime, limit: int) -> tuple[Assignment, ...]:
        """Of any tenant, oldest first, what the sweep looks at: open ones whose lease has run out or whose deadline has passed,
        and queued ones whose command should have been sent before ``unsent_since``: after they were made, and again when for five
        minutes, then ten and so on, no worker took it. Not reachable from any route."""
        ...

    async def ended_since(self, since: datetime, limit: int) -> tuple[Assignment, ...]:
        """Of any tenant: finished or void at ``since`` or later, oldest first; whose waiter may have missed the event."""
        ...

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """Forget a run's assignments. Returns how many."""
        ...


class NoAssignments:
    """Where no assignment can be kept, no step can be handed on."""

    async def assign(self, assignment: Assignment) -> Assignment:
        """See ``Assignments``. Raises ``LivoaError("bus.not_configured")``."""
        raise _unavailable()

    async def get(self, tenant_id: str, run_id: str, key: str) -> Assignment | None:
        """See ``Assignments``."""
        return None

    async def sent(self, tenant_id: str, run_id: str, key: str, token: int, at: datetime) -> None:
        """See ``Assignments``."""

    async def lease(
        self, tenant_id: str, run_id: str, key: str, token: int, *, worker: str, nonce: str, now: datetime
    ) -> Leased | NotLeased:
        """See ``Assignments``."""
        return NotLeased("unknown")

    async def heartbeat(
        self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str, now: datetime
    ) -> Leased | NotLeased:
        """See ``Assignments``."""
        return NotLeased("unknown")

    async def release(self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str) -> Assignment | None:
        """See ``Assignments``."""
        return None

    async def finish(
        self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str, response_ref: PayloadRef, now: datetime
    ) -> Finished | NotLeased:
        """See ``Assignments``."""
        return NotLeased("unknown")

    async def void(
        self, tenant_id: str, run_id: str, key: str, token: int, *, now: datetime, lapsed_only: bool
    ) -> Assignment | None:
        """See ``Assignments``."""
        return None

    async def void_run(self, tenant_id: str, run_id: str, now: datetime) -> tuple[Assignment, ...]:
        """See ``Assignments``."""
        return ()

    async def overdue(self, now: datetime, *, unsent_since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments``."""
        return ()

    async def ended_since(self, since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments``."""
        return ()

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``Assignments``."""
        return 0


def _unavailable() -> LivoaError:
    return LivoaError("bus.not_configured", "Steps cannot be handed to workers here.", status=503)
