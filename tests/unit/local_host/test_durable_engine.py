"""The engine through its public door, under virtual time, warm and cold."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from local_host.durable.executor import TimerLimits
from local_host.durable.history import TimerCreated
from local_host.durable.records import InstanceFilter
from tests.unit.local_host.durable_app import START_AT, Bench, PlainApp, running


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def app() -> PlainApp:
    app = PlainApp()

    @app.activity
    def double(value: int) -> int:
        return value * 2

    @app.activity
    def echo(value: Any) -> Any:
        return value

    @app.activity
    def boom(value: Any) -> None:
        raise ValueError("boom")

    @app.orchestration
    def chain(context: Any) -> Any:
        value = context.get_input()
        for _ in range(3):
            value = yield context.call_activity("double", value)
        return value

    @app.orchestration
    def fan(context: Any) -> Any:
        results = yield context.task_all([context.call_activity("double", n) for n in range(context.get_input())])
        return sum(results)

    return app


async def test_a_chain_passes_each_result_on(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("chain", 5) == 40
        assert app.calls == [("double", 5), ("double", 10), ("double", 20)]


async def test_a_fan_out_is_batched_into_few_episodes(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("fan", 50) == 2450
        assert bench.engine.episode_count <= 10


async def test_an_activity_failure_reads_as_the_extension_words_it(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def catches(context: Any) -> Any:
        try:
            yield context.call_activity("boom", 1)
        except Exception as err:
            return str(err).split("\n")[0]

    @app.orchestration
    def fails(context: Any) -> Any:
        yield context.call_activity("boom", 1)

    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("catches") == "Activity function 'boom' failed:  ValueError: boom "
        await bench.start("fails", instance_id="second")
        item = await bench.run_to_end("second")
        assert item.status == "Failed"
        expected = "Orchestrator function 'fails' failed: Activity function 'boom' failed:  ValueError: boom"
        assert item.output.startswith(expected)


async def test_a_three_day_timer_is_instant(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def sleeper(context: Any) -> Any:
        before = context.current_utc_datetime
        yield context.create_timer(before + timedelta(days=3))
        return (context.current_utc_datetime - before).total_seconds()

    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("sleeper") == 3 * 86_400


async def test_head_of_line_blocking_is_reproduced(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    """D is listed when B ends, but the walk waits for C; a start-when-ready host would start D at once."""
    starts: dict[str, float] = {}

    @app.orchestration
    def pool(context: Any) -> Any:
        pending = {name: context.call_activity("nap", [name, s]) for name, s in (("A", 9), ("B", 1))}
        order = []
        tasks = list(pending.values())
        extra = [("C", 5), ("D", 1)]
        while tasks:
            winner = yield context.task_any(tasks)
            tasks.remove(winner)
            order.append(winner.result)
            if extra and winner.result in ("B", "A"):
                tasks.append(context.call_activity("nap", list(extra.pop(0))))
        return order

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: list[Any]) -> str:
            starts[value[0]] = (bench.clock.now() - bench_start).total_seconds()
            await bench.clock.sleep_s(value[1])
            return str(value[0])

        bench_start = bench.clock.now()
        assert await bench.run("pool") == ["B", "C", "A", "D"]
        # C starts when B ends (1 s). C ends at 6 s, A at 9 s; D is listed at 9 s.
        assert starts == {"A": 0, "B": 0, "C": 1, "D": 9}


async def test_an_unrelated_chain_waits_behind_a_slow_step_and_a_cancelled_timer_cures_it(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    starts: dict[str, float] = {}

    def dynamic_pool(context: Any, *, nudge: bool) -> Any:
        graph = {"fast1": "fast2", "fast2": "fast3", "slow1": "slow2"}
        seconds = {"fast1": 1, "fast2": 1, "fast3": 1, "slow1": 2, "slow2": 10}
        tasks: dict[Any, str] = {}
        fresh = [context.call_activity("nap", [n, seconds[n]]) for n in ("fast1", "slow1")]
        tasks.update(zip(fresh, ("fast1", "slow1"), strict=True))
        done: list[str] = []
        while tasks:
            listed = list(tasks)
            if nudge:
                timer = context.create_timer(context.current_utc_datetime + timedelta(days=5))
                timer.cancel()
                listed.append(timer)
            winner = yield context.task_any(listed)
            name = tasks.pop(winner, None)
            if name is None:
                continue
            done.append(name)
            if following := graph.get(name):
                tasks[context.call_activity("nap", [following, seconds[following]])] = following
        return done

    @app.orchestration
    def naive(context: Any) -> Any:
        return (yield from dynamic_pool(context, nudge=False))

    @app.orchestration
    def nudged(context: Any) -> Any:
        return (yield from dynamic_pool(context, nudge=True))

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: list[Any]) -> str:
            starts[value[0]] = (bench.clock.now() - began).total_seconds()
            await bench.clock.sleep_s(value[1])
            return str(value[0])

        began = bench.clock.now()
        await bench.run("naive")
        # Both slow2 and fast3 are ready at 2 s, but fast3 is listed in a WhenAny behind slow2's and waits for its end.
        assert starts["fast3"] == 12
        naive_end = (bench.clock.now() - began).total_seconds()
        starts.clear()
        began = bench.clock.now()
        await bench.run("nudged", instance_id="second")
        assert starts == {"fast1": 0, "slow1": 0, "fast2": 1, "fast3": 2, "slow2": 2}
        assert naive_end >= (bench.clock.now() - began).total_seconds()


async def test_an_early_event_waits_for_its_wait_and_two_of_a_name_both_arrive(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def two_waits(context: Any) -> Any:
        yield context.call_activity("echo", 1)
        first = yield context.wait_for_external_event("go")
        second = yield context.wait_for_external_event("go")
        return [first, second]

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("two_waits")
        await bench.engine.raise_event("run", "go", json.dumps("one"))
        await bench.engine.raise_event("run", "go", json.dumps("two"))
        item = await bench.run_to_end("run")
        assert json.loads(item.output) == ["one", "two"]


async def test_sub_orchestrations_get_the_default_id_and_report_back(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def child(context: Any) -> Any:
        if context.get_input() == "fail":
            raise RuntimeError("child broke")
        value = yield context.call_activity("double", context.get_input())
        return {"id": context.instance_id, "parent": context.parent_instance_id, "value": value}

    @app.orchestration
    def parent(context: Any) -> Any:
        good = yield context.call_sub_orchestrator("child", 4)
        try:
            yield context.call_sub_orchestrator("child", "fail", "named-child")
        except Exception as err:
            return [good, str(err).split("\n")[0]]

    async with running(app, tmp_path, warm=warm) as bench:
        good, error = await bench.run("parent")
        assert good["parent"] == "run"
        assert good["value"] == 8
        execution_id, _, task_id = good["id"].partition(":")
        assert len(execution_id) == 32
        assert task_id == "0"
        assert error == "Orchestrator function 'child' failed: child broke "
        named = await bench.engine.status("named-child")
        assert named is not None
        assert named.instance.status == "Failed"


async def test_entities_answer_in_order_and_a_failed_operation_is_rolled_back(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.entity_function
    def counter(context: Any) -> None:
        state = context.get_state(lambda: 0)
        if context.operation_name == "add":
            context.set_state(state + context.get_input())
        elif context.operation_name == "break":
            context.set_state(-1)
            raise ValueError("no")
        context.set_result(context.get_state(lambda: 0))

    @app.orchestration
    def uses(context: Any) -> Any:
        entity = df.EntityId("Counter", "k1")
        context.signal_entity(entity, "add", 5)
        first = yield context.call_entity(entity, "add", 2)
        try:
            yield context.call_entity(entity, "break")
        except Exception as err:
            error = str(err)
        both = yield context.task_all([context.call_entity(entity, "add", 1), context.call_activity("double", 3)])
        return [first, error, both]

    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("uses") == [7, "no", [8, 6]]
        state = await bench.engine.read_entity("counter", "k1")
        assert state.exists
        assert state.state_json == "8"


async def test_retries_in_a_sequence_follow_the_sdks_numbers(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    attempts = {"n": 0}

    @app.activity
    def flaky(value: Any) -> str:
        attempts["n"] += 1
        if attempts["n"] < 3:
            raise ValueError("not yet")
        return "ok"

    @app.orchestration
    def retries(context: Any) -> Any:
        options = df.RetryOptions(5000, 3)
        first = yield context.call_activity_with_retry("flaky", options, 1)
        second = yield context.call_activity("double", 2)
        try:
            yield context.call_activity_with_retry("boom", df.RetryOptions(1000, 2), 1)
        except Exception as err:
            third = str(err)[:30]
        fourth = yield context.call_activity("double", 4)
        return [first, second, third, fourth]

    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("retries") == ["ok", 4, "Activity function 'boom' faile", 8]
        assert attempts["n"] == 3
        assert [name for name, _ in app.calls].count("boom") == 2
        assert (bench.clock.now() - START_AT).total_seconds() == 11


async def test_continue_as_new_starts_a_fresh_history_and_keeps_the_id(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def rolling(context: Any) -> Any:
        n = context.get_input()
        context.set_custom_status({"n": n})
        yield context.call_activity("double", n)
        if n < 5:
            context.continue_as_new(n + 1)
            return None
        return n

    async with running(app, tmp_path, warm=warm) as bench:
        assert await bench.run("rolling", 1) == 5
        snapshot = await bench.engine.status("run", with_history=True)
        assert snapshot is not None
        assert snapshot.events is not None
        assert sum(type(e).__name__ == "TaskScheduled" for e in snapshot.events) == 1
        assert snapshot.instance.custom_status_json == '{"n": 5}'


async def test_an_instance_stays_running_until_open_work_ends_and_a_cancelled_timer_does_not_count(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def early_return(context: Any) -> Any:
        timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        slow = context.call_activity("nap", 50)
        quick = context.call_activity("nap", 1)
        yield context.task_any([timer, slow, quick])
        timer.cancel()
        return "early"

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: float) -> float:
            await bench.clock.sleep_s(value)
            return value

        await bench.start("early_return")
        await bench.settle()
        bench.clock.advance_s(1)
        await bench.settle()
        snapshot = await bench.engine.status("run")
        assert snapshot is not None
        assert snapshot.instance.status == "Running"
        bench.clock.advance_s(49)
        await bench.settle()
        snapshot = await bench.engine.status("run")
        assert snapshot is not None
        assert snapshot.instance.status == "Completed"
        assert (bench.clock.now() - START_AT).total_seconds() == 50


async def test_a_cancelled_timer_still_fires_and_can_win(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def surprised(context: Any) -> Any:
        timer = context.create_timer(context.current_utc_datetime + timedelta(seconds=10))
        timer.cancel()
        work = context.call_activity("nap", 60)
        winner = yield context.task_any([work, timer])
        return "timer" if winner is timer else "work"

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: float) -> float:
            await bench.clock.sleep_s(value)
            return value

        assert await bench.run("surprised") == "timer"
        assert (bench.clock.now() - START_AT).total_seconds() == 60


async def test_unknown_activity_fails_the_instance_with_the_extensions_message(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def wrong(context: Any) -> Any:
        yield context.call_activity("no_such_thing", 1)

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("wrong")
        item = await bench.run_to_end("run")
        assert item.status == "Failed"
        assert "The function 'no_such_thing' doesn't exist, is disabled, or is not an activity function." in item.output


async def test_suspend_holds_completions_back_and_resume_delivers_them(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    @app.orchestration
    def waits(context: Any) -> Any:
        yield context.call_activity("nap", 5)
        return (yield context.wait_for_external_event("go"))

    async with running(app, tmp_path, warm=warm) as bench:

        @app.activity
        async def nap(value: float) -> float:
            await bench.clock.sleep_s(value)
            return value

        await bench.start("waits")
        await bench.settle()
        await bench.engine.suspend("run", "pause")
        bench.clock.advance_s(10)
        await bench.engine.raise_event("run", "go", "1")
        await bench.settle()
        snapshot = await bench.engine.status("run")
        assert snapshot is not None
        assert snapshot.instance.runtime_status == "Suspended"
        await bench.engine.resume("run", "go on")
        item = await bench.run_to_end("run")
        assert (item.status, item.output) == ("Completed", "1")


async def test_terminate_ends_at_once_and_tells_the_parent(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def child(context: Any) -> Any:
        yield context.wait_for_external_event("never")

    @app.orchestration
    def parent(context: Any) -> Any:
        try:
            yield context.call_sub_orchestrator("child", None, "the-child")
        except Exception as err:
            return str(err).split("\n")[0].strip()

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("parent")
        await bench.settle()
        await bench.engine.terminate("the-child", "enough")
        item = await bench.run_to_end("run")
        assert json.loads(item.output) == "enough"
        child_item = await bench.engine.status("the-child")
        assert child_item is not None
        assert (child_item.instance.status, child_item.instance.output) == ("Terminated", "enough")


async def test_rewind_runs_the_failed_part_again_and_only_that(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    healthy = {"now": False}

    @app.activity
    def fragile(value: Any) -> str:
        if not healthy["now"]:
            raise RuntimeError("down")
        return "up"

    @app.orchestration
    def child(context: Any) -> Any:
        return (yield context.call_activity("fragile", 1))

    @app.orchestration
    def parent(context: Any) -> Any:
        doubled = yield context.call_activity("double", 21)
        state = yield context.call_sub_orchestrator("child", None, "kid")
        return [doubled, state]

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("parent")
        assert (await bench.run_to_end("run")).status == "Failed"
        healthy["now"] = True
        await bench.engine.rewind("run", "fixed")
        item = await bench.run_to_end("run")
        assert (item.status, json.loads(item.output)) == ("Completed", [42, "up"])
        assert [name for name, _ in app.calls] == ["double", "fragile", "fragile"]


async def test_a_changed_orchestrator_is_called_non_deterministic(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    version = {"name": "double"}

    @app.orchestration
    def changing(context: Any) -> Any:
        yield context.call_activity(version["name"], 1)
        return (yield context.wait_for_external_event("go"))

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("changing")
        await bench.settle()
    version["name"] = "echo"
    async with running(app, tmp_path, warm=warm) as bench:
        await bench.engine.raise_event("run", "go", "1")
        item = await bench.run_to_end("run")
        assert item.status == "Failed"
        assert item.output.startswith("Non-Deterministic workflow detected: recorded was activity 'double'")
        assert "activity 'echo'" in item.output
        assert "two usual causes" in item.output


async def test_a_restarted_engine_goes_on_where_the_last_one_stopped(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    gate = asyncio.Event()

    @app.activity
    async def gated(value: int) -> int:
        if value >= 3:
            await gate.wait()
        return value

    @app.orchestration
    def several(context: Any) -> Any:
        results = yield context.task_all([context.call_activity("gated", n) for n in range(6)])
        yield context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        return sum(results)

    async def until_three_done(bench: Bench) -> None:
        while len(app.ended) < 3 or bench.engine.episode_count < 2:  # noqa: ASYNC110  # two counters, no event
            await asyncio.sleep(0.001)
        await bench.engine.query(InstanceFilter())  # behind the episode's commit in the storage queue

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("several")
        await until_three_done(bench)
    gate.set()
    async with running(app, tmp_path, clock=bench.clock, warm=warm) as bench:
        item = await bench.run_to_end("run")
        assert (item.status, item.output) == ("Completed", "15")
    counts = [[value for _, value in app.calls].count(n) for n in range(6)]
    assert counts == [1, 1, 1, 2, 2, 2]


async def test_a_running_id_is_refused_and_a_finished_one_replaced(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def waits(context: Any) -> Any:
        return (yield context.wait_for_external_event("go"))

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("waits")
        with pytest.raises(Exception, match="already exists"):
            await bench.start("waits")
        await bench.engine.raise_event("run", "go", "1")
        await bench.run_to_end("run")
        assert await bench.run("chain", 1) == 8


async def test_a_custom_status_beyond_16_kib_fails_the_instance(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def chatty(context: Any) -> Any:
        context.set_custom_status("x" * 9000)
        yield context.call_activity("double", 1)

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("chatty")
        item = await bench.run_to_end("run")
        assert item.status == "Failed"
        assert "must not exceed 16 KB" in item.output


@pytest.mark.parametrize("bad", ["@x", "a/b", "a#b", "a?b", "a\\b", "a\nb", "x" * 257])
async def test_bad_instance_ids_are_refused(app: PlainApp, tmp_path: Path, bad: str) -> None:
    async with running(app, tmp_path) as bench:
        with pytest.raises(Exception, match="nstance ID"):
            await bench.start("chain", 1, bad)


async def test_is_replaying_is_false_exactly_once_per_line_even_across_a_restart(
    app: PlainApp, tmp_path: Path, warm: bool
) -> None:
    said: list[str] = []

    @app.orchestration
    def talks(context: Any) -> Any:
        for n in range(3):
            if not context.is_replaying:
                said.append(f"before {n}")
            yield context.wait_for_external_event(f"go{n}")
        if not context.is_replaying:
            said.append("end")

    async with running(app, tmp_path, warm=warm) as bench:
        await bench.start("talks")
        await bench.engine.raise_event("run", "go0", "1")
        await bench.settle()
    async with running(app, tmp_path, warm=warm) as bench:
        await bench.settle()
        for n in (1, 2):
            await bench.engine.raise_event("run", f"go{n}", "1")
            await bench.settle()
        assert (await bench.run_to_end("run")).status == "Completed"
    assert said == ["before 0", "before 1", "before 2", "end"]


async def test_two_hosts_worth_of_instances_run_side_by_side(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    async with running(app, tmp_path, warm=warm, max_concurrent_activities=3) as bench:
        for n in range(30):
            await bench.start("chain", n, f"i{n}")
        outputs = [json.loads((await bench.run_to_end(f"i{n}")).output) for n in range(30)]
        assert outputs == [8 * n for n in range(30)]


async def test_concurrency_of_activities_is_bounded(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    busy = {"now": 0, "most": 0}

    @app.orchestration
    def wide(context: Any) -> Any:
        yield context.task_all([context.call_activity("slow", n) for n in range(20)])

    async with running(app, tmp_path, warm=warm, max_concurrent_activities=4) as bench:

        @app.activity
        async def slow(value: int) -> None:
            busy["now"] += 1
            busy["most"] = max(busy["most"], busy["now"])
            await asyncio.sleep(0.001)
            busy["now"] -= 1

        await bench.run("wide")
        assert busy["most"] == 4


async def test_long_timers_are_split_where_the_storage_demands_it(app: PlainApp, tmp_path: Path, warm: bool) -> None:
    @app.orchestration
    def sleeper(context: Any) -> Any:
        before = context.current_utc_datetime
        yield context.create_timer(before + timedelta(days=10))
        yield context.call_activity("double", 1)
        return (context.current_utc_datetime - before).total_seconds()

    limits = TimerLimits("6.00:00:00", "3.00:00:00")
    async with running(app, tmp_path, warm=warm, timer_limits=limits) as bench:
        assert await bench.run("sleeper") == 10 * 86_400
        snapshot = await bench.engine.status("run", with_history=True)
        assert snapshot is not None
        assert [e.event_id for e in snapshot.events or [] if isinstance(e, TimerCreated)] == [0, 1, 2]
