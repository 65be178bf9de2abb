"""Suspending, resuming and terminating over HTTP: what is recorded, who is told, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.approval import ApprovalStatus
from engine.domain.audit import AuditType
from engine.domain.errors import LivoaError
from engine.domain.principal import Role
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import approval
from tests.unit.triggers.test_runs import change, finished, planned, put_step
from tests.unit.triggers.world import World


async def run_of(world: World, run_id: str) -> Any:
    return await world.runs.get("contoso", run_id)


async def kinds(world: World, run_id: str) -> list[str]:
    events = await world.deps.events.read("contoso", run_id, after_seq=0, limit=99)
    return [event.type.value for event in events]


async def audited(world: World) -> list[str]:
    return [record.type.value for record in await world.audit.read("contoso", after_seq=0, limit=99)]


async def test_suspending_is_recorded_and_asking_again_changes_nothing(world: World) -> None:
    run_id = await planned(world)
    for _ in range(2):
        answer = await world.post(f"/api/runs/{run_id}/suspend")
        assert (answer.status, answer.json["status"]) == (202, "suspended")
        assert answer.json["suspended_reason"] == "request"
    assert (await kinds(world, run_id)).count("run.suspended") == 1
    assert await audited(world) == ["run.submitted", "run.suspended"]
    assert (await run_of(world, run_id)).suspensions == 1
    status = await world.get(f"/api/runs/{run_id}/status")
    assert (status.status, status.json["runtimeStatus"]) == (202, "Suspended")


async def test_each_resumption_is_announced_under_the_number_of_its_suspension(world: World) -> None:
    run_id = await planned(world)
    for number in (1, 2):
        await world.post(f"/api/runs/{run_id}/suspend")
        answer = await world.post(f"/api/runs/{run_id}/resume", {})
        assert (answer.status, answer.json["status"]) == (202, "running")
        assert world.engine.events[-1] == (run_id, f"resume.{number}")
    assert await audited(world) == ["run.submitted", *["run.suspended", "run.resumed"] * 2]
    assert (await kinds(world, run_id)).count("run.resumed") == 2


async def test_a_client_of_durable_functions_sends_no_body(world: World) -> None:
    run_id = await planned(world)
    await world.post(f"/api/runs/{run_id}/suspend")
    answer = await world.send("POST", f"/api/runs/{run_id}/resume", body=b"", token=world.token("contoso"), headers={})
    assert answer.status == 202


async def test_a_run_that_was_suspended_before_it_had_a_plan_is_planned_afterwards(world: World) -> None:
    run_id = await world.submitted()
    await world.post(f"/api/runs/{run_id}/suspend")
    assert (await world.post(f"/api/runs/{run_id}/resume", {})).json["status"] == "accepted"


async def test_a_run_that_never_started_is_started_by_its_resumption(world: World) -> None:
    world.engine.down = True
    run_id = await world.submitted()
    await world.post(f"/api/runs/{run_id}/suspend")
    world.engine.down = False
    await world.post(f"/api/runs/{run_id}/resume", {})
    assert list(world.engine.instances) == [run_id]


async def test_the_store_is_the_truth_when_the_engine_cannot_be_told(world: World) -> None:
    run_id = await planned(world)
    await world.post(f"/api/runs/{run_id}/suspend")
    world.engine.down = True
    answer = await world.post(f"/api/runs/{run_id}/resume", {})
    assert answer.code == "engine.unavailable"
    assert (await run_of(world, run_id)).status is RunStatus.RUNNING


@pytest.mark.parametrize(
    ("status", "verb", "code"),
    [
        (RunStatus.RUNNING, "resume", "run.not_suspended"),
        (RunStatus.CANCELLING, "suspend", "run.cancelling"),
        (RunStatus.CANCELLING, "resume", "run.cancelling"),
        (RunStatus.SUCCEEDED, "suspend", "run.finished"),
        (RunStatus.SUCCEEDED, "resume", "run.finished"),
        (RunStatus.SUCCEEDED, "terminate", "run.finished"),
    ],
)
async def test_what_cannot_be_done_now_is_refused(world: World, status: RunStatus, verb: str, code: str) -> None:
    run_id = await finished(world) if status.is_final else await planned(world)
    if not status.is_final:
        await change(world, run_id, status=status)
    answer = await world.post(f"/api/runs/{run_id}/{verb}", {})
    assert (answer.status, answer.code) == (409, code)
    assert (await run_of(world, run_id)).status is status


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"max_cost_micro_usd": 10**9}, "budget.out_of_bounds", "/max_cost_micro_usd"),
        ({"max_cost_micro_usd": 900}, "budget.not_raised", "/max_cost_micro_usd"),
        ({"max_cost_micro_usd": 0}, "request.invalid", None),
        ({"max_cost_micro_usd": "9"}, "request.invalid", None),
        ({"budget": 9}, "request.invalid", None),
    ],
)
async def test_a_budget_can_only_be_raised_and_within_the_tenants_bound(
    world: World, body: dict[str, Any], code: str, pointer: str | None
) -> None:
    run_id = await planned(world)
    await world.deps.budgets.open("contoso", run_id, limit_micro_usd=1_000)
    await world.post(f"/api/runs/{run_id}/suspend")
    answer = await world.post(f"/api/runs/{run_id}/resume", body)
    assert (answer.status, answer.code) == (422, code)
    if pointer is not None:
        assert answer.json["errors"][0]["pointer"] == pointer
    state = await world.deps.budgets.state("contoso", run_id)
    assert state is not None
    assert state.limit_micro_usd == 1_000
    assert (await run_of(world, run_id)).status is RunStatus.SUSPENDED


async def test_a_raised_budget_stands_before_the_run_goes_on(world: World) -> None:
    run_id = await planned(world)
    await world.deps.budgets.open("contoso", run_id, limit_micro_usd=1_000)
    await world.post(f"/api/runs/{run_id}/suspend")
    assert (await world.post(f"/api/runs/{run_id}/resume", {"max_cost_micro_usd": 2_000})).status == 202
    state = await world.deps.budgets.state("contoso", run_id)
    assert state is not None
    assert state.limit_micro_usd == 2_000


async def test_a_resumption_that_died_and_is_asked_for_with_another_budget_is_another_record(world: World) -> None:
    run_id = await planned(world)
    await world.deps.budgets.open("contoso", run_id, limit_micro_usd=1_000)
    await world.post(f"/api/runs/{run_id}/suspend")
    change = world.runs.change

    async def fails(*_: Any, **__: Any) -> Any:
        raise LivoaError("store.unavailable", "no", status=503)

    world.runs.change = fails  # type: ignore[method-assign]
    assert (await world.post(f"/api/runs/{run_id}/resume", {"max_cost_micro_usd": 2_000})).status == 503
    world.runs.change = change  # type: ignore[method-assign]
    assert (await world.post(f"/api/runs/{run_id}/resume", {"max_cost_micro_usd": 3_000})).status == 202
    found = await world.audit.read("contoso", after_seq=0, limit=99, run_id=run_id)
    told = [record.body.get("max_cost_micro_usd") for record in found if record.type is AuditType.RUN_RESUMED]
    assert told == [2_000, 3_000]


async def test_terminating_ends_everything_at_once(world: World) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first", status=StepStatus.RUNNING, finished_at=None)
    asked = await world.deps.approvals.request(approval(world.clock.now(), "second", run_id=run_id))
    await world.deps.budgets.open("contoso", run_id, limit_micro_usd=1_000)
    await world.deps.budgets.reserve("contoso", run_id, f"{run_id}/first#1", amount_micro_usd=100)
    answer = await world.post(f"/api/runs/{run_id}/terminate", {})
    assert (answer.status, answer.json["status"]) == (200, "terminated")
    assert answer.json["error"]["code"] == "run.terminated"
    record = await world.runs.get_step("contoso", run_id, "first")
    assert record is not None
    assert (record.status, record.error.code if record.error else "") == (StepStatus.CANCELLED, "run.terminated")
    closed = await world.deps.approvals.get("contoso", run_id, asked.approval_id)
    assert closed is not None
    assert closed.status is ApprovalStatus.VOID
    state = await world.deps.budgets.state("contoso", run_id)
    assert state is not None
    assert state.reserved_micro_usd == 0
    assert world.engine.terminated == [run_id]
    assert (await kinds(world, run_id))[-1] == "run.terminated"
    late = RunChange(status=RunStatus.SUCCEEDED)
    with pytest.raises(Exception, match="stays so"):
        await world.runs.change("contoso", run_id, late)


async def test_a_suspended_run_can_be_cancelled_and_terminated(world: World) -> None:
    for verb, status in (("cancel", "cancelling"), ("terminate", "terminated")):
        run_id = await planned(world)
        await world.post(f"/api/runs/{run_id}/suspend")
        assert (await world.post(f"/api/runs/{run_id}/{verb}", {})).json["status"] == status


async def test_another_persons_run_is_left_alone(world: World) -> None:
    run_id = await planned(world)
    token = world.token("contoso", "bob", (Role.RUNS_SUBMIT,))
    for verb in ("suspend", "resume", "terminate"):
        assert (await world.post(f"/api/runs/{run_id}/{verb}", {}, token=token)).code == "run.not_found"
