"""Another tenant at every door: with ids, cursors, keys and positions that exist, it finds what it would find if they did not.

The doors are read off the list of endpoints, so that a new route is tried without being thought of; a placeholder that nobody has
given a value here fails.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.adapters.circuits import EntityCircuits
from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner
from engine.adapters.memory import MemoryTenantDirectory
from engine.domain.answer import Answer
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.principal import Role
from engine.domain.run import StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.domain.tenant import BreakerRules
from engine.evidence.checkpoints import Checkpointer
from engine.identity import WithDevelopmentIssuer
from engine.ports.entities import NoEntities
from engine.ports.planner import Route
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import approval
from tests.unit.identity.tokens import NOW
from tests.unit.triggers.world import INTENT, PLAN, Answered, World
from tests.unit.triggers.world import tenant as page_of
from triggers.endpoint import Endpoint
from triggers.openapi import all_endpoints

SECRET = "paid-search-4711"
EVERY_ROLE = tuple(Role)
PLACEHOLDER = re.compile(r"\{(\w+)\}")
ABSENT = {"run_id": "run-none", "step_id": "none", "tenant": "nobody", "subject": "none", "approval_id": "none",
          "sha256": "0" * 64}  # fmt: skip
REPLIES: dict[str, Any] = {"answer_approval": {"decision": "approve"}}
"""Bodies of routes that look at the body before they look for what it is about."""

WITH_ID = [e for e in all_endpoints() if isinstance(e, Endpoint) and PLACEHOLDER.search(e.path)]
WITHOUT_ID = {
    "submit_run",
    "count_runs",
    "list_runs",
    "check_plan",
    "route_intent",
    "health_ready",
    "list_pending_approvals",
    "list_breakers",
    "get_quota",
    "list_audit",
    "make_checkpoint",
    "list_checkpoints",
    "run_retention",
}
"""Routes of the caller's own tenant alone; each is tried below."""


async def filled(world: World) -> dict[str, str]:
    """A finished run of contoso with a plan, an output, an answer and events; the values its routes are made of."""
    run_id = await world.submitted({"intent": f"Say {SECRET}"}, headers={"idempotency-key": "key-1"})
    payloads = world.payloads
    plan = await payloads.put("contoso", run_id, json.dumps(PLAN | {"goal": SECRET}).encode())
    output = await payloads.put("contoso", run_id, json.dumps({"text": SECRET}).encode())
    answer = await payloads.put("contoso", run_id, Answer(goal=SECRET, summary=SECRET).model_dump_json().encode())
    step = StepRecord(
        tenant_id="contoso", run_id=run_id, step_id="first", status=StepStatus.SUCCEEDED, output_ref=output,
        started_at=NOW, finished_at=NOW,
    )  # fmt: skip
    planned = RunChange(status=RunStatus.RUNNING, plan_ref=plan, plan_hash="a" * 64, plan_version=1)
    await world.runs.change("contoso", run_id, planned)
    assert await world.runs.put_step(step)
    asked = await world.deps.approvals.request(approval(world.clock.now(), "second", run_id=run_id))
    done = RunChange(status=RunStatus.SUCCEEDED, answer_ref=answer, finished_at=NOW)
    await world.runs.change("contoso", run_id, done, [new_event(EventType.RUN_SUCCEEDED, RunEventData())])
    return {
        "run_id": run_id,
        "step_id": "first",
        "tenant": "contoso",
        "subject": "second",
        "approval_id": asked.approval_id,
        "sha256": (await world.runs.get("contoso", run_id)).request_ref.sha256,  # type: ignore[union-attr]
    }


def target(endpoint: Endpoint, values: dict[str, str]) -> str:
    return "/api/" + PLACEHOLDER.sub(lambda found: values[found[1]], endpoint.path)


async def ask(world: World, endpoint: Endpoint, values: dict[str, str], tenant: str, **headers: str) -> Answered:
    body = b"" if endpoint.method == "GET" else json.dumps(REPLIES.get(endpoint.name, {})).encode()
    token = world.token(tenant, "eve", EVERY_ROLE)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await world.send(endpoint.method, target(endpoint, values), token=token, body=body, headers=sent)


def without(answer: Answered, values: dict[str, str]) -> str:
    """The answer with the ids that were asked for taken out."""
    text = answer.body.decode()
    for value in sorted(values.values(), key=len, reverse=True):
        text = text.replace(value, "")
    return text


def test_every_placeholder_has_a_value_and_every_other_route_a_test() -> None:
    names = {name for endpoint in WITH_ID for name in PLACEHOLDER.findall(endpoint.path)}
    assert names <= set(ABSENT), "a new kind of id: give it a value that exists and one that does not"
    others = {e.name for e in all_endpoints() if isinstance(e, Endpoint) and not PLACEHOLDER.search(e.path)}
    assert others == WITHOUT_ID, "a new route without an id: say how it is kept to its tenant"


