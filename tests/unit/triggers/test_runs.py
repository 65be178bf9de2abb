"""Looking at runs and cancelling them: who sees what, and what the answers look like at each stage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.domain.answer import Answer
from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.base import iso_utc
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.principal import Role
from engine.domain.run import ErrorInfo, StepRecord
from engine.domain.status import DURABLE_STATUS, RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.unit.identity.tokens import NOW
from tests.unit.triggers.world import PLAN, World
from triggers.timer_sweep import sweep

ANSWER = Answer(goal="Say it", summary="hello hello")
SUBMIT_ONLY = (Role.RUNS_SUBMIT,)
READ_ONLY = (Role.RUNS_READ,)
PARTS = ["", "/status", "/plan", "/steps", "/steps/first/output", "/events"]


async def change(world: World, run_id: str, **fields: Any) -> None:
    await world.runs.change("contoso", run_id, RunChange(**fields))


async def planned(world: World) -> str:
    run_id = await world.submitted()
    ref = await world.payloads.put("contoso", run_id, json.dumps(PLAN).encode())
    await change(world, run_id, status=RunStatus.RUNNING, plan_ref=ref, plan_hash="a" * 64, plan_version=1)
    return run_id


async def finished(world: World, status: RunStatus = RunStatus.SUCCEEDED, *, step_id: str | None = None) -> str:
    run_id = await planned(world)
    if step_id is not None:
        await put_step(world, run_id, step_id, b"{}")
    ref = await world.payloads.put("contoso", run_id, ANSWER.model_dump_json().encode())
    done = RunChange(status=status, answer_ref=ref, finished_at=NOW)
    await world.runs.change("contoso", run_id, done, [new_event(EventType.RUN_SUCCEEDED, RunEventData())])
    return run_id


async def put_step(world: World, run_id: str, step_id: str, output: bytes | None = None, **more: Any) -> None:
    media_type = more.pop("media_type", "application/json")
    ref = await world.payloads.put("contoso", run_id, output, media_type) if output is not None else None
    fields = {"status": StepStatus.SUCCEEDED, "output_ref": ref, "started_at": NOW, "finished_at": NOW} | more
    assert await world.runs.put_step(StepRecord(tenant_id="contoso", run_id=run_id, step_id=step_id, **fields))


# -- who sees what


@pytest.mark.parametrize("part", PARTS)
async def test_another_tenants_run_does_not_exist(world: World, part: str) -> None:
    run_id = await finished(world)
    theirs = await world.get(f"/api/runs/{run_id}{part}", token=world.token("fabrikam"))
    missing = await world.get(f"/api/runs/run-none{part}", token=world.token("fabrikam"))

    assert (theirs.status, theirs.code) == (404, "run.not_found")
    assert theirs.body.replace(run_id.encode(), b"") == missing.body.replace(b"run-none", b"")


async def test_another_tenants_run_cannot_be_cancelled_or_listed(world: World) -> None:
    run_id = await planned(world)
    token = world.token("fabrikam")

    assert (await world.post(f"/api/runs/{run_id}/cancel", token=token)).code == "run.not_found"
    assert (await world.get("/api/runs", token=token)).json == {"runs": [], "next_cursor": None}
    assert world.engine.events == []


@pytest.mark.parametrize("part", PARTS)
async def test_who_may_only_submit_sees_only_their_own(world: World, part: str) -> None:
    run_id = await finished(world, step_id="first")

    assert (await world.get(f"/api/runs/{run_id}{part}", token=world.token(roles=SUBMIT_ONLY))).status == 200
    bo = world.token(user="bo", roles=SUBMIT_ONLY)
    assert (await world.get(f"/api/runs/{run_id}{part}", token=bo)).code == "run.not_found"
    assert (await world.get("/api/runs", token=bo)).json["runs"] == []
    reader = world.token(user="bo", roles=READ_ONLY)
    assert (await world.get(f"/api/runs/{run_id}{part}", token=reader)).status == 200


@pytest.mark.parametrize("roles", [(), (Role.RUNS_APPROVE, Role.AUDIT_READ, Role.AGENT_EXECUTE)])
@pytest.mark.parametrize("part", PARTS)
async def test_without_a_role_for_runs_nothing_is_said_about_them(
    world: World, part: str, roles: tuple[Role, ...]
) -> None:
    token = world.token(roles=roles)
    run_id = await finished(world)
    for target in (f"/api/runs/{run_id}{part}", f"/api/runs/run-none{part}"):
        assert (await world.get(target, token=token)).code == "auth.role_missing"


@pytest.mark.parametrize("run_id", ["%00", "a" * 101, "..", "run 1", "run-1#x", "рун"])
@pytest.mark.parametrize("part", PARTS)
async def test_a_run_id_outside_the_alphabet_does_not_exist(world: World, run_id: str, part: str) -> None:
    answer = await world.get(f"/api/runs/{run_id.split('#')[0]}{part}")
    assert (answer.status, answer.code) == (404, "run.not_found")


# -- looking


async def test_a_run_shows_its_answer_when_there_is_one(world: World) -> None:
    run_id = await planned(world)
    assert (await world.get(f"/api/runs/{run_id}")).json["answer"] is None
    done = (await world.get(f"/api/runs/{await finished(world)}")).json
    assert (done["status"], done["answer"]["summary"], done["plan_version"]) == ("succeeded", "hello hello", 1)
    assert done["finished_at"] == "2026-11-22T12:00:00Z"


@pytest.mark.parametrize("status", RunStatus)
async def test_the_status_query_has_the_durable_shape(world: World, status: RunStatus) -> None:
    run_id = await world.submitted()
    if status is not RunStatus.ACCEPTED:
        await change(world, run_id, status=status, error=ErrorInfo(code="plan.no_capability", message="no"))
    answer = await world.get(f"/api/runs/{run_id}/status")

    assert answer.status == (200 if status.is_final else 202)
    assert ("location" in answer.headers, "retry-after" in answer.headers) == (not status.is_final,) * 2
    body = answer.json
    assert list(body) == [
        "name", "instanceId", "runtimeStatus", "input", "customStatus", "output", "createdTime", "lastUpdatedTime",
    ]  # fmt: skip
    assert (body["name"], body["instanceId"], body["input"]) == ("run_orchestrator", run_id, {"run_id": run_id})
    assert body["runtimeStatus"] == DURABLE_STATUS[status]
    assert body["customStatus"]["status"] == status.value
    assert body["output"] == ({"code": "plan.no_capability", "message": "no"} if status.is_final else None)
    assert body["createdTime"] == "2026-11-22T12:00:00Z"


async def test_the_answer_is_the_output_of_a_run_that_is_over(world: World) -> None:
    for status in (RunStatus.SUCCEEDED, RunStatus.PARTIAL):
        body = (await world.get(f"/api/runs/{await finished(world, status)}/status")).json
        assert body["output"]["summary"] == "hello hello"


async def test_runs_are_listed_in_pages_newest_first(world: World) -> None:
    ids = []
    for _ in range(5):
        ids.append(await world.submitted())
        world.clock.pass_s(1)
    seen: list[str] = []
    target = "/api/runs?limit=2"
    while True:
        page = (await world.get(target)).json
        seen += [run["run_id"] for run in page["runs"]]
        if page["next_cursor"] is None:
            break
        target = f"/api/runs?limit=2&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


async def test_a_list_can_be_confined_to_a_status(world: World) -> None:
    done, _ = await finished(world), await planned(world)
    page = (await world.get("/api/runs?status=succeeded")).json
    assert [run["run_id"] for run in page["runs"]] == [done]


async def test_a_list_and_the_counts_can_be_confined_to_a_time(world: World) -> None:
    first = await world.submitted()
    world.clock.pass_s(60)
    at = iso_utc(world.clock.now())
    second = await world.submitted()
    for target, ids in ((f"since={at}", [second]), (f"until={at}", [first]), (f"since={at}&until={at}", [])):
        assert [run["run_id"] for run in (await world.get(f"/api/runs?{target}")).json["runs"]] == ids
        counts = (await world.get(f"/api/run-counts?{target}")).json
        assert (counts["total"], counts["by_status"]["accepted"], counts["is_complete"]) == (len(ids), len(ids), True)
    with_offset = at.replace("Z", "%2B00:00")
    assert len((await world.get(f"/api/runs?since={with_offset}")).json["runs"]) == 1


async def test_the_counts_are_of_ones_own_tenant_and_not_for_those_who_see_only_their_own_runs(world: World) -> None:
    await world.submitted()
    assert (await world.get("/api/run-counts", token=world.token("fabrikam"))).json["total"] == 0
    answer = await world.get("/api/run-counts", token=world.token("contoso", roles=(Role.RUNS_SUBMIT,)))
    assert (answer.status, answer.code) == (403, "auth.role_missing")


async def test_a_cursor_of_another_tenant_is_refused(world: World) -> None:
    for _ in range(2):
        await world.submitted()
        world.clock.pass_s(1)
    cursor = (await world.get("/api/runs?limit=1")).json["next_cursor"]
    answer = await world.get(f"/api/runs?limit=1&cursor={cursor}", token=world.token("fabrikam"))
    assert (answer.status, answer.code) == (400, "cursor.invalid")


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/api/runs?limit=0", "query.invalid"),
        ("/api/runs?limit=201", "query.invalid"),
        ("/api/runs?limit=-1", "query.invalid"),
        ("/api/runs?limit=1e2", "query.invalid"),
        ("/api/runs?limit=%D9%A1", "query.invalid"),
        ("/api/runs?limit=", "query.invalid"),
        ("/api/runs?limit=" + "9" * 5_000, "query.invalid"),
        ("/api/runs?status=done", "query.invalid"),
        ("/api/runs?since=yesterday", "query.invalid"),
        ("/api/runs?since=2026-11-29T10:00:00", "query.invalid"),
        ("/api/runs?until=0001-01-01T00:00:00%2B23:00", "query.invalid"),
        ("/api/run-counts?until=" + "9" * 5_000, "query.invalid"),
        ("/api/runs?status=", "query.invalid"),
        ("/api/runs?cursor=x", "cursor.invalid"),
        ("/api/runs?cursor=", "cursor.invalid"),
    ],
)
async def test_a_bad_query_is_refused(world: World, target: str, code: str) -> None:
    answer = await world.get(target)
    assert (answer.status, answer.code) == (400, code)


async def test_a_plan_is_shown_once_there_is_one(world: World) -> None:
    assert (await world.get(f"/api/runs/{await world.submitted()}/plan")).code == "plan.not_found"

    answer = await world.get(f"/api/runs/{await planned(world)}/plan")
    assert (answer.json["plan"], answer.json["plan_hash"]) == (PLAN, "a" * 64)
    assert answer.headers["etag"] == f'"{"a" * 64}"'


async def test_every_step_of_the_plan_is_listed_in_its_order(world: World) -> None:
    assert (await world.get(f"/api/runs/{await world.submitted()}/steps")).json["steps"] == []
    run_id = await planned(world)
    await put_step(world, run_id, "second", b'"x"', capability="test.echo", attempt=2, cost_micro_usd=7)

    first, second = (await world.get(f"/api/runs/{run_id}/steps")).json["steps"]
    assert (first["id"], first["status"], first["capability"], first["output"]) == (
        "first",
        "pending",
        "test.echo",
        None,
    )
    assert (second["id"], second["status"], second["attempt"], second["duration_ms"]) == ("second", "succeeded", 2, 0)
    assert second["output"] == f"/api/runs/{run_id}/steps/second/output"


async def test_the_undoing_of_a_step_is_listed_behind_it(world: World) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first.undo", b'"x"', capability="test.undo")

    steps = (await world.get(f"/api/runs/{run_id}/steps")).json["steps"]
    told = [(step["id"], step["status"], step["capability"], step["output"]) for step in steps[:2]]
    assert told == [("first", "pending", "test.echo", None), ("first.undo", "succeeded", "test.undo", None)]
    assert [step["id"] for step in steps] == ["first", "first.undo", "second"]


async def test_an_output_is_given_as_it_was_stored(world: World) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first", b'{"text": "hi" }')
    await put_step(world, run_id, "second", b"[1]", item=1, kind="map")

    whole = await world.get(f"/api/runs/{run_id}/steps/first/output")
    assert (whole.status, whole.body, whole.headers["content-type"]) == (200, b'{"text": "hi" }', "application/json")
    assert (await world.get(f"/api/runs/{run_id}/steps/second/output?item=1")).body == b"[1]"


async def test_an_item_that_never_was_is_unknown_once_the_run_is_over(world: World) -> None:
    run_id = await finished(world, step_id="first")
    answer = await world.get(f"/api/runs/{run_id}/steps/first/output?item=99")
    assert (answer.status, answer.code) == (422, "step.item_unknown")


async def test_an_output_that_a_browser_would_render_is_not_named_as_such(world: World) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first", b"<script>", media_type="text/html")
    answer = await world.get(f"/api/runs/{run_id}/steps/first/output")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("steps/third/output", 422, "step.unknown"),
        ("steps/%20/output", 422, "step.unknown"),
        ("steps/second/output", 409, "step.no_output"),
        ("steps/first/output", 409, "step.no_output"),
        ("steps/second/output?item=3", 409, "step.no_output"),
        ("steps/second/output?item=x", 400, "query.invalid"),
    ],
)
async def test_an_output_that_is_not_there_says_why(world: World, target: str, status: int, code: str) -> None:
    run_id = await planned(world)
    await put_step(world, run_id, "first", status=StepStatus.FAILED, error=ErrorInfo(code="x", message="y"))
    answer = await world.get(f"/api/runs/{run_id}/{target}")
    assert (answer.status, answer.code) == (status, code)


# -- cancelling


async def test_cancelling_is_recorded_and_wakes_the_orchestration(world: World) -> None:
    run_id = await planned(world)
    answer = await world.post(f"/api/runs/{run_id}/cancel")

    assert (answer.status, answer.json["status"]) == (202, "cancelling")
    assert world.engine.events == [(run_id, "cancel")]
    records = await world.audit.read("contoso", after_seq=0, limit=9)
    assert [record.type for record in records] == ["run.submitted", "run.cancel_requested"]


async def test_cancelling_twice_is_one_fact(world: World) -> None:
    run_id = await planned(world)
    for _ in range(2):
        assert (await world.post(f"/api/runs/{run_id}/cancel")).status == 202
    assert len(await world.audit.read("contoso", after_seq=0, limit=9)) == 2


async def test_a_run_that_is_over_cannot_be_cancelled(world: World) -> None:
    answer = await world.post(f"/api/runs/{await finished(world)}/cancel")
    assert (answer.status, answer.code) == (409, "run.finished")
    assert world.engine.events == []


async def test_a_run_that_ends_while_it_is_being_cancelled_stays_as_it_ended(world: World) -> None:
    run_id = await planned(world)

    class Finishing:
        """The run ends between the look at it and the record of the cancel."""

        async def append(self, entry: AuditEntry) -> AuditRecord:
            await change(world, run_id, status=RunStatus.SUCCEEDED)
            return await world.audit.append(entry)

    world.with_deps(audit=Finishing())
    answer = await world.post(f"/api/runs/{run_id}/cancel")
    assert (answer.status, answer.code) == (409, "run.finished")
    assert (await world.get(f"/api/runs/{run_id}")).json["status"] == "succeeded"
    assert world.engine.events == []


async def test_a_run_that_never_started_is_started_so_that_it_can_end(world: World) -> None:
    world.engine.down = True
    run_id = await world.submitted()
    world.engine.down = False

    assert (await world.post(f"/api/runs/{run_id}/cancel")).json["status"] == "cancelling"
    assert list(world.engine.instances) == [run_id]


async def test_a_run_that_a_full_engine_refuses_is_accepted_and_started_later(world: World) -> None:
    world.engine.full = True
    run_id = await world.submitted()
    world.clock.pass_s(15)
    report = await sweep(world.deps, world.engine)
    assert (report.started, report.failed) == (0, 1)
    assert (await world.get(f"/api/runs/{run_id}")).json["status"] == "accepted"
    world.engine.full = False
    assert (await sweep(world.deps, world.engine)).started == 1
    assert list(world.engine.instances) == [run_id]
    assert (await sweep(world.deps, world.engine)).started == 0


async def test_a_lost_wake_up_is_made_up_for_by_the_sweep_for_a_while(world: World) -> None:
    run_id = await planned(world)
    world.engine.down = True
    assert (await world.post(f"/api/runs/{run_id}/cancel")).code == "engine.unavailable"
    world.engine.down = False
    world.clock.pass_s(15)

    assert (await sweep(world.deps, world.engine)).reminded == 1
    assert world.engine.events == [(run_id, "cancel")]
    world.clock.pass_s(120)
    assert (await sweep(world.deps, world.engine)).reminded == 0


async def test_reading_is_not_cancelling(world: World) -> None:
    run_id = await planned(world)
    for token in (world.token(roles=READ_ONLY), world.token(user="bo", roles=SUBMIT_ONLY)):
        assert (await world.post(f"/api/runs/{run_id}/cancel", token=token)).status in {403, 404}
    assert world.engine.events == []


async def test_a_cancel_that_cannot_be_recorded_is_not_done(world: World) -> None:
    run_id = await planned(world)

    class Broken:
        async def append(self, entry: object) -> None:
            raise OSError

    world.with_deps(audit=Broken())
    assert (await world.post(f"/api/runs/{run_id}/cancel")).code == "audit.unavailable"
    assert (await world.get(f"/api/runs/{run_id}")).json["status"] == "running"
