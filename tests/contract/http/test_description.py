"""The API description and the published schemas: complete, valid, and true of what the API does."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, TypeAdapter

from engine.domain.events import EventType
from engine.domain.execute import EXECUTE_RESPONSE, ExecuteRequest, ExecuteSucceeded
from engine.domain.run import RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from tests.unit.triggers.world import PLAN, World
from triggers import api_examples as examples
from triggers.api_document import DOCS, build_document
from triggers.approval_views import AnswerRequest, ApprovalList, ApprovalView, PendingApprovals
from triggers.endpoint import Endpoint
from triggers.http_admin import VersionList
from triggers.http_limits import BreakerList, QuotaView
from triggers.openapi import all_endpoints
from triggers.plan_views import PlanPreview, RouteView
from triggers.schemas import NAMES, schema
from triggers.views import Accepted, DurableStatus, EventPage, PlanView, RunList, RunSummary, RunView, StepList

HTTP_METHODS = {"get", "post", "put"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(json.dumps(build_document(all_endpoints())))


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {op["operationId"]: op for item in document["paths"].values() for op in item.values()}


def resolved(document: dict[str, Any], shape: dict[str, Any]) -> dict[str, Any]:
    """A schema of the description that stands alone."""
    return {**shape, "components": document["components"]}


def every_reference(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for item in value.values() for ref in every_reference(item)]
    return [ref for item in value for ref in every_reference(item)] if isinstance(value, list) else []


def test_every_endpoint_is_described_and_nothing_else(document: dict[str, Any]) -> None:
    names = [endpoint.name for endpoint in all_endpoints()]
    assert sorted(operations(document)) == sorted(names) == sorted(DOCS)
    assert len(names) == len(set(names))


def test_the_paths_are_the_promised_ones(document: dict[str, Any]) -> None:
    described = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert described == {
        "POST /runs", "GET /runs", "GET /run-counts", "GET /runs/{run_id}",
        "GET /runs/{run_id}/status", "GET /runs/{run_id}/plan",
        "GET /runs/{run_id}/steps", "GET /runs/{run_id}/steps/{step_id}/output", "GET /runs/{run_id}/events",
        "GET /runs/{run_id}/approvals", "POST /runs/{run_id}/approvals/{subject}", "GET /approvals",
        "POST /runs/{run_id}/cancel", "POST /runs/{run_id}/suspend", "POST /runs/{run_id}/resume",
        "POST /runs/{run_id}/terminate", "POST /runs/{run_id}/rerun",
        "POST /plans", "POST /route", "GET /schemas", "GET /schemas/{name}", "GET /health/live",
        "GET /health/ready", "GET /openapi.json", "GET /tenants/{tenant}", "PUT /tenants/{tenant}",
        "GET /tenants/{tenant}/versions", "GET /breakers", "GET /quota", "GET /audit",
        "GET /runs/{run_id}/audit", "POST /audit/checkpoints", "GET /audit/checkpoints",
        "GET /runs/{run_id}/audit/content/{sha256}", "GET /grants/keys",
            "DELETE /runs/{run_id}", "POST /retention", "POST /runs/{run_id}/links", "GET /links/{tenant}/{run_id}/{token}",
    }  # fmt: skip


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in every_reference(document):
        assert reference.startswith("#/components/schemas/")
        assert reference.rsplit("/", 1)[1] in document["components"]["schemas"], reference


def test_every_schema_in_it_is_a_schema(document: dict[str, Any]) -> None:
    for shape in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(shape)


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    checked = 0
    for operation in operations(document).values():
        contents = [answer.get("content", {}) for answer in operation["responses"].values()]
        contents.append(operation.get("requestBody", {}).get("content", {}))
        for content in contents:
            for media in content.values():
                shown = [media["example"]] if "example" in media else [e["value"] for e in media["examples"].values()]
                for example in shown:
                    jsonschema.Draft202012Validator(resolved(document, media["schema"])).validate(example)
                    checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (RunRequest, examples.RUN_REQUEST), (Accepted, examples.ACCEPTED), (RunSummary, examples.RUN_SUMMARY),
        (RunSummary, examples.CANCELLING), (RunView, examples.RUN_VIEW), (RunList, examples.RUN_LIST),
        (DurableStatus, examples.STATUS_RUNNING), (DurableStatus, examples.STATUS_DONE), (PlanView, examples.PLAN_VIEW),
        (StepList, examples.STEP_LIST), (ApprovalList, examples.APPROVAL_LIST), (ApprovalView, examples.APPROVAL),
        (PendingApprovals, examples.PENDING_APPROVALS), (AnswerRequest, examples.ANSWER_APPROVAL),
        (EventPage, examples.EVENT_PAGE), (TenantConfig, examples.TENANT),
        (VersionList, examples.TENANT_VERSIONS),
        (BreakerList, examples.BREAKERS), (QuotaView, examples.QUOTA),
        (PlanPreview, examples.PLAN_PREVIEW), (RouteView, examples.ROUTE),
    ],
)  # fmt: skip
def test_every_example_is_what_its_model_would_say(model: type[BaseModel], example: dict[str, Any]) -> None:
    parsed = TypeAdapter(model).validate_json(json.dumps(example))
    if model is not RunRequest:
        assert parsed.model_dump(mode="json").keys() == example.keys()


def test_every_protected_operation_names_its_refusals(document: dict[str, Any]) -> None:
    for endpoint in all_endpoints():
        operation = operations(document)[endpoint.name]
        if isinstance(endpoint, Endpoint):
            assert operation["security"] == [{"bearer": []}]
            assert {"400", "401", "403", "500", "503"} <= operation["responses"].keys()
        else:
            assert operation["security"] == []


@pytest.mark.parametrize("name", NAMES)
async def test_the_published_schemas_are_schemas(name: str) -> None:
    answer = await World().get(f"/api/schemas/{name}", token=None)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/schema+json")
    assert answer.json["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(answer.json)


async def test_the_schemas_are_listed() -> None:
    listed = (await World().get("/api/schemas", token=None)).json["schemas"]
    assert {entry["name"] for entry in listed} == {"events", "execute", "plan", "problem", "run-request"}


def test_the_events_schema_has_one_entry_for_each_type() -> None:
    titles = [entry["title"] for entry in schema("events")["oneOf"]]
    assert titles == [event_type.value for event_type in EventType]


async def test_what_the_api_answers_fits_what_it_publishes(document: dict[str, Any]) -> None:
    world = World()
    run_id = await world.submitted()
    events = await world.get(f"/api/runs/{run_id}/events", headers={"accept": "application/json"})
    for event in events.json["events"]:
        jsonschema.Draft202012Validator(schema("events")).validate(event)
    refusals = [await world.post("/api/runs", {"goals": 1}), await world.get("/api/runs/none")]
    for refusal in refusals:
        jsonschema.Draft202012Validator(schema("problem")).validate(refusal.json)
    described = operations(document)
    for name, path in {"get_run": "", "get_run_status": "/status", "list_run_steps": "/steps"}.items():
        answer = await world.get(f"/api/runs/{run_id}{path}")
        shape = described[name]["responses"][str(answer.status)]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator(resolved(document, shape)).validate(answer.json)


async def test_every_code_that_was_met_is_described(document: dict[str, Any]) -> None:
    """Refusals of the bad-input cases, found again in the description of the submission."""
    from tests.contract.http.cases import BODIES

    described = operations(document)["submit_run"]["responses"]
    for case in BODIES:
        assert case.code in described[str(case.status)]["content"]["application/problem+json"]["examples"], case.name


def test_the_execute_schema_takes_requests_and_answers() -> None:
    request = ExecuteRequest(
        tenant_id="contoso", run_id="r", step_id="s", attempt=1, capability="test.echo", inputs={},
        idempotency_key="r/s", deadline_at="2026-11-22T12:00:00Z",  # type: ignore[arg-type]  # parsed
    )  # fmt: skip
    validator = jsonschema.Draft202012Validator(schema("execute"))
    validator.validate(request.model_dump(mode="json"))
    validator.validate(EXECUTE_RESPONSE.dump_python(ExecuteSucceeded(output=1), mode="json"))
    assert not validator.is_valid({"status": "maybe"})


def test_the_plan_schema_takes_a_plan_that_passes_the_check() -> None:
    world = World()
    from tests.unit.triggers.world import tenant

    assert check_plan(PLAN, tenant=tenant("contoso"), catalog=world.deps.catalog).ok
    jsonschema.Draft202012Validator(schema("plan")).validate(PLAN)


def test_the_durable_engines_own_urls_are_nowhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert "runtime/webhooks" not in text
    assert "code=" not in text
