"""The end of a run: one answer, one final status, steps that never ran are written down; all of it repeatable."""

import json

from activities.compose_answer import compose_answer
from engine.domain.status import RunStatus, StepStatus
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


async def test_an_unknown_run_is_nothing_to_finish():
    world = World()
    from activities.finish_run import finish_run

    assert await finish_run(REF | {"status": "failed"}, world.deps) == {}
