"""The rules every store of assignments applies, as pure functions: what each operation makes of the row that stands.

A rule gets the row, or None, and returns its answer and the row to store, or None when nothing changes. ``RuledAssignments``
is the port over one atomic "read a row, apply a rule, write it", which is all that an adapter adds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from engine.domain.bus import Assignment, AssignmentStatus, nonce_sha256
from engine.domain.run import PayloadRef
from engine.ports.assignments import Assignments, Finished, Leased, NotLeased

T = TypeVar("T")
Rule = Callable[[Assignment | None], tuple[T, Assignment | None]]
"""Row → answer and the row to store."""

MAX_WORKER_NAME = 100
SEND_AGAIN_AFTER_S = 300.0
"""A command that no worker has taken for so long may be lost; most of the time its queue is long, so it is doubled each time."""
SEND_AGAIN_AT_MOST_S = 3_600.0
OPEN = frozenset({AssignmentStatus.QUEUED, AssignmentStatus.LEASED})
"""Nobody has answered yet, and somebody still may."""


def look_at(assignment: Assignment) -> datetime:
    """When an open assignment is overdue: its lease runs out, or its deadline passes."""
    lease_until_at = assignment.lease_until_at
    return assignment.deadline_at if lease_until_at is None else min(lease_until_at, assignment.deadline_at)


def unsent_since(assignment: Assignment) -> datetime:
    """Since when its command wants to be sent: at once after it was made, and again, ever later, while no worker takes it."""
    if assignment.sent_at is None:
        return assignment.created_at
    again_s = min(SEND_AGAIN_AFTER_S * 2 ** min(assignment.sends - 1, 10), SEND_AGAIN_AT_MOST_S)
    return assignment.sent_at + timedelta(seconds=again_s)


def is_overdue(assignment: Assignment, now: datetime, before: datetime) -> bool:
    """Whether the sweep looks at it."""
    if assignment.status not in OPEN:
        return False
    queued = assignment.status is AssignmentStatus.QUEUED
    return look_at(assignment) <= now or (queued and unsent_since(assignment) < before)


def assigning(new: Assignment) -> Rule[Assignment]:
    """Insert; a later attempt replaces the row with the next token; anything else finds the row as it stands."""

    def rule(found: Assignment | None) -> tuple[Assignment, Assignment | None]:
        if found is None:
            first = new.model_copy(update={"token": 1})
            return first, first
        if new.attempt <= found.attempt:
            return found, None
        later = new.model_copy(update={"token": found.token + 1})
        return later, later

    return rule


def sending(token: int, at: datetime) -> Rule[None]:
    """Count a send of the latest token."""

    def rule(found: Assignment | None) -> tuple[None, Assignment | None]:
        if found is None or found.token != token:
            return None, None
        return None, found.model_copy(update={"sent_at": at, "sends": found.sends + 1})

    return rule


def leasing(token: int, worker: str, nonce: str, now: datetime) -> Rule[Leased | NotLeased]:
    """Take what is queued and not too late."""

    def rule(found: Assignment | None) -> tuple[Leased | NotLeased, Assignment | None]:
        refusal = _refusal(found, token)
        if found is None or refusal is not None:
            return refusal or NotLeased("unknown"), None
        if found.status is AssignmentStatus.LEASED:
            same = found.worker == worker[:MAX_WORKER_NAME] and found.nonce_sha256 == nonce_sha256(nonce)
            return (Leased(found), None) if same else (NotLeased("held"), None)
        if now >= found.deadline_at:
            return NotLeased("ended"), None
        taken = found.model_copy(
            update={
                "status": AssignmentStatus.LEASED,
                "worker": worker[:MAX_WORKER_NAME],
                "nonce_sha256": nonce_sha256(nonce),
                "lease_until_at": now + timedelta(seconds=found.lease_s),
            }
        )
        return Leased(taken), taken

    return rule


def renewing(token: int, nonce: str, now: datetime) -> Rule[Leased | NotLeased]:
    """Renew the lease of who holds it. One that ran out and was not voided is renewed too: nobody else has the work.

    It is shortened only when it would last for more than two lengths: then the clock was set back, and whoever holds it would be
    waited for by as much longer.
    """

    def rule(found: Assignment | None) -> tuple[Leased | NotLeased, Assignment | None]:
        refusal = _not_holder(found, token, nonce)
        if found is None or refusal is not None:
            return refusal or NotLeased("unknown"), None
        until = now + timedelta(seconds=found.lease_s)
        length = timedelta(seconds=found.lease_s)
        if found.lease_until_at is not None and until <= found.lease_until_at <= until + length:
            return Leased(found), None
        renewed = found.model_copy(update={"lease_until_at": until})
        return Leased(renewed), renewed

    return rule


def releasing(token: int, nonce: str) -> Rule[Assignment | None]:
    """Give back what the holder has and will not answer any more: queued and unsent again, under the same token."""

    def rule(found: Assignment | None) -> tuple[Assignment | None, Assignment | None]:
        if found is None or _not_holder(found, token, nonce) is not None:
            return None, None
        nobody = {"worker": None, "nonce_sha256": None, "lease_until_at": None}
        back = found.model_copy(update={"status": AssignmentStatus.QUEUED, "sent_at": None, **nobody})
        return back, back

    return rule


def finishing(token: int, nonce: str, response_ref: PayloadRef, now: datetime) -> Rule[Finished | NotLeased]:
    """Store the holder's answer; the same answer again finds it stored."""

    def rule(found: Assignment | None) -> tuple[Finished | NotLeased, Assignment | None]:
        if found is not None and found.token == token and found.status is AssignmentStatus.FINISHED:
            same = found.nonce_sha256 == nonce_sha256(nonce) and found.response_ref == response_ref
            return (Finished(found, new=False) if same else NotLeased("ended")), None
        refusal = _not_holder(found, token, nonce)
        if found is None or refusal is not None:
            return refusal or NotLeased("unknown"), None
        done = found.model_copy(
            update={"status": AssignmentStatus.FINISHED, "response_ref": response_ref, "ended_at": now}
        )
        return Finished(done, new=True), done

    return rule


