"""Taking over what another run has done: which steps, with what, and that nothing is done twice."""

from __future__ import annotations

from typing import Any

import pytest

from activities.plan_run import plan_run
from engine.domain.audit import AuditType
from engine.domain.errors import ConflictError
from engine.domain.outcomes import Expanded, Succeeded
from engine.domain.run import ErrorInfo, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.plan import check_plan
from engine.step_runner import StepTask, collect_map, expand_map, perform_step, undo_step
from engine.step_runner.reuse import reusable, reuse_finished
from tests.support.world import World, doubled, failing, plan_of, step

CHAIN = (
    step("a"),
    step("b", needs=["a"]),
    step("c", needs=["b"]),
    step("other"),
)


def checked(world: World, *steps: dict[str, Any]) -> Any:
    plan = check_plan(plan_of(*steps) | {"schema_version": "1.0"}, tenant=world.tenant, catalog=world.deps.catalog).plan
    assert plan is not None
    return plan


def records(**statuses: str) -> dict[str, StepRecord]:
    found = {}
    for name, status in statuses.items():
        step_id = name.replace("__", ".")
        error = ErrorInfo(code="step.when_false", message="no") if status == "false" else None
        found[step_id] = StepRecord(
            tenant_id="contoso", run_id="run-1", step_id=step_id,
            status=StepStatus("skipped" if status == "false" else status), error=error,
        )  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("done", "rerun_from", "kept"),
    [
        ({"a": "succeeded", "b": "succeeded", "c": "failed", "other": "succeeded"}, None, ("a", "b", "other")),
        ({"a": "succeeded", "b": "succeeded", "c": "succeeded", "other": "succeeded"}, "b", ("a", "other")),
        ({"a": "failed", "b": "succeeded", "c": "succeeded", "other": "succeeded"}, None, ("other",)),
        ({"a": "succeeded", "b": "false", "c": "succeeded", "other": "failed"}, None, ("a", "c")),
        ({"a": "false", "b": "succeeded", "c": "succeeded"}, "a", ()),
        ({"a": "succeeded", "a__undo": "succeeded", "b": "succeeded"}, None, ()),
        ({}, None, ()),
    ],
)
def test_what_stands_is_what_succeeded_and_comes_after_nothing_that_is_done_again(
    done: dict[str, str], rerun_from: str | None, kept: tuple[str, ...]
) -> None:
    plan = checked(World(), *CHAIN)
    found, begun = reusable(plan, records(**done), rerun_from)
    assert (sorted(found), begun) == (sorted(kept), ())


async def again(world: World, rerun_from: str | None = None) -> dict[str, Any]:
    """The run's child, planned, as the route makes it."""
    parent = await world.runs.get("contoso", "run-1")
    assert parent is not None
    for ref in (parent.request_ref, parent.plan_ref):
        assert ref is not None
        await world.deps.payloads.put("contoso", "run-2", await world.deps.payloads.get("contoso", "run-1", ref))
    fields = {
        "run_id": "run-2", "status": RunStatus.ACCEPTED, "plan_version": 0, "parent_run_id": "run-1",
        "rerun_from": rerun_from, "version": 1, "error": None, "finished_at": None, "cost_micro_usd": 0,
    }  # fmt: skip
    await world.runs.create(parent.model_copy(update=fields), [], None)
    return await plan_run({"tenant_id": "contoso", "run_id": "run-2"}, world.deps)


async def perform(world: World, step_id: str) -> Any:
    return await perform_step(StepTask(tenant_id="contoso", run_id="run-2", step_id=step_id), world.deps)


async def test_finished_work_is_answered_from_its_record_and_the_rest_is_done() -> None:
    world = World()
    await world.submit(plan_of(step("a"), step("b", n={"$ref": "steps.a#/n"})))
    await world.perform("a")
    world.invoker.behaviours["calc.double"] = failing("agent.broken", retryable=False)
    await world.perform("b")
    await world.finish(RunStatus.PARTIAL)
    world.invoker.behaviours["calc.double"] = doubled
    world.invoker.calls.clear()
    for _ in range(2):  # a second delivery changes nothing
        answer = await (again(world) if _ == 0 else plan_run({"tenant_id": "contoso", "run_id": "run-2"}, world.deps))
        assert answer["status"] == "planned"
    assert await perform(world, "a") == Succeeded()
    assert await perform(world, "b") == Succeeded()
    assert [call.idempotency_key for call in world.invoker.calls] == ["run-2/b"]
    taken = await world.runs.get_step("contoso", "run-2", "a")
    assert taken is not None
    assert (taken.reused_from, taken.cost_micro_usd) == ("run-1", 0)
    events = await world.deps.events.read("contoso", "run-2", after_seq=0, limit=99)
    assert [event.data.get("step_id") for event in events if event.type.value == "step.succeeded"] == ["a", "b"]
    child = await world.runs.get("contoso", "run-2")
    assert child is not None
    assert child.provenance == (await world.runs.get("contoso", "run-1")).provenance  # type: ignore[union-attr]


