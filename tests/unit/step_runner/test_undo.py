"""Undoing a step: what is called, once, with what inputs, and what is said when it cannot be done."""

import asyncio
from typing import Any

import pytest

from engine.domain.outcomes import Failed
from engine.domain.policy import Cure, PolicyDecision, Verdict
from engine.domain.status import RunStatus, StepStatus
from engine.step_runner import StepTask, expand_map, undo_step
from engine.step_runner.undo import MoreToUndo, Undone
from tests.support.world import World, doubled, failing, plan_of, step

UNDO = {"capability": "mail.send", "inputs": {"n": {"$ref": "steps.a#/n"}}}


@pytest.fixture
def world():
    return World()


async def undo(world: World, step_id: str = "a") -> Any:
    return await undo_step(StepTask(tenant_id="contoso", run_id="run-1", step_id=step_id), world.deps)


async def undone(world: World, step_id: str = "a.undo", item: int | None = None) -> Any:
    return await world.runs.get_step("contoso", "run-1", step_id, item)


def keys(world: World) -> list[str]:
    return [call.idempotency_key for call in world.invoker.calls]


async def test_an_effect_is_undone_once_through_the_gate_with_the_output_of_its_step(world):
    await world.submit(plan_of(step("a", n=4, compensate_with=UNDO)))
    await world.perform("a")
    asked = []
    decide = world.deps.policy.decide_step

    async def spy(request):
        asked.append((request.purpose, request.step_id, request.capability_name))
        return await decide(request)

    world.deps.policy.decide_step = spy
    assert await undo(world) == await undo(world) == Undone()
    assert asked == [("compensation", "a", "mail.send")]
    assert keys(world) == ["run-1/a", "run-1/a/undo"]
    assert (world.invoker.calls[-1].capability, world.invoker.calls[-1].inputs) == ("mail.send", {"n": 8})
    assert (await world.audit())[-2:] == ["dispatch.intended", "dispatch.result"]
    record = await undone(world)
    assert (record.status, record.capability, record.cost_micro_usd) == (StepStatus.SUCCEEDED, "mail.send", 100)
    assert (await world.runs.get_step("contoso", "run-1", "a")).status is StepStatus.SUCCEEDED


async def test_several_deliveries_at_once_undo_once(world):
    await world.submit(plan_of(step("a", compensate_with=UNDO)))
    await world.perform("a")
    assert set(await asyncio.gather(*(undo(world) for _ in range(6)))) == {Undone()}
    assert list(world.invoker.effects).count("run-1/a/undo") == 1


async def test_what_had_no_effect_is_not_undone(world):
    await world.submit(plan_of(step("a", "mail.send", compensate_with=UNDO)))
    assert await undo(world) == Undone()
    world.invoker.behaviours["mail.send"] = failing(retryable=False)
    await world.perform("a")
    assert await undo(world) == Undone()
    assert keys(world) == ["run-1/a"]


async def test_a_step_that_may_still_take_effect_is_waited_for_and_then_reported(world):
    """Its call is open in the records: undone too early it would be done after all."""
    await world.submit(plan_of(step("a", compensate_with=UNDO)))
    await world.perform("a")
    record = await world.runs.get_step("contoso", "run-1", "a")

    async def open_record(tenant_id, run_id, step_id, item=None):
        return record.model_copy(update={"status": StepStatus.RUNNING}) if step_id == "a" else None

    get_step, world.deps.runs.get_step = world.deps.runs.get_step, open_record
    assert await undo(world) == Failed(code="undo.still_open", retryable=True)
    world.deps.runs.get_step = get_step
    assert keys(world) == ["run-1/a"]


async def test_undoing_is_tried_five_times_and_its_failure_is_never_hidden(world):
    await world.submit(plan_of(step("a", compensate_with=UNDO)))
    await world.perform("a")
    world.invoker.behaviours["mail.send"] = failing("agent.busy")
    for _ in range(5):
        assert await undo(world) == Failed(code="agent.busy", retryable=True)
    assert (await undone(world)).status is StepStatus.FAILED
    assert await undo(world) == Failed(code="agent.busy", retryable=True)
    assert keys(world).count("run-1/a/undo") == 5
    run = await world.finish(RunStatus.FAILED, code="agent.broken", not_undone={"a": "agent.busy"})
    assert run.error.code == "agent.broken"
    assert "could not be undone: a (agent.busy)" in run.error.message
    chain = await world.deps.audit.read("contoso", after_seq=0, limit=100)
    assert chain[-1].body["not_undone"] == {"a": "agent.busy"}


