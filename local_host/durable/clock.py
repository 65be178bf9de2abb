"""Time as a dependency: a real clock for running, a virtual one for tests.

Only what the engine needs: the time of day, "call me at" and "call me after". The time of day may be set, forwards and back, at
any moment; how long something takes may not depend on it, so waits are counted on a clock that only runs on. It deliberately does
not replace the event loop's own clock; sleeping inside an activity stays the activity's business (an activity under test can
await `VirtualClock.sleep_s`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
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
        """The time of day, which may jump."""
        ...

    def call_at(self, due_at: datetime, callback: Callable[[], None], *, within_s: float | None = None) -> Alarm:
        """Run `callback` on the event loop once `due_at` is reached; soon, if it already is.

        A clock that is set forwards is noticed within seconds. One that is set back puts the call off, but no further than
        `within_s` seconds from now where that is given.
        """
        ...

    def call_after(self, delay_s: float, callback: Callable[[], None]) -> Alarm:
        """Run `callback` on the event loop in `delay_s` seconds, whatever becomes of the time of day."""
        ...


class RealClock:
    """The machine's clock."""

    LOOK_S = 5.0
    """How soon a jump of the time of day is noticed, while there are alarms it could concern."""
    _JUMP_S = 0.5
    # asyncio refuses very long delays on some platforms; a long alarm re-arms itself in hops of a day.
    _MAX_HOP_S = 86_400.0

    def __init__(self) -> None:
        self._alarms: dict[_RealAlarm, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ahead_s = 0.0

    def now(self) -> datetime:
        """The wall clock in UTC."""
        return datetime.now(UTC)

    def steady_s(self) -> float:
        """Seconds on a clock that only runs on, from no moment in particular."""
        return time.monotonic()

    def call_at(self, due_at: datetime, callback: Callable[[], None], *, within_s: float | None = None) -> Alarm:
        """See `Clock.call_at`."""
        alarm = _RealAlarm(self, due_at, callback, within_s)
        self._watch()
        self._alarms[alarm] = None
        return alarm

    def call_after(self, delay_s: float, callback: Callable[[], None]) -> Alarm:
        """See `Clock.call_after`."""
        return asyncio.get_running_loop().call_later(max(delay_s, 0.0), callback)

    def forget(self, alarm: _RealAlarm) -> None:
        """An alarm has rung or was taken back."""
        self._alarms.pop(alarm, None)

    def _watch(self) -> None:
        """See to it that jumps are looked for, on the loop that runs now."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # those of a loop that is gone never ring
            self._alarms.clear()
            self._loop, self._ahead_s = loop, self._ahead()
            loop.call_later(self.LOOK_S, self._look)

    def _ahead(self) -> float:
        return self.now().timestamp() - self.steady_s()

    def _look(self) -> None:
        ahead_s = self._ahead()
        if abs(ahead_s - self._ahead_s) > self._JUMP_S:
            for alarm in list(self._alarms):
                alarm.arm()
        self._ahead_s = ahead_s
        if self._alarms:
            asyncio.get_running_loop().call_later(self.LOOK_S, self._look)
        else:
            self._loop = None


class _RealAlarm:
    def __init__(
        self, clock: RealClock, due_at: datetime, callback: Callable[[], None], within_s: float | None
    ) -> None:
        self._clock, self._due_at, self._callback = clock, due_at, callback
        self._latest_s = None if within_s is None else clock.steady_s() + within_s
        self._handle: asyncio.TimerHandle | None = None
        self.arm()

    @property
    def _left_s(self) -> float:
        left_s = (self._due_at - self._clock.now()).total_seconds()
        return left_s if self._latest_s is None else min(left_s, self._latest_s - self._clock.steady_s())

    def arm(self) -> None:
        """Count anew what is left."""
        if self._handle is not None:
            self._handle.cancel()
        hop_s = min(max(self._left_s, 0.0), RealClock._MAX_HOP_S)
        self._handle = asyncio.get_running_loop().call_later(hop_s, self._ring)

    def _ring(self) -> None:
        if self._left_s > 0:
            self.arm()
            return
        self._clock.forget(self)
        self._callback()

    def cancel(self) -> None:
        self._clock.forget(self)
        if self._handle is not None:
            self._handle.cancel()


class VirtualClock:
    """A clock that moves only when a test moves it.

    `advance_to_next` jumps to the earliest alarm, so a three-day timer costs nothing and happens in a fixed order. `set_by_s`
    sets the time of day like an operator or a time server does; `steady_at` only runs on. `sleeping` counts tasks inside
    `sleep_s`, so that a test can tell waiting from working.
    """

    def __init__(self, start_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._steady_at = start_at
        self._ahead = timedelta()
        self._sequence = itertools.count()
        self._alarms: list[tuple[datetime, int, _VirtualAlarm]] = []
        self.sleeping = 0

    def now(self) -> datetime:
        """The virtual time of day."""
        return self._steady_at + self._ahead

    @property
    def steady_at(self) -> datetime:
        """What the time would be if it had never been set."""
        return self._steady_at

    def set_by_s(self, seconds: float) -> None:
        """Set the time of day forwards or (negative) back. What comes due by that rings at the next `advance_*`."""
        self._ahead += timedelta(seconds=seconds)
        self._alarms = [(self._rings_at(alarm), order, alarm) for _, order, alarm in self._alarms]
        heapq.heapify(self._alarms)

    def call_at(self, due_at: datetime, callback: Callable[[], None], *, within_s: float | None = None) -> Alarm:
        """See `Clock.call_at`; a due alarm rings at the next `advance_*`."""
        latest_at = None if within_s is None else self._steady_at + timedelta(seconds=within_s)
        return self._add(_VirtualAlarm(callback, due_at, latest_at))

    def call_after(self, delay_s: float, callback: Callable[[], None]) -> Alarm:
        """See `Clock.call_after`."""
        return self._add(_VirtualAlarm(callback, None, self._steady_at + timedelta(seconds=delay_s)))

    async def sleep_s(self, seconds: float) -> None:
        """Sleep in virtual time."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        alarm = self.call_after(seconds, wake)
        self.sleeping += 1
        try:
            await done
        finally:
            self.sleeping -= 1
            alarm.cancel()

    @property
    def next_alarm_at(self) -> datetime | None:
        """The time of day at which the earliest pending alarm rings; None when there is none."""
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] + self._ahead if self._alarms else None

    def advance_to_next(self) -> bool:
        """Jump to the earliest alarm and ring everything due then; False when no alarm is pending."""
        due_at = self.next_alarm_at
        if due_at is None:
            return False
        self.advance_to(due_at)
        return True

    def advance_s(self, seconds: float) -> None:
        """Move on by `seconds`, ringing alarms in order."""
        self.advance_to(self.now() + timedelta(seconds=seconds))

    def advance_to(self, target_at: datetime) -> None:
        """Move on to `target_at` (never back), ringing alarms in order of due time, then of creation."""
        while (due_at := self.next_alarm_at) is not None and due_at <= target_at:
            _, _, alarm = heapq.heappop(self._alarms)
            self._steady_at = max(self._steady_at, due_at - self._ahead)
            alarm.ring()
        self._steady_at = max(self._steady_at, target_at - self._ahead)

    def _add(self, alarm: _VirtualAlarm) -> Alarm:
        heapq.heappush(self._alarms, (self._rings_at(alarm), next(self._sequence), alarm))
        return alarm

    def _rings_at(self, alarm: _VirtualAlarm) -> datetime:
        """When, on the clock that only runs on."""
        ends = (None if alarm.due_at is None else alarm.due_at - self._ahead, alarm.latest_at)
        return min(at for at in ends if at is not None)


class _VirtualAlarm:
    """Rings when it is `due_at`, and at `latest_at` of the clock that only runs on, whichever is first; one of them is there."""

    def __init__(self, callback: Callable[[], None], due_at: datetime | None, latest_at: datetime | None) -> None:
        self._callback = callback
        self.due_at, self.latest_at = due_at, latest_at
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def ring(self) -> None:
        self.cancelled = True
        self._callback()