@pytest.mark.parametrize("endpoint", WITH_ID, ids=lambda endpoint: endpoint.name)
async def test_what_is_another_tenants_does_not_exist(world: World, endpoint: Endpoint) -> None:
    values = await filled(world)
    before = (len(world.engine.events), world.engine.starts, await world.runs.get("contoso", values["run_id"]))
    named = PLACEHOLDER.findall(endpoint.path)
    theirs = await ask(world, endpoint, values, "fabrikam")
    absent_values = {name: ABSENT[name] if name in named[:1] else values[name] for name in values}
    absent = await ask(world, endpoint, absent_values, "fabrikam")

    assert (theirs.status, theirs.code) == (404, absent.code), theirs.body
    assert without(theirs, {name: values[name] for name in named}) == without(
        absent, {name: absent_values[name] for name in named}
    )
    assert dict(theirs.headers) == dict(absent.headers)
    assert SECRET.encode() not in theirs.body
    assert (len(world.engine.events), world.engine.starts, await world.runs.get("contoso", values["run_id"])) == before
    assert values["run_id"] not in json.dumps(
        [r.body for r in await world.audit.read("fabrikam", after_seq=0, limit=99)]
    )


@pytest.mark.parametrize("endpoint", WITH_ID, ids=lambda endpoint: endpoint.name)
async def test_it_costs_as_many_questions_as_what_is_not_there(world: World, endpoint: Endpoint) -> None:
    """The same look-ups in the same order, so that the time taken tells nothing either."""
    values = await filled(world)
    asked: list[str] = []

    class Counting:
        def __init__(self, name: str, inner: Any) -> None:
            self._name, self._inner = name, inner

        def __getattr__(self, name: str) -> Any:
            asked.append(f"{self._name}.{name}")
            return getattr(self._inner, name)

    ports = ("runs", "events", "payloads", "audit", "approvals", "tenant_configs", "budgets")
    world.with_deps(**{name: Counting(name, getattr(world.deps, name)) for name in ports})
    await ask(world, endpoint, values, "fabrikam")
    theirs, asked[:] = list(asked), []
    first = PLACEHOLDER.findall(endpoint.path)[0]
    await ask(world, endpoint, values | {first: ABSENT[first]}, "fabrikam")
    assert theirs == asked
    assert not any(name.startswith("payloads.") for name in theirs)


@pytest.mark.parametrize("endpoint", [e for e in WITH_ID if "{run_id}" in e.path], ids=lambda endpoint: endpoint.name)
async def test_a_store_that_answers_the_wrong_tenant_is_not_believed(world: World, endpoint: Endpoint) -> None:
    values, runs = await filled(world), world.deps.runs

    class Leaking:
        async def get(self, tenant_id: str, run_id: str) -> Any:
            return await runs.get("contoso", run_id)

        def __getattr__(self, name: str) -> Any:
            return getattr(runs, name)

    world.with_deps(runs=Leaking())
    answer = await ask(world, endpoint, values, "fabrikam")
    assert (answer.status, answer.code) == (404, "run.not_found")