def voiding(token: int, now: datetime, *, lapsed_only: bool) -> Rule[Assignment | None]:
    """End what nobody has answered. One that is void already is returned as it is, except that a revocation is the last word.

    A lease that would last for more than two lengths is from before the clock was set back: it lasts for one more, because
    whoever had it may be gone, and would be waited for by as much longer. Whoever is there renews it meanwhile.
    """

    def rule(found: Assignment | None) -> tuple[Assignment | None, Assignment | None]:
        if found is None or found.token != token or found.status is AssignmentStatus.FINISHED:
            return None, None
        if found.status is AssignmentStatus.VOID:
            if lapsed_only or found.void_reason != "lapsed":
                return found, None
            revoked = found.model_copy(update={"void_reason": "revoked"})
            return revoked, revoked
        if lapsed_only and look_at(found) > now:
            length = timedelta(seconds=found.lease_s)
            if found.lease_until_at is None or found.lease_until_at <= now + 2 * length:
                return None, None
            return None, found.model_copy(update={"lease_until_at": now + length})
        reason = "lapsed" if lapsed_only and now < found.deadline_at else "revoked"
        void = found.model_copy(update={"status": AssignmentStatus.VOID, "ended_at": now, "void_reason": reason})
        return void, void

    return rule


def _refusal(found: Assignment | None, token: int) -> NotLeased | None:
    if found is None or token > found.token:
        return NotLeased("unknown")
    if token < found.token:
        return NotLeased("superseded")
    if found.status in OPEN:
        return None
    return NotLeased("lapsed" if found.void_reason == "lapsed" else "ended")


def _not_holder(found: Assignment | None, token: int, nonce: str) -> NotLeased | None:
    refusal = _refusal(found, token)
    if refusal is None and found is not None and found.nonce_sha256 != nonce_sha256(nonce):
        return NotLeased("unknown")
    return refusal


class RuledAssignments(Assignments):
    """The port, given one atomic change of a row."""

    @abstractmethod
    async def _update(self, tenant_id: str, run_id: str, key: str, rule: Rule[T]) -> T:
        """Read the row, apply ``rule``, write what it returns, all at once."""

    @abstractmethod
    async def _open_of(self, tenant_id: str, run_id: str) -> tuple[Assignment, ...]:
        """Open rows of a run."""

    async def assign(self, assignment: Assignment) -> Assignment:
        """See ``Assignments.assign``."""
        return await self._update(assignment.tenant_id, assignment.run_id, assignment.key, assigning(assignment))

    async def get(self, tenant_id: str, run_id: str, key: str) -> Assignment | None:
        """See ``Assignments.get``."""
        return await self._update(tenant_id, run_id, key, lambda found: (found, None))

    async def sent(self, tenant_id: str, run_id: str, key: str, token: int, at: datetime) -> None:
        """See ``Assignments.sent``."""
        await self._update(tenant_id, run_id, key, sending(token, at))

    async def lease(
        self, tenant_id: str, run_id: str, key: str, token: int, *, worker: str, nonce: str, now: datetime
    ) -> Leased | NotLeased:
        """See ``Assignments.lease``."""
        return await self._update(tenant_id, run_id, key, leasing(token, worker, nonce, now))

    async def heartbeat(
        self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str, now: datetime
    ) -> Leased | NotLeased:
        """See ``Assignments.heartbeat``."""
        return await self._update(tenant_id, run_id, key, renewing(token, nonce, now))

    async def release(self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str) -> Assignment | None:
        """See ``Assignments.release``."""
        return await self._update(tenant_id, run_id, key, releasing(token, nonce))

    async def finish(
        self, tenant_id: str, run_id: str, key: str, token: int, *, nonce: str, response_ref: PayloadRef, now: datetime
    ) -> Finished | NotLeased:
        """See ``Assignments.finish``."""
        return await self._update(tenant_id, run_id, key, finishing(token, nonce, response_ref, now))

    async def void(
        self, tenant_id: str, run_id: str, key: str, token: int, *, now: datetime, lapsed_only: bool
    ) -> Assignment | None:
        """See ``Assignments.void``."""
        return await self._update(tenant_id, run_id, key, voiding(token, now, lapsed_only=lapsed_only))

    async def void_run(self, tenant_id: str, run_id: str, now: datetime) -> tuple[Assignment, ...]:
        """See ``Assignments.void_run``. One row at a time: a crash in between is made up for by calling again."""
        ended = []
        for one in await self._open_of(tenant_id, run_id):
            void = await self.void(tenant_id, run_id, one.key, one.token, now=now, lapsed_only=False)
            if void is not None:
                ended.append(void)
        return tuple(ended)
