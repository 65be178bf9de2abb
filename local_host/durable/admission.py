"""How much the host takes on: while too much is open, starts from outside are refused and queues are left alone.

Counted are instances that were started and have not run yet, and activities that wait or run. What running instances ask
for (activities, children, starts made by their activities, signals, events) is never refused: refusing it would hold up the very
work that has to end. So the bounds can be passed from within, and nothing new comes in until that has gone down again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_LOG = logging.getLogger("local_host.durable")

RETRY_AFTER_S = 5
"""What a refused caller is told to wait, in seconds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """From how many on the host counts as full, each at least 1."""

    max_pending_starts: int = 1_000
    max_open_activities: int = 10_000


@dataclass(frozen=True, slots=True)
class Load:
    """What is open now, and how many starts were refused since the process began."""

    pending_starts: int
    open_activities: int
    refused_starts: int
    is_full: bool


class HostFullError(Exception):
    """The host does not take this start now; nothing has been stored."""


class Admission:
    """Counts starts that wait, asks `open_activities` for the rest, and tells waiting listeners when there is room again."""

    def __init__(self, bounds: Bounds, open_activities: Callable[[], int]) -> None:
        self.bounds = bounds
        self._open_activities = open_activities
        self._pending: set[str] = set()
        self._waiting: dict[Callable[[], None], None] = {}
        self._refused = 0
        self._is_refusing = False

    @property
    def load(self) -> Load:
        """The counts of this moment."""
        return Load(len(self._pending), self._open_activities(), self._refused, self.room == 0)

    @property
    def room(self) -> int:
        """Starts that would be taken now."""
        if self._open_activities() >= self.bounds.max_open_activities:
            return 0
        return max(0, self.bounds.max_pending_starts - len(self._pending))

    def require_room(self) -> None:
        """HostFullError while the host is full. Asked in the same turn of the loop as `add`, so that no two take one place."""
        if self.room > 0:
            return
        self._refused += 1
        if not self._is_refusing:
            self._is_refusing = True
            _LOG.warning("The host is full, starts from outside are refused: %s", self._counts())
        raise HostFullError(f"The host has too much open work ({self._counts()}); try again later.")

    def add(self, instance_id: str) -> bool:
        """Count an instance that waits for its first episode; False when it was counted already."""
        if instance_id in self._pending:
            return False
        self._pending.add(instance_id)
        return True

    def restore(self, instance_ids: Iterable[str]) -> None:
        """Count what an earlier process accepted and did not begin, however much it is."""
        self._pending.update(instance_ids)

    def remove(self, instance_id: str) -> None:
        """The instance has begun, or never will."""
        if instance_id in self._pending:
            self._pending.discard(instance_id)
            self.look()

    def when_room(self, call: Callable[[], None]) -> None:
        """Call once, when next something has ended and there is room. Asking twice is asking once."""
        self._waiting[call] = None

    def look(self) -> None:
        """Something has ended: if there is room now, those who wait hear of it."""
        if not (self._waiting or self._is_refusing) or self.room == 0:
            return
        if self._is_refusing:
            self._is_refusing = False
            _LOG.info("The host takes starts again (%d refused so far)", self._refused)
        waiting, self._waiting = self._waiting, {}
        for call in waiting:
            call()

    def _counts(self) -> str:
        bounds, activities = self.bounds, self._open_activities()
        return (
            f"{len(self._pending)} of {bounds.max_pending_starts} pending starts,"
            f" {activities} of {bounds.max_open_activities} open activities"
        )