async def test_an_undoing_that_nobody_could_record_is_recorded_at_the_end(world):
    await world.submit(plan_of(step("a", compensate_with=UNDO)))
    await world.perform("a")
    await world.finish(RunStatus.CANCELLED, code="run.cancelled", not_undone={"a": "activity.crashed"})
    record = await undone(world)
    assert (record.status, record.error.code) == (StepStatus.FAILED, "activity.crashed")
    assert await undo(world) == Failed(code="run.finished")


async def test_undoing_does_not_mind_the_deadline(world):
    await world.submit(plan_of(step("a", compensate_with=UNDO)))
    await world.perform("a")
    world.clock.advance(7_200)
    assert await undo(world) == Undone()


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.DENY, "policy.x"), (Verdict.ESCALATE, "undo.needs_approval")])
async def test_what_policy_does_not_clear_is_not_undone(world, verdict, code):
    await world.submit(plan_of(step("a", compensate_with=UNDO)))
    await world.perform("a")

    async def decide(request):
        cures = (Cure(kind="approval", detail="four-eyes"),) if verdict is Verdict.ESCALATE else ()
        return PolicyDecision(verdict=verdict, code="policy.x", cures=cures)

    world.deps.policy.decide_step = decide
    assert await undo(world) == Failed(code=code)
    assert keys(world) == ["run-1/a"]
    assert (await undone(world)).status is StepStatus.DENIED


async def test_every_item_that_succeeded_is_undone_last_first_and_in_batches(world):
    """The last item never ran, so the map as a whole did not succeed; what its items did stands all the same."""
    each = {"capability": "mail.send", "inputs": {"n": {"$ref": "item#"}}}
    items = {"for_each": list(range(23)), "inputs": {"n": {"$ref": "item#"}}, "compensate_with": each}
    await world.submit(plan_of(step("a") | items))
    await expand_map(StepTask(tenant_id="contoso", run_id="run-1", step_id="a"), world.deps)
    for item in range(22):
        world.clock.advance(1)
        await world.perform("a", item=item)
    assert await undo(world) == MoreToUndo()
    assert await undo(world) == Undone()
    assert await undo(world) == Undone()
    assert keys(world)[22:] == [f"run-1/a/{item}/undo" for item in range(21, -1, -1)]
    assert [call.inputs["n"] for call in world.invoker.calls[22:]] == list(range(21, -1, -1))
    record = await undone(world)
    assert (record.status, record.kind, record.item_count) == (StepStatus.SUCCEEDED, "map", 22)


async def test_an_item_that_cannot_be_undone_keeps_none_of_the_others_from_it(world):
    each = {"capability": "mail.send", "inputs": {"n": {"$ref": "item#"}}}
    items = {"for_each": [1, 2, 3], "inputs": {"n": {"$ref": "item#"}}, "compensate_with": each}
    await world.submit(plan_of(step("a") | items))
    await expand_map(StepTask(tenant_id="contoso", run_id="run-1", step_id="a"), world.deps)
    for item in range(3):
        await world.perform("a", item=item)
    refused = failing("mail.gone", retryable=False)
    world.invoker.behaviours["mail.send"] = lambda asked: refused(asked) if asked.item == 1 else doubled(asked)
    assert await undo(world) == Failed(code="undo.items_failed")
    statuses = [(await undone(world, item=item)).status for item in range(3)]
    assert statuses == [StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SUCCEEDED]
    assert "the first is item 1" in (await undone(world)).error.message


async def test_a_manifest_that_demands_an_undoing_the_plan_does_not_spell_out_is_reported(world):
    await world.submit(plan_of(step("a")))
    await world.perform("a")
    assert await undo(world) == Failed(code="undo.no_inputs")
    assert (await undone(world)).error.message == "the plan does not say how this step is undone"


@pytest.mark.parametrize("step_id", ["a.undo", "x" * 96])
async def test_ids_leave_room_for_the_record_of_the_undoing(world, step_id):
    planned = await world.submit(
        plan_of(step(step_id, compensate_with={"capability": "mail.send", "inputs": {"n": 1}}))
    )
    assert planned["status"] == "rejected"
