"""Forgets ended instances after a while: history, messages and the instance itself, in small bites, each its own transaction.

An instance that another one started stays until that one has ended too, because a rewind of the parent needs it. Only what the
durable store holds is meant; what an app keeps elsewhere is the app's. Off unless a period is given.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta

from local_host.durable.clock import Alarm, Clock
from local_host.durable.protocol import to_stamp
from local_host.durable.storage import Storage

_LOG = logging.getLogger("local_host.durable")

EVERY_S = 3_600.0
BITE = 200
"""Instances looked up at a time, so that a large backlog blocks nobody."""

Purge = Callable[[str], Awaitable[int]]
"""Deletes an ended instance; says how many were deleted."""


def ended_before(connection: sqlite3.Connection, stamp: str, limit: int) -> list[str]:
    """Ids of instances that ended before then and that no unfinished instance started, oldest first."""
    rows = connection.execute(
        "SELECT i.instance_id FROM instances i LEFT JOIN instances p ON p.instance_id = i.parent_id"
        " WHERE i.status IN ('Completed', 'Failed', 'Terminated', 'Canceled') AND i.updated_at < ?"
        " AND (p.instance_id IS NULL OR p.status NOT IN ('Pending', 'Running'))"
        " ORDER BY i.updated_at, i.instance_id LIMIT ?",
        (stamp, limit),
    )
    return [row[0] for row in rows]


class Retention:
    """Purges at the start and then every hour what ended more than `keep_s` seconds ago."""

    def __init__(self, storage: Storage, clock: Clock, purge: Purge, keep_s: float) -> None:
        self._storage, self._clock, self._purge, self._keep_s = storage, clock, purge, keep_s
        self._alarm: Alarm | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the first round runs soon."""
        self._task = asyncio.get_running_loop().create_task(self._round())

    async def stop(self) -> None:
        """End between two instances; what is left waits for the next start."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _round(self) -> None:
        try:
            if purged := await self.purge_ended():
                _LOG.info("retention: %d ended instances purged", purged)
        except Exception:
            _LOG.exception("Retention failed and will be tried again")
        self._alarm = self._clock.call_after(EVERY_S, self.start)

    async def purge_ended(self) -> int:
        """One round; returns how many instances are gone."""
        before, total = to_stamp(self._clock.now() - timedelta(seconds=self._keep_s)), 0
        while ids := await self._storage.read(lambda connection: ended_before(connection, before, BITE)):
            purged = sum([await self._purge(instance_id) for instance_id in ids])
            total += purged
            if not purged:  # somebody else has started them anew meanwhile
                break
        return total
