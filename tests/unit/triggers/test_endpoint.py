"""What every endpoint shares: identity from the one token, problems without internals, headers, spans, log lines."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from engine import VERSION
from engine.domain.errors import LivoaError, Violation
from engine.ports.catalog_files import CatalogFiles
from tests.unit.triggers.world import INTENT, World

FORGED = {
    "x-ms-client-principal": "eyJhdXRoX3R5cCI6ImFhZCJ9",
    "x-ms-client-principal-id": "ana",
    "x-ms-token-aad-access-token": "token",
    "x-tenant-id": "contoso",
}


@pytest.mark.parametrize(
    ("headers", "status", "code", "challenge"),
    [
        ([], 401, "auth.missing", 'Bearer realm="livoa"'),
        ([("authorization", "")], 401, "auth.missing", 'Bearer realm="livoa"'),
        ([("authorization", "Basic YTpi")], 401, "auth.scheme", 'Bearer realm="livoa", error="invalid_token"'),
        ([("authorization", "Bearer")], 401, "auth.scheme", 'Bearer realm="livoa", error="invalid_token"'),
        ([("authorization", "Bearer  ")], 401, "auth.scheme", 'Bearer realm="livoa", error="invalid_token"'),
        ([("authorization", "Bearer x")], 401, "auth.token_invalid", 'Bearer realm="livoa", error="invalid_token"'),
        ([("authorization", "Bearer x y")], 401, "auth.token_invalid", 'Bearer realm="livoa", error="invalid_token"'),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], 400, "auth.header_repeated", None),
        ([("authorization", "Bearer a,Bearer b")], 400, "auth.header_repeated", None),
        (list(FORGED.items()), 401, "auth.missing", 'Bearer realm="livoa"'),
    ],
)
async def test_without_one_good_token_nobody_gets_in(
    world: World, headers: Any, status: int, code: str, challenge: str | None
) -> None:
    answer = await world.post("/api/runs", INTENT, token=None, headers=headers)

    assert (answer.status, answer.code) == (status, code)
    assert answer.headers.get("www-authenticate") == challenge
    assert await world.is_untouched()


async def test_two_good_tokens_are_one_too_many(world: World) -> None:
    headers = [("Authorization", f"Bearer {world.token()}"), ("authorization", f"Bearer {world.token('fabrikam')}")]
    assert (await world.get("/api/runs", token=None, headers=headers)).code == "auth.header_repeated"


@pytest.mark.parametrize("name", ["access_token", "token", "code"])
async def test_a_token_in_the_query_is_not_looked_at(world: World, name: str) -> None:
    assert (await world.get(f"/api/runs?{name}={world.token()}", token=None)).code == "auth.missing"


async def test_headers_that_claim_an_identity_change_nothing_and_are_noticed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.submitted()
    with caplog.at_level(logging.WARNING, "livoa.http"):
        answer = await world.get("/api/runs", token=world.token("fabrikam"), headers=FORGED)

    assert answer.json["runs"] == []
    assert "identity claimed by header, ignored" in caplog.messages
    assert FORGED["x-ms-client-principal"] not in caplog.text


async def test_a_suspended_tenant_is_forbidden(world: World) -> None:
    answer = await world.get("/api/runs", token=world.token("sleepy"))
    assert (answer.status, answer.code) == (403, "auth.tenant_suspended")
    assert answer.headers["www-authenticate"] == 'Bearer realm="livoa", error="insufficient_scope"'


async def test_keys_that_cannot_be_had_are_a_503_with_a_time_to_come_back(world: World) -> None:
    class Down:
        async def validate(self, token: str) -> None:
            raise LivoaError("auth.keys_unavailable", "no keys", status=503, retry_after_s=30)

    world.with_deps(tokens=Down())
    answer = await world.get("/api/runs")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "auth.keys_unavailable", "30")


async def test_a_surprise_tells_the_caller_a_number_and_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def page(self, *_: object, **__: object) -> None:
            raise RuntimeError("password=hunter2 at /srv/app.py")

    world.with_deps(runs=Broken())
    with caplog.at_level(logging.ERROR, "livoa.http"):
        answer = await world.get("/api/runs")

    assert (answer.status, answer.code) == (500, "internal.unexpected")
    assert b"hunter2" not in answer.body
    assert b"RuntimeError" not in answer.body
    (record,) = caplog.records
    assert record.__dict__["incident"] == answer.json["incident"]
    assert answer.json["incident"] in answer.json["detail"]


async def test_dependencies_that_cannot_be_built_are_a_problem_too(world: World) -> None:
    from triggers.endpoint import serve_function
    from triggers.http_adapter import HttpRequest

    def broken() -> Any:
        raise LivoaError("settings.invalid", "setting LIVOA_DATABASE_URL: is required", status=500)

    endpoints = {endpoint.name: endpoint for endpoint in world.endpoints}
    request = HttpRequest("GET", "http://livoa.test/api/runs")
    assert (await serve_function(endpoints["list_runs"], broken)(request, None)).status == 500
    assert (await serve_function(endpoints["health_live"], broken)(request, None)).status == 200


@pytest.mark.parametrize(
    ("target", "token"),
    [("/api/health/live", None), ("/api/runs", ""), ("/api/runs", None), ("/api/schemas/none", None)],
)
async def test_every_answer_has_the_security_headers(world: World, target: str, token: str | None) -> None:
    headers = (await world.get(target, token=token)).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["referrer-policy"] == "no-referrer"


async def test_only_a_few_things_are_public(world: World) -> None:
    open_to_all = []
    for endpoint in world.endpoints:
        target = "/api/" + endpoint.path.replace("{run_id}", "r").replace("{step_id}", "s").replace("{name}", "plan")
        answer = await world.send(endpoint.method, target, token=None)
        if answer.status == 401:
            assert answer.code == "auth.missing"
        else:
            open_to_all.append(endpoint.name)
    # A link is its own credential: tests/unit/triggers/test_links.py.
    assert sorted(open_to_all) == ["follow_link", "get_schema", "grant_keys", "health_live", "list_schemas", "openapi"]


async def test_a_request_is_one_span_and_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    run_id = await world.submitted()
    world.telemetry.spans.clear()
    caplog.clear()  # another test may have raised the level before
    with caplog.at_level(logging.INFO, "livoa.http"):
        await world.get(f"/api/runs/{run_id}/plan")

    (span,) = world.telemetry.spans
    assert (span.name, span.kind, span.failed) == ("GET runs/{run_id}/plan", "server", None)
    assert span.attributes["http.response.status_code"] == 404
    assert span.attributes["app.run.id"] == run_id
    assert "contoso" not in json.dumps(span.attributes)
    (record,) = caplog.records
    facts = {name: record.__dict__[name] for name in ("route", "method", "status", "code", "run_id")}
    assert facts == {
        "route": "runs/{run_id}/plan", "method": "GET", "status": 404, "code": "plan.not_found", "run_id": run_id,
    }  # fmt: skip


async def test_tokens_and_queries_are_in_no_span_and_no_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    token = world.token()
    with caplog.at_level(logging.DEBUG):
        await world.get("/api/runs?cursor=SECRET", token=token)
    written = caplog.text + "".join(json.dumps(record.__dict__, default=str) for record in caplog.records)
    written += "".join(json.dumps(span.attributes) for span in world.telemetry.spans)
    assert token not in written
    assert "SECRET" not in written


# -- health, schemas, plans


async def test_readiness_names_what_does_not_answer_and_not_why(world: World) -> None:
    well = (await world.get("/api/health/ready", token=world.token(roles=()))).json
    assert (well["status"], well["version"], well["catalog_files"]) == ("ok", VERSION, "unwatched")

    class Broken:
        async def read(self, *_: object, **__: object) -> None:
            raise OSError("disk SECRET full")

    world.with_deps(audit=Broken())
    answer = await world.get("/api/health/ready")
    assert (answer.status, answer.json["parts"]) == (503, {"tenants": "ok", "runs": "ok", "audit": "failing"})
    assert b"SECRET" not in answer.body


async def test_broken_files_of_the_catalog_are_told_and_the_host_stays_ready(world: World) -> None:
    class Broken:
        async def look(self) -> CatalogFiles:
            return CatalogFiles("broken", (Violation(code="catalog.page_invalid", pointer="x", message="SECRET"),))

    world.with_deps(catalog_watch=Broken())
    answer = await world.get("/api/health/ready")
    assert (answer.status, answer.json["catalog_files"]) == (200, "broken")
    assert b"SECRET" not in answer.body


@pytest.mark.parametrize("fault", [None, RuntimeError("SECRET")])
async def test_broken_policies_are_told_and_the_host_stays_ready(world: World, fault: Exception | None) -> None:
    assert (await world.get("/api/health/ready")).json["policies"] == "unwatched"
    asked: list[str] = []

    class Broken:
        async def look(self, tenant_id: str) -> str:
            asked.append(tenant_id)
            if fault is not None:
                raise fault
            return "broken"

    world.with_deps(policy_watch=Broken())
    answer = await world.get("/api/health/ready")
    assert (answer.status, answer.json["policies"]) == (200, "broken")
    assert asked == ["contoso"]
    assert b"SECRET" not in answer.body


async def test_liveness_asks_nothing(world: World) -> None:
    assert (await world.get("/api/health/live", token=None)).json == {"status": "ok"}
    assert world.telemetry.spans == []


async def test_a_plan_can_be_checked_without_running_it(world: World) -> None:
    from tests.unit.triggers.world import PLAN

    good = await world.post("/api/plans", PLAN)
    assert (good.status, good.json["ok"], good.json["steps"], good.json["edges"]) == (200, True, 2, 1)
    bad = await world.post("/api/plans", PLAN | {"steps": []})
    assert (bad.status, bad.json["ok"]) == (200, False)
    assert bad.json["errors"]
    assert (await world.post("/api/plans", b"{")).code == "json.syntax"
    assert await world.is_untouched()
