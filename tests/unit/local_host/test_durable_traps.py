"""The traps of the real engine that a lenient host would hide: they must hurt here, too."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from local_host.durable.records import Instance
from tests.unit.local_host.durable_app import Bench, PlainApp, running


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def retry_pool(context: Any, *, nudge: bool) -> Any:
    options = df.RetryOptions(1000, 3)
    pool = [context.call_activity_with_retry("flaky", options, n) for n in range(3)]
    extra = 3
    done = 0
    while pool:
        listed = list(pool)
        if nudge:
            timer = context.create_timer(context.current_utc_datetime + timedelta(days=4))
            timer.cancel()
            listed.append(timer)
        winner = yield context.task_any(listed)
        if winner not in pool:
            continue
        pool.remove(winner)
        done += 1
        if extra:
            extra -= 1
            pool.append(context.call_activity_with_retry("flaky", options, 10 + extra))
    return done


@pytest.fixture
def app() -> PlainApp:
    app = PlainApp()
    failures: dict[Any, int] = {}

    @app.activity
    def flaky(value: Any) -> str:
        failures[value] = failures.get(value, 0) + 1
        if failures[value] == 1 and value % 2 == 0:
            raise ValueError("first try")
        return "ok"

    @app.activity
    def quick(value: Any) -> Any:
        return value

    return app


async def ended(bench: Bench, name: str) -> Instance:
    await bench.start(name)
    item: Instance = await bench.run_to_end("run")
    return item


async def test_retries_in_a_nudged_pool_are_non_deterministic(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def pool(context: Any) -> Any:
        return (yield from retry_pool(context, nudge=True))

    async with running(app, tmp_path, warm=warm, max_batch=1) as bench:
        item = await ended(bench, "pool")
        assert item.status == "Failed"
        assert item.output is not None
        assert item.output.startswith("Non-Deterministic workflow detected: ")
        assert "RetryOptions inside a task_any pool" in item.output


async def test_the_same_pool_passes_on_a_lenient_host(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def pool(context: Any) -> Any:
        return (yield from retry_pool(context, nudge=True))

    async with running(app, tmp_path, warm=warm, max_batch=1, strict=False) as bench:
        item = await ended(bench, "pool")
        assert (item.status, item.output) == ("Completed", "6")


async def test_retries_in_a_plain_fan_out_are_fine_in_strict_mode(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def fan(context: Any) -> Any:
        options = df.RetryOptions(1000, 3)
        yield context.task_all([context.call_activity_with_retry("flaky", options, n) for n in range(6)])
        return (yield context.call_activity("quick", "after"))

    async with running(app, tmp_path, warm=warm, max_batch=1) as bench:
        item = await ended(bench, "fan")
        assert (item.status, item.output) == ("Completed", '"after"')


async def test_continue_as_new_waits_for_open_work_and_drops_its_result(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def rolling(context: Any) -> Any:
        if context.get_input() == "second":
            return context.current_utc_datetime.isoformat()
        slow = context.call_activity("nap", 30)
        fast = context.call_activity("nap", 1)
        yield context.task_any([slow, fast])
        context.continue_as_new("second")

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: float) -> float:
            await bench.clock.sleep_s(value)
            return value

        # Two of the walk's children: the WhenAny is passed at 1 s, the other nap keeps the generation open until 30 s.
        assert await bench.run("rolling", "first") == "2026-01-01T00:00:30+00:00"


def eventful(app: PlainApp, *, barrier: bool) -> list[list[Any]]:
    """Each generation folds in two events while nudges keep the walk unblocked; returns what every generation saw."""
    generations: list[list[Any]] = []

    @app.orchestration
    def rolling(context: Any) -> Any:
        if context.get_input() == "second":
            timer = context.create_timer(context.current_utc_datetime + timedelta(seconds=5))
            waits = [context.wait_for_external_event(name) for name in ("a", "b")]
            winner = yield context.task_any([timer, *waits])
            return "nothing" if winner is timer else winner.result
        pool = [context.wait_for_external_event(name) for name in ("a", "b")]
        while pool:
            nudge = context.create_timer(context.current_utc_datetime + timedelta(days=4))
            nudge.cancel()
            winner = yield context.task_any([*pool, nudge])
            if winner in pool:
                pool.remove(winner)
        if barrier:
            yield context.call_activity("quick", "checkpoint")
        context.continue_as_new("second")

    return generations


@pytest.mark.parametrize(("barrier", "expected"), [(False, "first a"), (True, "nothing")])
async def test_consumed_events_are_redelivered_unless_an_awaited_activity_stands_before(
    app: PlainApp, tmp_path: Path, warm: bool, barrier: bool, expected: str
) -> None:
    eventful(app, barrier=barrier)
    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("rolling", "first")
        await bench.settle()
        for name in ("a", "b"):
            await bench.engine.raise_event("run", name, json.dumps(f"first {name}"))
            await bench.settle()
        item = await bench.run_to_end("run")
        assert json.loads(item.output) == expected


async def test_early_events_nobody_waited_for_do_not_survive_a_roll_over(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def rolling(context: Any) -> Any:
        if context.get_input() == "first":
            yield context.wait_for_external_event("roll")
            yield context.call_activity("quick", "checkpoint")
            context.continue_as_new("second")
            return None
        timer = context.create_timer(context.current_utc_datetime + timedelta(seconds=5))
        wait = context.wait_for_external_event("early")
        winner = yield context.task_any([timer, wait])
        return "lost" if winner is timer else winner.result

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("rolling", "first")
        await bench.settle()
        await bench.engine.raise_event("run", "early", '"kept"')
        await bench.settle()
        await bench.engine.raise_event("run", "roll", "1")
        item = await bench.run_to_end("run")
        assert json.loads(item.output) == "lost"


async def test_an_orchestrator_that_returned_behind_a_blocked_walk_stays_running(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    """The WhenAll of the extension waits for all children; the SDK went on at the first failure."""

    @app.activity
    def boom(value: Any) -> None:
        raise ValueError("boom")

    @app.orchestration
    def fails_fast(context: Any) -> Any:
        try:
            yield context.task_all([context.call_activity("boom", 1), context.call_activity("nap", 20)])
        except Exception:
            return "caught"

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: float) -> float:
            await bench.clock.sleep_s(value)
            return value

        await bench.start("fails_fast")
        await bench.settle()
        snapshot = await bench.engine.status("run")
        assert snapshot is not None
        assert snapshot.instance.status == "Running"
        bench.clock.advance_s(20)
        await bench.settle()
        snapshot = await bench.engine.status("run")
        assert snapshot is not None
        assert (snapshot.instance.status, snapshot.instance.output) == ("Completed", '"caught"')


async def test_results_cross_the_border_as_json_in_warm_mode_too(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def child(context: Any) -> Any:
        yield context.call_activity("quick", 1)
        return {1: "int key"}

    @app.orchestration
    def parent(context: Any) -> Any:
        result = yield context.call_sub_orchestrator("child")
        return list(result)

    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("parent") == ["1"]


async def test_an_evicted_warm_instance_is_rebuilt(app: PlainApp, tmp_path: Path) -> None:
    @app.orchestration
    def waits(context: Any) -> Any:
        first = yield context.wait_for_external_event("one")
        second = yield context.wait_for_external_event("two")
        return [first, second]

    async with running(app, tmp_path, warm=True, max_warm_instances=2) as bench:
        for n in range(6):
            await bench.start("waits", instance_id=f"i{n}")
        await bench.settle()
        for name in ("one", "two"):
            for n in range(6):
                await bench.engine.raise_event(f"i{n}", name, str(n))
            await bench.settle()
        for n in range(6):
            item = await bench.run_to_end(f"i{n}")
            assert json.loads(item.output) == [n, n]


async def test_a_failed_commit_loses_nothing(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def chain(context: Any) -> Any:
        total = 0
        for n in range(4):
            total += yield context.call_activity("quick", n)
        return total

    async with running(app, tmp_path, warm=warm) as bench:
        real_write = bench.storage.write
        failures = iter([False, True, False, True, True])

        async def unreliable(change: Any) -> Any:
            if next(failures, False):
                raise OSError("disk full")
            return await real_write(change)

        bench.storage.write = unreliable  # type: ignore[method-assign]  # the fault we inject
        assert await bench.run("chain") == 6
        assert [value for _, value in app.calls] == [0, 1, 2, 3]
