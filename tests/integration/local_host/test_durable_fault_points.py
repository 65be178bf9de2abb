"""The host stops before, or right after, each single commit of a run; a new one finishes the run with the same result."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from local_host.durable.clock import VirtualClock
from local_host.durable.engine import DurableEngine
from local_host.durable.history import SubCompleted, TaskCompleted, TimerFired
from tests.unit.local_host.durable_app import START_AT, Bench, PlainApp, running


def make_app() -> PlainApp:
    app = PlainApp()

    @app.activity
    def double(value: int) -> int:
        return value * 2

    @app.entity_function
    def counter(context: Any) -> None:
        context.set_state(context.get_state(lambda: 0) + context.get_input())
        context.set_result(context.get_state())

    @app.orchestration
    def child(context: Any) -> Any:
        return (yield context.call_activity("double", context.get_input()))

    @app.orchestration
    def everything(context: Any) -> Any:
        given = context.get_input()
        fan = yield context.task_all([context.call_activity("double", n) for n in range(3)])
        below = yield context.call_sub_orchestrator("child", 5)
        total = yield context.call_entity(df.EntityId("counter", "k"), "add", below)
        yield context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        answer = yield context.wait_for_external_event("go")
        if given == 1:
            context.continue_as_new(2)
            return None
        return [sum(fan), below, total, answer]

    return app


class Freezer:
    """Lets `allowed` writes through, then freezes the storage as a dead process would; `after` lets the last one land."""

    def __init__(self, bench: Bench, allowed: int, *, after: bool) -> None:
        self.seen = 0
        self.frozen = False
        real = bench.storage.write

        async def write(change: Any) -> Any:
            if self.frozen:
                raise OSError("frozen")
            self.seen += 1
            if self.seen > allowed:
                self.frozen = True
                if after:
                    await real(change)
                raise OSError("frozen")
            return await real(change)

        bench.storage.write = write  # type: ignore[method-assign]  # the fault we inject


async def drive(bench: Bench, freezer: Freezer | None = None) -> Any:
    """Let time fly and answer the waits until the run has ended or the storage is frozen."""
    for _ in range(40):
        await bench.settle()
        if freezer is not None and freezer.frozen:
            return None
        snapshot = await bench.engine.status("run", with_history=True)
        if snapshot is None:
            return None
        if snapshot.instance.is_terminal:
            return snapshot
        if not bench.clock.advance_to_next():
            await raise_go(bench.engine)
    raise AssertionError("the run did not end")


async def raise_go(engine: DurableEngine) -> None:
    try:
        await engine.raise_event("run", "go", json.dumps("yes"))
    except OSError:
        return


def expected_output(snapshot: Any) -> None:
    assert snapshot.instance.status == "Completed", snapshot.instance.output
    fan, below, total, answer = json.loads(snapshot.instance.output)
    assert (fan, below, total, answer) == (6, 10, 20, "yes")
    ends = [
        (type(event), getattr(event, "task_id", getattr(event, "timer_id", None)))
        for event in snapshot.events
        if isinstance(event, TaskCompleted | SubCompleted | TimerFired)
    ]
    assert len(ends) == len(set(ends)) == 5, "each completion is recorded exactly once"


async def count_writes(path: Path) -> int:
    async with running(make_app(), path) as bench:
        counter = Freezer(bench, 10_000, after=False)
        await bench.start("everything", 1)
        expected_output(await drive(bench))
        return counter.seen


@pytest.mark.parametrize("after", [False, True], ids=["before-commit", "after-commit"])
async def test_every_commit_is_a_safe_place_to_die(tmp_path: Path, after: bool) -> None:
    (tmp_path / "whole").mkdir()
    writes = await count_writes(tmp_path / "whole")
    assert writes > 20
    for allowed in range(writes):
        path = tmp_path / f"cut-{allowed}"
        path.mkdir()
        app, clock = make_app(), VirtualClock(START_AT)
        async with running(app, path, clock, warm=bool(allowed % 2)) as bench:
            freezer = Freezer(bench, allowed, after=after)
            try:
                await bench.start("everything", 1)
            except OSError:
                assert allowed == 0
            await drive(bench, freezer)
            assert freezer.frozen
        # The second process has a clock of its own that goes on where the first one stopped.
        async with running(app, path, VirtualClock(clock.now())) as bench:
            snapshot = await bench.engine.status("run")
            if snapshot is None:
                assert (allowed, after) == (0, False), "only a start that was never acknowledged may vanish"
                continue
            expected_output(await drive(bench))
            state = await bench.engine.read_entity("counter", "k")
            assert state.state_json == "20"
