"""The engine under a clock that is set: timers ring after what they had left, and no instance sees its time go back."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local_host.durable.clock import VirtualClock
from tests.unit.local_host.durable_app import START_AT, Bench, PlainApp, running

HOUR_S = 3_600.0
DAY = timedelta(days=1)


@pytest.fixture
def app() -> PlainApp:
    """An orchestrator that waits for ten seconds, three times, and tells what time it was in between."""
    made = PlainApp()

    @made.orchestration
    def waits(context: Any) -> Any:
        seen = [context.current_utc_datetime.isoformat()]
        for _ in range(3):
            yield context.create_timer(context.current_utc_datetime + timedelta(seconds=10))
            seen.append(context.current_utc_datetime.isoformat())
        return seen

    return made


async def at_most(bench: Bench, seconds: float) -> list[float]:
    """The times the orchestrator saw, in seconds from the start; it ends within so many seconds of the steady clock."""
    until_at = bench.clock.steady_at + timedelta(seconds=seconds)
    while True:
        await bench.settle()
        found = await bench.engine.status("run")
        assert found is not None
        if found.instance.is_terminal:
            break
        assert bench.clock.advance_to_next()
        assert bench.clock.steady_at <= until_at, "it still waits"
    seen = [datetime.fromisoformat(text) for text in json.loads(found.instance.output or "[]")]
    return [(each.replace(tzinfo=START_AT.tzinfo) - START_AT).total_seconds() for each in seen]


@pytest.mark.parametrize("warm", [True, False])
async def test_timers_keep_their_length_when_the_clock_is_set_back(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("waits")
        await bench.settle()
        bench.clock.advance_s(4)
        bench.clock.set_by_s(-HOUR_S)
        assert await at_most(bench, 27) == [0, 10, 20, 30]


async def test_a_timer_rings_when_the_clock_was_set_past_it(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path) as bench:
        await bench.start("waits")
        await bench.settle()
        bench.clock.set_by_s(HOUR_S)
        assert await at_most(bench, 21) == [0, HOUR_S, HOUR_S + 10, HOUR_S + 20]


async def test_a_clock_that_is_set_right_again_holds_nothing_up(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path) as bench:
        await bench.start("waits")
        await bench.settle()
        bench.clock.set_by_s(HOUR_S)
        bench.clock.advance_to_next()
        await bench.settle()
        bench.clock.set_by_s(-HOUR_S)
        assert await at_most(bench, 21) == [0, HOUR_S, HOUR_S + 10, HOUR_S + 20]


async def test_a_clock_set_back_between_a_crash_and_the_recovery(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path) as bench:
        await bench.start("waits")
        await bench.settle()
    clock = VirtualClock(START_AT - DAY)
    async with running(app, tmp_path, clock) as bench:
        # What it had left when it was created is all that is known for sure.
        assert await at_most(bench, 31) == [0, 10, 20, 30]


async def test_an_instance_started_before_the_clock_was_set_back_begins_no_earlier(
    app: PlainApp, tmp_path: Path
) -> None:
    async with running(app, tmp_path) as bench:
        await bench.start("waits")
        bench.clock.set_by_s(-HOUR_S)
        assert await at_most(bench, 31) == [0, 10, 20, 30]


async def test_what_a_client_does_to_an_instance_does_not_set_its_time_back(app: PlainApp, tmp_path: Path) -> None:
    async with running(app, tmp_path) as bench:
        await bench.start("waits")
        await bench.settle()
        before = await bench.engine.status("run")
        bench.clock.set_by_s(-HOUR_S)
        await bench.engine.suspend("run", "")
        await bench.engine.resume("run", "")
        after = await bench.engine.status("run")
        assert before is not None
        assert after is not None
        assert after.instance.updated_at >= before.instance.updated_at
        assert await at_most(bench, 31) == [0, 10, 20, 30]
