"""Clocks that are set: what was to wait for a while waits that long, what was to wait for an instant sees it come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from local_host.durable.clock import RealClock, VirtualClock
from tests.unit.local_host.durable_app import START_AT

HOUR_S = 3_600.0


class Settable(RealClock):
    """The machine's clock, as somebody sets it."""

    LOOK_S = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.ahead_by = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead_by

    def set_by_s(self, seconds: float) -> None:
        self.ahead_by += timedelta(seconds=seconds)


async def test_an_alarm_hears_of_a_clock_that_was_set_forwards() -> None:
    clock, rung = Settable(), asyncio.Event()
    clock.call_at(clock.now() + timedelta(hours=1), rung.set)
    await asyncio.sleep(0.05)
    assert not rung.is_set()
    clock.set_by_s(HOUR_S + 1)
    await asyncio.wait_for(rung.wait(), 5)


async def test_an_alarm_waits_no_longer_than_it_may_when_the_clock_was_set_back() -> None:
    clock, bounded, unbounded = Settable(), asyncio.Event(), asyncio.Event()
    due_at = clock.now() + timedelta(seconds=0.1)
    clock.call_at(due_at, bounded.set, within_s=0.1)
    alarm = clock.call_at(due_at, unbounded.set)
    clock.set_by_s(-HOUR_S)
    await asyncio.wait_for(bounded.wait(), 5)
    assert not unbounded.is_set()
    alarm.cancel()


async def test_a_wait_for_a_while_does_not_ask_the_time_of_day() -> None:
    clock, rung, early = Settable(), asyncio.Event(), list[str]()
    clock.call_after(0.05, rung.set)
    late = clock.call_after(HOUR_S, lambda: early.append("an hour has not passed"))
    clock.set_by_s(-2 * HOUR_S)
    await asyncio.wait_for(rung.wait(), 5)
    clock.set_by_s(9 * HOUR_S)
    await asyncio.sleep(0.05)
    assert early == []
    late.cancel()


async def test_an_alarm_that_was_taken_back_is_not_rung_by_a_jump() -> None:
    clock, rung = Settable(), list[str]()
    clock.call_at(clock.now() + timedelta(hours=1), lambda: rung.append("it was taken back")).cancel()
    other = asyncio.Event()
    clock.call_at(clock.now() + timedelta(hours=1), other.set)
    clock.set_by_s(2 * HOUR_S)
    await asyncio.wait_for(other.wait(), 5)
    assert rung == []


async def test_the_virtual_clock_does_the_same() -> None:
    clock, rung = VirtualClock(START_AT), list[str]()
    clock.call_at(START_AT + timedelta(seconds=60), lambda: rung.append("bounded"), within_s=60)
    clock.call_at(START_AT + timedelta(seconds=70), lambda: rung.append("unbounded"))
    clock.call_after(80, lambda: rung.append("after"))
    clock.set_by_s(-HOUR_S)
    clock.advance_s(100)
    assert rung == ["bounded", "after"]
    clock.set_by_s(HOUR_S)
    assert clock.advance_to_next()
    assert rung == ["bounded", "after", "unbounded"]
    assert clock.steady_at == clock.now() == START_AT + timedelta(seconds=100)
