"""Messages about runs: those that submit them, and those that tell what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from engine.domain.errors import LivoaError
from engine.domain.events import RunEvent


class HeldMessages(Protocol):
    """Messages of one queue that a trigger has received and cannot settle itself."""

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        """Move a message that is held under ``lock_token`` to the dead letters. Both texts have at most 4,096 characters.

        ``LivoaError("bus.unavailable", status=503)`` when it cannot be done, also because the lock is lost.
        """
        ...

    async def postpone(self, body: bytes, message_id: str, *, times: int, delay_s: float) -> None:
        """Send the same message once more, to arrive in ``delay_s``; ``times`` counts how often that was done, this included.

        ``LivoaError("bus.unavailable", status=503)`` when it cannot be done.
        """
        ...


class NoRunRequests:
    """Where no bus is configured."""

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        """See ``HeldMessages``. Raises ``LivoaError("bus.not_configured")``."""
        raise LivoaError("bus.not_configured", "No bus is configured.", status=503)

    async def postpone(self, body: bytes, message_id: str, *, times: int, delay_s: float) -> None:
        """See ``HeldMessages``. Raises ``LivoaError("bus.not_configured")``."""
        raise LivoaError("bus.not_configured", "No bus is configured.", status=503)


@dataclass(frozen=True, slots=True)
class WaitingRun:
    """A run of which other systems have not been told everything."""

    tenant_id: str
    run_id: str


class Outbox(Protocol):
    """Events that other systems are to be told of. Where a bus is configured they are put here in the transaction that appends
    them to the run's log, and taken out when they have been sent: so none is lost, and one may be sent twice."""

    async def runs_waiting(self, limit: int) -> tuple[WaitingRun, ...]:
        """Runs of any tenant with something to tell, the one that waits longest first. Not reachable from any route."""
        ...

    async def waiting(self, tenant_id: str, run_id: str, limit: int) -> tuple[RunEvent, ...]:
        """What is to be told of a run, in order: the first ``limit`` events, or somewhat more."""
        ...

    async def told(self, tenant_id: str, run_id: str, *, through_seq: int) -> None:
        """Take out what has been sent: everything of the run up to and with ``through_seq``."""
        ...


class NoOutbox:
    """Where nobody is told of anything."""

    async def runs_waiting(self, limit: int) -> tuple[WaitingRun, ...]:
        """See ``Outbox``."""
        return ()

    async def waiting(self, tenant_id: str, run_id: str, limit: int) -> tuple[RunEvent, ...]:
        """See ``Outbox``."""
        return ()

    async def told(self, tenant_id: str, run_id: str, *, through_seq: int) -> None:
        """See ``Outbox``."""


class RunEventTopic(Protocol):
    """Where other systems hear of runs."""

    async def publish(self, events: Sequence[RunEvent]) -> None:
        """Send lifecycle events of one run, in order, durably when it returns; at least once, each under an id of its own.

        ``LivoaError("bus.unavailable", status=503)`` when that fails: some may have been sent all the same.
        """
        ...


class NoRunEvents:
    """Where no bus is configured."""

    async def publish(self, events: Sequence[RunEvent]) -> None:
        """See ``RunEventTopic``. Raises ``LivoaError("bus.not_configured")``."""
        raise LivoaError("bus.not_configured", "No bus is configured.", status=503)
