"""The end of a run: one answer, one final status, steps that never ran are written down; all of it repeatable."""

import asyncio
import dataclasses
import json
from typing import Any

import pytest

from activities.compose_answer import compose_answer
from activities.steps import expand
from engine.domain.status import RunStatus, StepStatus
from engine.step_runner.end_words import NOT_AGAIN
from tests.support.world import World, failing, plan_of, step

REF = {"tenant_id": "contoso", "run_id": "run-1"}


async def _run():
    world = World()
    await world.submit(plan_of(step("a"), step("b", n={"$ref": "steps.a#/n"}), step("c"), uses=["b", "c"]))
    world.invoker.behaviours["calc.double"] = failing("agent.error", retryable=False)
    await world.perform("a")
    from tests.support.world import doubled

    world.invoker.behaviours["calc.double"] = doubled
    await world.perform("c")
    return world


REPORT = {
    "steps": {"succeeded": ["c"], "failed": ["a"], "skipped": ["b"]},
    "codes": {"a": "agent.error", "b": "step.needs_failed"},
}


async def test_the_answer_names_what_is_missing_and_is_stored_once():
    world = await _run()
    assert await compose_answer(REF | REPORT, world.deps) == {"status": "composed"}
    assert await compose_answer(REF | REPORT, world.deps) == {"status": "composed"}
    run = await world.runs.get("contoso", "run-1")
    answer = json.loads(await world.deps.payloads.get("contoso", "run-1", run.answer_ref))
    assert answer["missing"] == ["b skipped (step.needs_failed)"]
    events = await world.events()
    assert events.count("answer.completed") == 1
    assert events.index("answer.started") < events.index("answer.delta") < events.index("answer.completed")


async def test_steps_that_never_ran_are_written_down_and_the_run_ends_once():
    world = await _run()
    await compose_answer(REF | REPORT, world.deps)
    run = await world.finish(RunStatus.PARTIAL, code="run.steps_failed", **REPORT)
    assert (run.status, run.error.code) == (RunStatus.PARTIAL, "run.steps_failed")
    assert run.finished_at is not None
    skipped = await world.runs.get_step("contoso", "run-1", "b")
    assert (skipped.status, skipped.error.code) == (StepStatus.SKIPPED, "step.needs_failed")
    before = (await world.events(), await world.audit())
    assert before[0][-1] == "run.partial"
    assert before[1][-1] == "run.finished"
    await world.finish(RunStatus.SUCCEEDED, **REPORT)
    assert (await world.events(), await world.audit()) == before


async def test_finished_steps_are_not_overwritten_by_the_report():
    world = await _run()
    await world.finish(RunStatus.CANCELLED, code="run.cancelled", steps={"cancelled": ["a", "b", "c"]}, codes={})
    statuses = {record.step_id: record.status.value for record in await world.runs.steps("contoso", "run-1")}
    assert statuses == {"a": "failed", "b": "cancelled", "c": "succeeded"}


async def test_an_answer_that_comes_too_late_adds_nothing_to_a_finished_run():
    world = await _run()
    await world.finish(RunStatus.CANCELLED, code="run.cancelled", **REPORT)
    before = await world.events()
    assert await compose_answer(REF | REPORT, world.deps) == {"status": "composed"}
    assert await world.events() == before


async def test_a_run_that_ends_while_its_answer_is_composed_keeps_its_last_event():
    world = await _run()
    compose = world.deps.composer.compose

    class Slow:
        async def compose(self, request, sink):
            await world.finish(RunStatus.CANCELLED, code="run.cancelled", **REPORT)
            return await compose(request, sink)

    deps = dataclasses.replace(world.deps, composer=Slow())
    assert await compose_answer(REF | REPORT, deps) == {"status": "composed"}
    assert (await world.events())[-1] == "run.cancelled"
    assert (await world.runs.get("contoso", "run-1")).answer_ref is None


async def _cut_map():
    """A map whose first item was to be tried again and whose second was under way when the run was cancelled."""
    world = World()
    await world.submit(plan_of(step("m", n={"$ref": "item#"}, for_each=[1, 2, 3])))
    await expand({"tenant_id": "contoso", "run_id": "run-1", "step_id": "m"}, world.deps)
    world.invoker.behaviours["calc.double"] = failing("agent.busy")
    await world.perform("m", item=0)

    async def dies(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    world.invoker.invoke = dies
    with pytest.raises(asyncio.CancelledError):
        await world.perform("m", item=1)
    return world


async def test_items_that_were_open_when_the_run_ended_are_closed():
    world = await _cut_map()
    for _ in range(2):
        await world.finish(RunStatus.CANCELLED, steps={"cancelled": ["m"]}, codes={"m": "run.cancelled"})
    items = await world.runs.items("contoso", "run-1", "m")
    assert [(item.status.value, item.error.code) for item in items] == [
        ("failed", "agent.busy"),
        ("cancelled", "run.cancelled"),
    ]
    (map_step,) = await world.runs.steps("contoso", "run-1")
    assert (map_step.kind, map_step.status) == ("map", StepStatus.CANCELLED)
    assert (await world.events())[-1] == "run.cancelled"


async def test_what_a_dead_attempt_had_reserved_is_charged_at_the_manifests_price():
    world = await _cut_map()
    assert (await world.deps.budgets.state("contoso", "run-1")).reserved_micro_usd == 100
    await world.finish(RunStatus.CANCELLED, steps={"cancelled": ["m"]}, codes={"m": "run.cancelled"})
    state = await world.deps.budgets.state("contoso", "run-1")
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 100)


