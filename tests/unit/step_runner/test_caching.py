"""``cache: true``: when an earlier result answers a step, and when the capability is called all the same."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.errors import LivoaError
from engine.domain.outcomes import Denied, Succeeded
from engine.domain.run import StepRecord
from engine.domain.status import StepStatus
from engine.step_runner import StepTask, perform_step
from tests.support.world import World, failing, plan_of, step


@pytest.fixture
def world() -> World:
    return World()


async def performed(world: World, run_id: str, **fields: Any) -> Any:
    """One run of one step, done once."""
    asked = {"capability_name": "calc.steady", "cache": True} | fields
    answer = await world.submit(plan_of(step("a", **asked)), run_id=run_id)
    assert answer["status"] == "planned", answer
    return await perform_step(StepTask(tenant_id="contoso", run_id=run_id, step_id="a"), world.deps)


async def record(world: World, run_id: str) -> StepRecord:
    found = await world.runs.get_step("contoso", run_id, "a")
    assert found is not None
    return found


async def test_the_second_run_is_answered_without_a_call_and_says_whose_result_it_is(world: World) -> None:
    assert await performed(world, "run-1") == Succeeded()
    assert await performed(world, "run-2") == Succeeded()
    assert len(world.invoker.calls) == 1
    done = await record(world, "run-2")
    assert (done.status, done.reused_from, done.cost_micro_usd) == (StepStatus.SUCCEEDED, "run-1", 0)
    assert done.output_ref is not None
    assert await world.deps.payloads.get("contoso", "run-2", done.output_ref) == b'{"n":2}'
    assert (await world.audit()).count("result.reused") == 1
    state = await world.deps.budgets.state("contoso", "run-2")
    assert state is not None
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 0)


@pytest.mark.parametrize("fields", [{"n": 2}, {"cache": False}, {"capability_name": "calc.double"}])
async def test_another_question_or_one_that_wants_no_earlier_result_is_a_call(
    world: World, fields: dict[str, Any]
) -> None:
    await performed(world, "run-1")
    assert await performed(world, "run-2", **fields) == Succeeded()
    assert len(world.invoker.calls) == 2


async def test_a_result_is_too_old_after_the_time_the_manifest_gives(world: World) -> None:
    await performed(world, "run-1")
    world.clock.advance(3600)
    await performed(world, "run-2")
    assert len(world.invoker.calls) == 1
    world.clock.advance(1)
    await performed(world, "run-3")
    assert len(world.invoker.calls) == 2, "the age is that of the result, not of its last use"


async def test_a_result_from_the_future_is_no_result(world: World) -> None:
    """The clock was set back: nobody knows how old it is, and it would count for as much longer."""
    await performed(world, "run-1")
    world.clock.advance(-1_800)
    assert await performed(world, "run-2") == Succeeded()
    assert len(world.invoker.calls) == 2


async def test_a_failure_is_not_remembered(world: World) -> None:
    world.invoker.behaviours["calc.steady"] = failing(retryable=False)
    await performed(world, "run-1")
    del world.invoker.behaviours["calc.steady"]
    world.invoker.behaviours["calc.steady"] = world.invoker.behaviours["calc.double"]
    assert await performed(world, "run-2") == Succeeded()
    assert len(world.invoker.calls) == 2


async def test_a_result_that_is_gone_with_its_run_is_no_result(world: World) -> None:
    await performed(world, "run-1")
    await world.deps.payloads.delete_run("contoso", "run-1")
    assert await performed(world, "run-2") == Succeeded()
    assert len(world.invoker.calls) == 2


async def test_policy_is_asked_before_the_earlier_result_is_looked_for(world: World) -> None:
    await performed(world, "run-1")
    answer = await world.submit(plan_of(step("a", "calc.steady", cache=True)), run_id="run-2")
    assert answer["status"] == "planned"
    allowed = tuple(name for name in world.tenant.enabled_capabilities if name != "calc.steady")
    narrowed = world.tenant.model_copy(update={"enabled_capabilities": allowed})
    world.deps.tenants._tenants["contoso"] = narrowed  # type: ignore[attr-defined]
    outcome = await perform_step(StepTask(tenant_id="contoso", run_id="run-2", step_id="a"), world.deps)
    assert isinstance(outcome, Denied)


async def test_a_cache_in_trouble_costs_a_call_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: Any) -> Any:
        raise LivoaError("store.unavailable", "no", status=503)

    monkeypatch.setattr(world.deps.result_cache, "get", down)
    monkeypatch.setattr(world.deps.result_cache, "put", down)
    assert await performed(world, "run-1") == Succeeded()
    assert await performed(world, "run-2") == Succeeded()
    assert len(world.invoker.calls) == 2


async def test_a_step_whose_call_is_on_record_finds_out_what_came_of_it(world: World) -> None:
    """An earlier delivery died after its intent: the same call is made again, so that the intent gets its result."""
    await performed(world, "run-1")
    answer = await world.submit(plan_of(step("a", "calc.steady", cache=True)), run_id="run-2")
    assert answer["status"] == "planned"
    await world.runs.put_step(
        StepRecord(
            tenant_id="contoso", run_id="run-2", step_id="a", status=StepStatus.RUNNING, capability="calc.steady"
        )
    )
    await perform_step(StepTask(tenant_id="contoso", run_id="run-2", step_id="a"), world.deps)
    assert [call.idempotency_key for call in world.invoker.calls] == ["run-1/a", "run-2/a"]
