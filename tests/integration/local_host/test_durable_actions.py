"""What a run costs in durable actions, counted by the host: each is a message that Azure bills and a hop a step waits for."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.domain.skeleton import Skeleton
from local_host.durable.tally import Actions, actions_in
from tests.unit.local_host.durable_app import PlainApp, running
from tests.unit.orchestrators.test_on_embedded_host import RunApp
from tests.unit.orchestrators.test_run_orchestrator import REF, steps_of


async def actions_of(skeleton: Skeleton, folder: Path, max_batch: int | None) -> Actions:
    app = RunApp(skeleton, lambda value: 1.0 + int(value["step_id"][1:]) / 100)
    async with running(app, folder, warm=True, max_batch=max_batch) as bench:
        app.bench = bench
        await bench.run("run_orchestrator", REF, instance_id="run-1")
        snapshot = await bench.engine.status("run-1", with_history=True)
    assert snapshot is not None
    assert snapshot.events is not None
    return actions_in(snapshot.events)


@pytest.mark.parametrize("max_batch", [None, 1], ids=["together", "one by one"])
async def test_twenty_independent_steps_take_at_most_fifty_actions(tmp_path: Path, max_batch: int | None) -> None:
    actions = await actions_of(steps_of(*(f"s{index}" for index in range(20))), tmp_path, max_batch)
    assert actions.activities >= 20
    assert actions.total <= 50, actions


@pytest.mark.parametrize("max_batch", [None, 1], ids=["together", "one by one"])
async def test_a_chain_of_twenty_takes_at_most_seventy_actions(tmp_path: Path, max_batch: int | None) -> None:
    chain = steps_of("s0", *(f"s{index}:s{index - 1}" for index in range(1, 20)))
    actions = await actions_of(chain, tmp_path, max_batch)
    assert actions.activities >= 20
    assert actions.total <= 70, actions


async def test_every_kind_of_action_is_counted_and_a_wait_is_none(tmp_path: Path) -> None:
    import azure.durable_functions as df

    app = PlainApp()

    @app.activity
    def echo(value: int) -> int:
        return value

    @app.entity_function
    def counter(context: df.DurableEntityContext) -> None:
        context.set_result(1)

    @app.orchestration
    def child(context: df.DurableOrchestrationContext) -> int:
        return 1

    @app.orchestration
    def parent(context: df.DurableOrchestrationContext):  # type: ignore[no-untyped-def]  # a generator of SDK tasks
        timer = context.create_timer(context.current_utc_datetime)
        timer.cancel()
        yield context.call_activity("echo", 1)
        yield context.task_any([context.wait_for_external_event("never"), timer])
        yield context.call_sub_orchestrator("child")
        yield context.call_entity(df.EntityId("counter", "a"), "add")
        context.signal_entity(df.EntityId("counter", "a"), "add")
        return (yield context.call_activity("echo", 2))

    async with running(app, tmp_path) as bench:
        await bench.run("parent", None, instance_id="run-1")
        snapshot = await bench.engine.status("run-1", with_history=True)
    assert snapshot is not None
    assert actions_in(snapshot.events or []) == Actions(2, 1, 1, 2)