async def test_another_runs_effect_is_not_undone() -> None:
    world = World()
    await world.submit(
        plan_of(step("a", "mail.send", compensate_with={"capability": "calc.double", "inputs": {"n": 1}}))
    )
    await world.perform("a")
    await world.finish(RunStatus.SUCCEEDED)
    await again(world)
    calls = len(world.invoker.calls)
    task = StepTask(tenant_id="contoso", run_id="run-2", step_id="a")
    assert (await undo_step(task, world.deps)).status == "undone"
    assert len(world.invoker.calls) == calls


async def test_without_its_parent_nothing_is_guessed() -> None:
    world = World()
    await world.submit(plan_of(step("a")))
    await world.perform("a")
    run = await world.runs.get("contoso", "run-1")
    assert run is not None
    orphan = run.model_copy(update={"parent_run_id": "run-gone"})
    with pytest.raises(ConflictError, match="gone"):
        await reuse_finished(orphan, checked(world, step("a")), world.deps)


MAPPED = step("m", "mail.send", n={"$ref": "item#"}, for_each={"$ref": "steps.r#/items"})


async def half_done(world: World) -> None:
    """A run whose map has one item that failed, and three whose effects were had."""
    await world.submit(plan_of(step("r", "calc.range", n=4), MAPPED))
    await world.perform("r")
    world.invoker.behaviours["mail.send"] = lambda request: (
        failing("agent.error", retryable=False)(request) if request.inputs["n"] == 1 else doubled(request)
    )
    task = StepTask(tenant_id="contoso", run_id="run-1", step_id="m")
    await expand_map(task, world.deps)
    for item in range(4):
        await world.perform("m", item=item)
    await collect_map(task, 4, world.deps)
    await world.finish(RunStatus.FAILED)
    world.invoker.behaviours["mail.send"] = doubled
    world.invoker.calls.clear()


async def test_of_a_map_that_failed_only_the_items_are_done_again_that_did_not_succeed() -> None:
    world = World(max_fan_out=10)
    await half_done(world)
    await again(world)
    task = StepTask(tenant_id="contoso", run_id="run-2", step_id="m")
    assert await expand_map(task, world.deps) == Expanded(item_count=4)
    for item in range(4):
        assert await perform_step(task.model_copy(update={"item": item}), world.deps) == Succeeded()
    assert await collect_map(task, 4, world.deps) == Succeeded(item_count=4)
    assert [call.idempotency_key for call in world.invoker.calls] == ["run-2/m/1"]


async def test_items_of_a_map_from_which_the_run_is_done_again_are_done_again() -> None:
    world = World(max_fan_out=10)
    await half_done(world)
    await again(world, "r")
    assert await world.runs.items("contoso", "run-2", "m") == ()


async def test_items_that_another_run_has_done_are_that_runs_to_undo() -> None:
    world = World(max_fan_out=10)
    await half_done(world)
    await again(world)
    task = StepTask(tenant_id="contoso", run_id="run-2", step_id="m")
    await expand_map(task, world.deps)
    assert (await undo_step(task, world.deps)).status == "undone"
    assert world.invoker.calls == []


async def test_what_is_taken_over_is_on_record_with_whose_work_it_is() -> None:
    world = World(max_fan_out=10)
    await half_done(world)
    for _ in range(2):
        await again(world)
    found = await world.deps.audit.read("contoso", after_seq=0, limit=999, run_id="run-2")
    told = [(r.body["step"], r.body.get("item")) for r in found if r.type is AuditType.RESULT_REUSED]
    assert told == [("r", None), ("m", 0), ("m", 2), ("m", 3)]
    record = await world.runs.get_step("contoso", "run-2", "r")
    assert record is not None
    assert record.output_ref is not None
    assert record.output_ref.sha256 in [r.body.get("output_sha256") for r in found]
