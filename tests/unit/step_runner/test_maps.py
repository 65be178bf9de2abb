"""Maps: counted once, run item by item, folded in order; a failed item is never lost in the sum."""

import pytest

from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteError, ExecuteFailed
from engine.domain.outcomes import Denied, Expanded, Failed, Skipped, Succeeded
from engine.domain.run import ErrorInfo, StepRecord
from engine.domain.status import StepStatus
from engine.step_runner import StepTask, collect_map, expand_map
from tests.support.world import World, doubled, plan_of, step


def _map(**fields):
    return step("m", n={"$ref": "item#"}, for_each={"$ref": "steps.r#/items"}, **fields)


@pytest.fixture
async def world():
    world = World(max_fan_out=10)
    await world.submit(plan_of(step("r", "calc.range", n=4), _map()))
    await world.perform("r")
    return world


TASK = StepTask(tenant_id="contoso", run_id="run-1", step_id="m")


async def test_items_are_counted_run_and_folded_in_order(world):
    assert await expand_map(TASK, world.deps) == Expanded(item_count=4)
    for item in (2, 0, 3, 1):
        assert await world.perform("m", item=item) == Succeeded()
    assert await collect_map(TASK, 4, world.deps) == Succeeded(item_count=4)
    assert await world.output("m") == [{"n": 0}, {"n": 2}, {"n": 4}, {"n": 6}]
    keys = {call.idempotency_key for call in world.invoker.calls}
    assert keys == {"run-1/r", *(f"run-1/m/{i}" for i in range(4))}


async def test_every_part_delivered_twice_changes_nothing(world):
    for _ in range(2):
        await expand_map(TASK, world.deps)
    for item in [0, 1, 2, 3] * 2:
        await world.perform("m", item=item)
    first = await collect_map(TASK, 4, world.deps)
    assert await collect_map(TASK, 4, world.deps) == first
    assert await expand_map(TASK, world.deps) == first
    assert (await world.events()).count("step.succeeded") == 6


async def test_a_failed_item_fails_the_map_and_is_named(world):
    def odd_fails(request):
        if request.inputs["n"] == 1:
            return ExecuteFailed(error=ExecuteError(code="agent.error"))
        return doubled(request)

    world.invoker.behaviours["calc.double"] = odd_fails
    await expand_map(TASK, world.deps)
    for item in range(4):
        await world.perform("m", item=item)
    assert await collect_map(TASK, 4, world.deps) == Failed(code="step.items_failed")
    record = await world.runs.get_step("contoso", "run-1", "m")
    assert "item 1 (agent.error)" in record.error.message


async def test_collecting_counts_attempts_anew_and_is_recorded_all_the_same(world):
    assert await expand_map(TASK.model_copy(update={"attempt": 3}), world.deps) == Expanded(item_count=4)
    for item in range(4):
        await world.perform("m", item=item)
    assert await collect_map(TASK, 4, world.deps) == Succeeded(item_count=4)
    record = await world.runs.get_step("contoso", "run-1", "m")
    assert (record.status, record.attempt) == (StepStatus.SUCCEEDED, 3)


async def test_collecting_is_asked_for_again_while_the_payload_store_is_down(world):
    await expand_map(TASK, world.deps)
    for item in range(4):
        await world.perform("m", item=item)
    put = world.deps.payloads.put

    async def down(*_, **__):
        raise LivoaError("store.unavailable", "down", status=503)

    world.deps.payloads.put = down
    for attempt in range(1, 5):
        task = TASK.model_copy(update={"attempt": attempt})
        assert await collect_map(task, 4, world.deps) == Failed(code="store.unavailable", retryable=True)
    world.deps.payloads.put = put
    assert await collect_map(TASK.model_copy(update={"attempt": 5}), 4, world.deps) == Succeeded(item_count=4)


async def test_a_missing_item_is_a_failure_not_a_hole(world):
    await expand_map(TASK, world.deps)
    await world.perform("m", item=0)
    assert await collect_map(TASK, 4, world.deps) == Failed(code="step.items_failed")


async def test_more_items_than_the_tenant_allows_fail_before_any_runs():
    world = World(max_fan_out=3)
    await world.submit(plan_of(step("r", "calc.range", n=4), _map(max_items=3)))
    await world.perform("r")
    outcome = await expand_map(TASK, world.deps)
    assert isinstance(outcome, Failed)
    assert [call.idempotency_key for call in world.invoker.calls] == ["run-1/r"]


async def test_an_empty_map_succeeds_with_nothing():
    world = World()
    await world.submit(plan_of(step("r", "calc.range", n=0), _map()))
    await world.perform("r")
    assert await expand_map(TASK, world.deps) == Expanded(item_count=0)
    assert await collect_map(TASK, 0, world.deps) == Succeeded(item_count=0)
    assert await world.output("m") == []


async def test_a_map_over_a_step_without_output_is_skipped():
    world = World()
    await world.submit(plan_of(step("r", "calc.range", n=0, when={"left": 1, "op": "eq", "right": 2}), _map()))
    await world.perform("r")
    assert await expand_map(TASK, world.deps) == Skipped(code="bind.no_output")


@pytest.mark.parametrize("on_failure", ["fail", "skip"])
async def test_an_item_that_policy_denied_denies_the_map_though_its_call_died_untold(on_failure):
    world = World(max_fan_out=10)
    await world.submit(plan_of(step("r", "calc.range", n=2), _map(on_failure=on_failure)))
    await world.perform("r")
    await expand_map(TASK, world.deps)
    await world.perform("m", item=0)
    await world.runs.put_step(
        StepRecord(
            tenant_id="contoso",
            run_id="run-1",
            step_id="m",
            item=1,
            status=StepStatus.DENIED,
            attempt=1,
            error=ErrorInfo(code="policy.no", message="policy denies this step"),
        )
    )
    assert await collect_map(TASK, 2, world.deps) == Denied(code="policy.no")
    record = await world.runs.get_step("contoso", "run-1", "m")
    assert (record.status, record.error.code) == (StepStatus.DENIED, "policy.no")
