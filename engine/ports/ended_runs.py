"""Runs that are over, on their way out: which are old enough, how far each has come, and the removal of what the store has."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Protocol

from engine.domain.run import Run


class Stage(IntEnum):
    """How far a run has come. Each stage includes those before it; after the last one the run is gone."""

    ENDED = 0
    INSTANCES_GONE = 1
    """The durable engine has forgotten it."""
    CONTENT_GONE = 2
    """Its key is destroyed and its objects are removed."""
    GONE = 3
    """Never noted: there is no run any more that it could be noted with."""


class EndedRuns(Protocol):
    """Runs in a final status. Records of audit are none of this port's business."""

    async def ended(self, tenant_id: str, *, before: datetime, stage: Stage, limit: int) -> tuple[Run, ...]:
        """Runs that have not changed since before then and have not come as far as ``stage``, the longest unchanged first. At
        most 1,000."""
        ...

    async def mark(self, tenant_id: str, run_id: str, stage: Stage) -> None:
        """Note how far the run has come. It does not count as a change, and nothing happens where the run is gone."""
        ...

    async def remove(self, tenant_id: str, run_id: str) -> bool:
        """Remove the run and everything that is kept with it: steps, events, approvals, results, assignments, accounts, and the
        claim on its idempotency key. Stopped in between and done again, it removes the rest. False when it was gone already.

        Raises ``ConflictError("run.not_finished")``.
        """
        ...


class NoEndedRuns:
    """Where nothing can be removed."""

    async def ended(self, tenant_id: str, *, before: datetime, stage: Stage, limit: int) -> tuple[Run, ...]:
        """See ``EndedRuns``."""
        return ()

    async def mark(self, tenant_id: str, run_id: str, stage: Stage) -> None:
        """See ``EndedRuns``."""

    async def remove(self, tenant_id: str, run_id: str) -> bool:
        """See ``EndedRuns``."""
        return False