@pytest.mark.parametrize("position", ["0", "1", "2", "99"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_no_position_opens_another_tenants_stream(world: World, position: str, accept: str) -> None:
    values = await filled(world)
    (events,) = (endpoint for endpoint in WITH_ID if endpoint.name == "list_run_events")
    answer = await ask(world, events, values, "fabrikam", last_event_id=position, accept=accept)
    assert (answer.status, answer.code) == (404, "run.not_found")


async def test_a_cursor_of_another_tenant_opens_nothing(world: World) -> None:
    for _ in range(3):
        await world.submitted()
        world.clock.pass_s(1)
    cursor = (await world.get("/api/runs?limit=1")).json["next_cursor"]
    answer = await world.get(f"/api/runs?limit=1&cursor={cursor}", token=world.token("fabrikam", roles=EVERY_ROLE))
    assert (answer.status, answer.code) == (400, "cursor.invalid")


async def test_retention_goes_through_the_callers_tenant_only(world: World) -> None:
    values = await filled(world)
    world.clock.pass_s(4_000 * 86_400)
    for tenant, runs in (("fabrikam", 0), ("contoso", 1)):
        answer = await world.post("/api/retention", b'{"dry_run": true}', token=world.token(tenant, "eve", EVERY_ROLE))
        assert (answer.json["tenant_id"], answer.json["runs"]) == (tenant, runs)
    assert await world.runs.get("contoso", values["run_id"]) is not None


async def test_a_list_holds_the_callers_tenant_only(world: World) -> None:
    await filled(world)
    answer = await world.get("/api/runs", token=world.token("fabrikam", roles=EVERY_ROLE))
    assert answer.json == {"runs": [], "next_cursor": None}


async def test_what_waits_for_people_is_shown_to_those_of_the_tenant_only(world: World) -> None:
    run_id = await world.submitted()
    await world.runs.change("contoso", run_id, RunChange(status=RunStatus.RUNNING))
    await world.deps.approvals.request(approval(world.clock.now(), "second", run_id=run_id))
    for tenant, count in (("contoso", 1), ("fabrikam", 0)):
        answer = await world.get("/api/approvals", token=world.token(tenant, "bo", EVERY_ROLE))
        assert (answer.status, len(answer.json["approvals"])) == (200, count)


async def test_another_tenants_idempotency_key_is_a_key_like_any_other(world: World) -> None:
    values = await filled(world)
    body = {"intent": f"Say {SECRET}"}
    answer = await world.post("/api/runs", body, token=world.token("fabrikam"), headers={"idempotency-key": "key-1"})
    assert answer.status == 202
    assert answer.json["run_id"] != values["run_id"]
    other = await world.post(
        "/api/runs", INTENT, token=world.token("fabrikam", "bo"), headers={"idempotency-key": "key-1"}
    )
    assert other.status == 202, "neither a match nor a mismatch: nothing tells that the key is in use elsewhere"


async def test_a_request_cannot_say_for_which_tenant_it_is(world: World) -> None:
    token = world.token("fabrikam")
    for more in ({"tenant_id": "contoso"}, {"tenant": "contoso"}, {"principal": {"tenant_id": "contoso"}}):
        assert (await world.post("/api/runs", INTENT | more, token=token)).code == "request.invalid"
    headers = {"x-tenant-id": "contoso", "x-ms-client-principal-id": "ana"}
    run_id = await world.submitted(token=token, headers=headers)
    assert await world.runs.get("contoso", run_id) is None
    assert await world.runs.get("fabrikam", run_id) is not None


async def test_an_intent_is_routed_for_the_callers_own_tenant(world: World) -> None:
    asked: list[str] = []

    class Planner:
        async def route(self, task: Any) -> Route:
            asked.append(task.tenant.tenant_id)
            return Route("", (), False, 0.0, "lexical")

    world.with_deps(planner=Planner())
    assert (await world.post("/api/route", INTENT, token=world.token("fabrikam"))).status == 200
    assert asked == ["fabrikam"]


async def test_a_plan_is_checked_by_the_callers_own_configuration(world: World) -> None:
    theirs = world.deps.tenants
    own = await theirs.get("fabrikam")
    assert own is not None

    class Confined:
        async def get(self, tenant_id: str) -> Any:
            found = await theirs.get(tenant_id)
            return found.model_copy(update={"enabled_capabilities": ()}) if tenant_id == "fabrikam" and found else found

        def __getattr__(self, name: str) -> Any:
            return getattr(theirs, name)

    world.with_deps(tenants=Confined())
    assert (await world.post("/api/plans", PLAN)).json["ok"] is True
    assert (await world.post("/api/plans", PLAN, token=world.token("fabrikam"))).json["ok"] is False


async def test_readiness_says_nothing_about_anybody(world: World) -> None:
    await filled(world)
    answer = await world.get("/api/health/ready", token=world.token("fabrikam"))
    assert b"contoso" not in answer.body
    assert SECRET.encode() not in answer.body


@pytest.fixture
def world() -> World:
    return World()


async def test_circuits_and_quotas_are_read_under_the_callers_own_tenant_only(world: World) -> None:
    asked: list[tuple[str, str]] = []

    class Watching(NoEntities):
        async def read(self, name: str, key: str) -> None:
            asked.append((name, key))

    own = page_of("fabrikam", breaker=BreakerRules(min_calls=3))
    entities = Watching()
    circuits = EntityCircuits(entities, world.clock, world.telemetry)
    directory = WithDevelopmentIssuer(MemoryTenantDirectory([page_of("contoso"), own]), environment="local")
    world.with_deps(entities=entities, circuits=circuits, tenants=directory)
    token = world.token("fabrikam", "eve", EVERY_ROLE)
    assert (await world.get("/api/breakers?tenant=contoso", token=token)).status == 200
    assert (await world.get("/api/quota?tenant=contoso", token=token)).json["running"] == 0
    assert asked == [("circuit_breaker", "test.echo--any--fabrikam"), ("tenant_quota", "fabrikam")]


async def test_an_auditor_sees_the_own_tenants_chain_only(world: World) -> None:
    values = await filled(world)
    answer = await world.get("/api/audit", token=world.token("fabrikam", roles=EVERY_ROLE))
    assert [record["type"] for record in answer.json["records"]] == ["audit.read"]
    assert values["run_id"] not in answer.body.decode()


async def test_an_auditor_makes_and_sees_checkpoints_of_the_own_chain_only(world: World, tmp_path: Path) -> None:
    await filled(world)
    signer = FileSigner(tmp_path / "key.pem", create=True)
    world.with_deps(checkpoints=Checkpointer(world.audit, FilesAnchors(tmp_path / "anchors"), signer, world.clock))
    ours, theirs = (world.token(tenant, roles=EVERY_ROLE) for tenant in ("contoso", "fabrikam"))
    assert (await world.post("/api/audit/checkpoints", token=ours)).json["tenant_id"] == "contoso"
    assert (await world.post("/api/audit/checkpoints?tenant=contoso", token=theirs)).status == 409
    assert (await world.get("/api/audit/checkpoints", token=theirs)).json["checkpoints"] == []
