"""Doing a run again over HTTP: what the new run is, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.domain.run import PlanProvenance
from engine.domain.status import RunStatus
from tests.unit.triggers.test_runs import change, finished, planned
from tests.unit.triggers.world import World

MADE = PlanProvenance(source="model", model="gpt-4o", seen_integrity=0)


async def done(world: World) -> str:
    run_id = await planned(world)
    await change(world, run_id, provenance=MADE)
    await change(world, run_id, status=RunStatus.PARTIAL, finished_at=world.clock.now())
    return run_id


async def test_a_rerun_is_a_run_of_its_own_with_the_plan_and_the_provenance_of_the_first(world: World) -> None:
    parent_id = await done(world)
    answer = await world.post(f"/api/runs/{parent_id}/rerun", {"from": "first"})
    assert answer.status == 202, answer.body
    parent, run = await world.runs.get("contoso", parent_id), await world.runs.get("contoso", answer.json["run_id"])
    assert parent is not None
    assert run is not None
    assert (run.parent_run_id, run.rerun_from, run.status) == (parent_id, "first", RunStatus.ACCEPTED)
    assert (run.plan_hash, run.plan_version, run.provenance) == (parent.plan_hash, 0, MADE)
    assert run.plan_ref is not None
    assert await world.payloads.get("contoso", run.run_id, run.plan_ref)
    assert run.run_id in world.engine.instances
    view = await world.get(f"/api/runs/{run.run_id}")
    assert (view.json["parent_run_id"], view.json["rerun_from"]) == (parent_id, "first")


async def test_the_same_key_is_the_same_rerun_and_another_request_under_it_is_refused(world: World) -> None:
    parent_id = await done(world)
    key = {"idempotency-key": "again-1"}
    first = await world.post(f"/api/runs/{parent_id}/rerun", {}, headers=key)
    second = await world.post(f"/api/runs/{parent_id}/rerun", {}, headers=key)
    assert first.json["run_id"] == second.json["run_id"]
    other = await world.post(f"/api/runs/{parent_id}/rerun", {"from": "first"}, headers=key)
    assert (other.status, other.code) == (422, "idempotency.mismatch")
    submission = await world.post("/api/runs", {"intent": "Say it"}, headers=key)
    assert (submission.status, submission.code) == (422, "idempotency.mismatch")
    run = await world.runs.get("contoso", first.json["run_id"])
    assert run is not None
    same = json.loads(await world.payloads.get("contoso", run.run_id, run.request_ref))
    submission = await world.post("/api/runs", same, headers=key)
    assert (submission.status, submission.code) == (422, "idempotency.mismatch"), (
        "what its parent asked for is no rerun"
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"from": "none"}, 422, "step.unknown"),
        ({"from": 5}, 422, "request.invalid"),
        ({"step": "first"}, 422, "request.invalid"),
    ],
)
async def test_what_cannot_be_done_again_is_refused(world: World, body: Any, status: int, code: str) -> None:
    answer = await world.post(f"/api/runs/{await done(world)}/rerun", body)
    assert (answer.status, answer.code) == (status, code)


async def test_a_run_that_is_not_over_or_never_had_a_plan_is_not_done_again(world: World) -> None:
    assert (await world.post(f"/api/runs/{await planned(world)}/rerun", {})).code == "run.not_finished"
    run_id = await world.submitted()
    await change(world, run_id, status=RunStatus.FAILED)
    assert (await world.post(f"/api/runs/{run_id}/rerun", {})).code == "run.no_plan"


async def test_another_tenants_run_is_not_done_again(world: World) -> None:
    answer = await world.post(f"/api/runs/{await finished(world)}/rerun", {}, token=world.token("fabrikam"))
    assert answer.code == "run.not_found"
