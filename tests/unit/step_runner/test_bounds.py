"""What is too large to be held in memory is refused before it is read, and never left out in silence."""

import pytest

from activities import compose_answer as composing
from engine.domain.outcomes import Failed
from engine.step_runner import StepTask, collect_map, expand_map, maps
from tests.support.world import World, plan_of, step

MAP = StepTask(tenant_id="contoso", run_id="run-1", step_id="m")


@pytest.fixture
async def world():
    world = World(max_fan_out=10)
    mapped = step("m", n={"$ref": "item#"}, for_each={"$ref": "steps.r#/items"})
    await world.submit(plan_of(step("r", "calc.range", n=3), mapped))
    await world.perform("r")
    return world


async def test_items_that_are_too_much_together_are_not_read(world, monkeypatch):
    await expand_map(MAP, world.deps)
    for item in range(3):
        await world.perform("m", item=item)
    monkeypatch.setattr(maps, "_MAX_COLLECTED_BYTES", 10)

    async def not_read(*_):
        raise AssertionError("an output was read")

    monkeypatch.setattr(maps, "load_output", not_read)
    assert await collect_map(MAP, 3, world.deps) == Failed(code="payload.too_large")


@pytest.mark.parametrize("bound", ["_MAX_OUTPUT_BYTES", "_MAX_OUTPUTS_BYTES"])
async def test_an_output_that_is_too_large_for_the_answer_is_named_in_it(world, monkeypatch, bound):
    monkeypatch.setattr(composing, bound, 5)
    payload = {"tenant_id": "contoso", "run_id": "run-1", "steps": {"succeeded": ["r", "m"]}}
    await expand_map(MAP, world.deps)
    for item in range(3):
        await world.perform("m", item=item)
    await collect_map(MAP, 3, world.deps)
    assert await composing.compose_answer(payload, world.deps) == {"status": "composed"}
    run = await world.runs.get("contoso", "run-1")
    answer = await world.deps.payloads.get("contoso", "run-1", run.answer_ref)
    assert b"m succeeded (answer.output_too_large)" in answer
