"""Time as a dependency: a real clock for running, a virtual one for tests.

Only what the engine needs: the time, and "call me at". It deliberately does not replace the event loop's own clock;
sleeping inside an activity stays the activity's business (an activity under test can await `VirtualClock.sleep_s`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Alarm(Protocol):
    """A pending call that can be taken back."""

    def cancel(self) -> None:
        """Forget the call; harmless when it already ran."""
        ...


class Clock(Protocol):
    """Source of time; all datetimes are aware UTC."""

    def now(self) -> datetime:
        """The current time."""
        ...

    def call_at(self, due_at: datetime, callback: Callable[[], None]) -> Alarm:
        """Run `callback` on the event loop once `due_at` is reached; soon, if it already is."""
        ...


class RealClock:
    """The machine's clock."""

    # asyncio refuses very long delays on some platforms; a long alarm re-arms itself in hops of a day.
    _MAX_HOP_S = 86_400.0

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def call_at(self, due_at: datetime, callback: Callable[[], None]) -> Alarm:
        """See `Clock.call_at`; wall-clock jumps are noticed at the next hop."""
        return _RealAlarm(self, due_at, callback)


class _RealAlarm:
    def __init__(self, clock: RealClock, due_at: datetime, callback: Callable[[], None]) -> None:
        self._clock, self._due_at, self._callback = clock, due_at, callback
        self._handle: asyncio.TimerHandle | None = None
        self._arm()

    def _arm(self) -> None:
        delay_s = (self._due_at - self._clock.now()).total_seconds()
        hop_s = min(max(delay_s, 0.0), RealClock._MAX_HOP_S)
        self._handle = asyncio.get_running_loop().call_later(hop_s, self._ring)

    def _ring(self) -> None:
        if self._clock.now() >= self._due_at:
            self._callback()
        else:
            self._arm()

    def cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class VirtualClock:
    """A clock that moves only when a test moves it.

    `advance_to_next` jumps to the earliest alarm, so a three-day timer costs nothing and happens in a fixed order.
    `sleeping` counts tasks inside `sleep_s`, so that a test can tell waiting from working.
    """

    def __init__(self, start_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start_at
        self._sequence = itertools.count()
        self._alarms: list[tuple[datetime, int, _VirtualAlarm]] = []
        self.sleeping = 0

    def now(self) -> datetime:
        """The virtual time."""
        return self._now

    def call_at(self, due_at: datetime, callback: Callable[[], None]) -> Alarm:
        """See `Clock.call_at`; a due alarm rings at the next `advance_*`."""
        alarm = _VirtualAlarm(callback)
        heapq.heappush(self._alarms, (due_at, next(self._sequence), alarm))
        return alarm

    async def sleep_s(self, seconds: float) -> None:
        """Sleep in virtual time."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        alarm = self.call_at(self._now + timedelta(seconds=seconds), wake)
        self.sleeping += 1
        try:
            await done
        finally:
            self.sleeping -= 1
            alarm.cancel()

    @property
    def next_alarm_at(self) -> datetime | None:
        """When the earliest pending alarm is due; None when there is none."""
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def advance_to_next(self) -> bool:
        """Jump to the earliest alarm and ring everything due then; False when no alarm is pending."""
        due_at = self.next_alarm_at
        if due_at is None:
            return False
        self.advance_to(due_at)
        return True

    def advance_s(self, seconds: float) -> None:
        """Move on by `seconds`, ringing alarms in order."""
        self.advance_to(self._now + timedelta(seconds=seconds))

    def advance_to(self, target_at: datetime) -> None:
        """Move on to `target_at` (never back), ringing alarms in order of due time, then of creation."""
        while (due_at := self.next_alarm_at) is not None and due_at <= target_at:
            _, _, alarm = heapq.heappop(self._alarms)
            self._now = max(self._now, due_at)
            alarm.ring()
        self._now = max(self._now, target_at)


class _VirtualAlarm:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def ring(self) -> None:
        self.cancelled = True
        self._callback()