async def test_an_unknown_run_is_nothing_to_finish():
    world = World()
    from engine.step_runner import finish_run

    assert await finish_run(REF | {"status": "failed"}, world.deps) == {}


async def test_nothing_stays_set_aside_when_a_run_is_over():
    """Requests to models may have been made and count in full; the rest belongs to nobody and is given back."""
    world = World()
    await world.submit(plan_of(step("a")))
    budgets, day = world.deps.budgets, world.clock.now().date()
    await budgets.reserve("contoso", "run-1", "model/1/plan/abc/1", amount_micro_usd=0, tokens=700)
    await budgets.reserve("contoso", "run-1", "run-1/nobody/1", amount_micro_usd=40)
    for _ in range(2):
        await world.finish(RunStatus.FAILED, code="run.steps_failed")
        state, of_day = await budgets.state("contoso", "run-1"), await budgets.daily_state("contoso", day)
        assert (state.reserved_micro_usd, state.reserved_tokens, state.spent_tokens) == (0, 0, 700)
        assert (of_day.reserved_micro_usd, of_day.reserved_tokens, of_day.spent_tokens) == (0, 0, 700)


async def test_an_attempt_that_begins_while_the_run_is_being_finished_leaves_no_open_record() -> None:
    """Found by chaos seed 180: the record of the end named the attempt before, and could not replace that of the later one."""
    world = World()
    await world.submit(plan_of(step("a", retry={"max_attempts": 3})))
    world.invoker.behaviours["calc.double"] = failing()
    await world.perform("a")
    steps = world.deps.runs.steps

    async def then_a_late_delivery_begins(tenant_id: str, run_id: str) -> Any:
        read = await steps(tenant_id, run_id)
        late = read[0].model_copy(update={"attempt": 2, "status": StepStatus.RUNNING, "error": None})
        await world.runs.put_step(late)
        return read

    world.runs.steps = then_a_late_delivery_begins  # type: ignore[method-assign]
    await world.finish(RunStatus.FAILED, steps={"failed": ["a"]}, codes={"a": "store.unavailable"})
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert record is not None
    assert (record.status, record.attempt) == (StepStatus.FAILED, 2)


@pytest.mark.parametrize(("status", "said"), [(RunStatus.FAILED, True), (RunStatus.CANCELLED, False)])
async def test_a_step_that_had_no_time_to_be_tried_again_says_so_and_why_it_failed(status, said) -> None:
    world = World()
    await world.submit(plan_of(step("a", retry={"max_attempts": 3})))
    world.invoker.behaviours["calc.double"] = failing("agent.busy")
    await world.perform("a")
    run = await world.finish(status, code="agent.busy", steps={"failed": ["a"]}, codes={"a": "agent.busy"})
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert (record.status, record.error.code) == (StepStatus.FAILED, "agent.busy")
    assert record.error.message == ("no; " + NOT_AGAIN if said else "no")
    assert run.error.message == "step a did not succeed", "an agent's words stand in no event"


async def test_a_run_that_was_denied_has_the_words_of_the_denial() -> None:
    world = World()
    await world.submit(plan_of(step("a")))
    world.tenant = world.tenant.model_copy(update={"enabled_capabilities": ("mail.send",)})
    world.deps.tenants._tenants["contoso"] = world.tenant
    await world.perform("a")
    record = await world.runs.get_step("contoso", "run-1", "a")
    code = record.error.code
    run = await world.finish(RunStatus.DENIED, code=code, steps={"denied": ["a"]}, codes={"a": code})
    assert run.error.code == code
    assert run.error.message == f"step a: {record.error.message}"


async def test_a_step_that_ended_for_a_reason_without_words_does_not_repeat_its_code() -> None:
    world = World()
    await world.submit(plan_of(step("a")))
    await world.finish(RunStatus.FAILED, code="step.x", steps={"failed": ["a"]}, codes={"a": "step.x"})
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert (record.error.code, "step.x" in record.error.message) == ("step.x", False)
