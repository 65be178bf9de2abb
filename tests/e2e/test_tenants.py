"""One tenant's runs do not exist for another, whatever the request claims; nobody comes in without a good token."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from engine.domain.principal import Role
from tests.e2e.client import Answer, Client
from tests.e2e.plans import pause, request_of, search
from tests.e2e.stack import Stack, Tokens

ABSENT = "run-00000000000000000000000000"
PLATFORM_HEADERS = {
    "X-MS-CLIENT-PRINCIPAL": "eyJhdXRoX3R5cCI6ImFhZCIsImNsYWltcyI6W3sidHlwIjoidGlkIiwidmFsIjoiY29udG9zbyJ9XX0=",
    "X-MS-CLIENT-PRINCIPAL-ID": "ana",
    "X-MS-CLIENT-PRINCIPAL-NAME": "ana@contoso.example",
    "X-MS-CLIENT-PRINCIPAL-IDP": "aad",
    "X-MS-TOKEN-AAD-ACCESS-TOKEN": "x",
    "X-Tenant-Id": "contoso",
    "X-Forwarded-User": "ana",
}


@pytest.fixture(scope="module")
def theirs(stack: Stack) -> str:
    """A finished run of contoso, and a second one so that its list has two pages."""
    client = stack.client("contoso")
    client.finished(client.submit(request_of(search("a"))))
    run_id = client.submit(request_of(search("a")))
    client.finished(run_id)
    return run_id


def operations(stack: Stack) -> list[tuple[str, str, bool]]:
    """Method, path and whether a token is needed, of everything the API says it serves."""
    document = stack.anonymous().get("/api/openapi.json").json
    found = []
    for path, methods in document["paths"].items():
        found += [(method.upper(), "/api" + path, bool(entry["security"])) for method, entry in methods.items()]
    return sorted(found)


def filled(path: str, run_id: str) -> str:
    values = {"run_id": run_id, "step_id": "a", "subject": "a", "name": "plan", "tenant": "contoso", "sha256": "0" * 64}
    values["token"] = "no-token"
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], path)


def shape(answer: Answer, run_id: str) -> tuple[int, Any, Any]:
    """An answer without what names the run and the moment."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "content-length"}}
    return answer.status, headers, json.loads(answer.body.replace(run_id.encode(), b"RUN"))


def call(client: Client, method: str, target: str, **headers: str) -> Answer:
    body = {"intent": "How much did we spend in Q3?"} if method == "POST" else None
    if "/approvals/" in target:
        body = {"decision": "approve"}
    return client.send(method, target, body=body, headers=headers)


def test_another_tenants_run_looks_like_an_absent_one_on_every_route(
    stack: Stack, theirs: str, contoso: Client
) -> None:
    fabrikam = stack.client("fabrikam", roles=tuple(Role))
    of_runs = [(method, path) for method, path, needs_token in operations(stack) if needs_token and "{run_id}" in path]
    assert len(of_runs) >= 7
    before = contoso.run(theirs)
    for method, path in of_runs:
        for accept in ("application/json", "text/event-stream"):
            foreign = call(fabrikam, method, filled(path, theirs), Accept=accept)
            absent = call(fabrikam, method, filled(path, ABSENT), Accept=accept)
            assert (foreign.status, foreign.code) == (404, "run.not_found"), (method, path)
            assert shape(foreign, theirs) == shape(absent, ABSENT), (method, path)
    assert contoso.run(theirs) == before


def test_another_tenants_configuration_looks_like_an_absent_one(stack: Stack) -> None:
    admins = (Role.TENANTS_ADMIN,)
    ours, theirs = stack.client("contoso", roles=admins), stack.client("fabrikam", roles=admins)
    before = ours.get("/api/tenants/contoso")
    assert (before.status, before.json["tenant_id"]) == (200, "contoso")
    for method, part in (("GET", ""), ("GET", "/versions"), ("PUT", "")):
        foreign = theirs.send(method, f"/api/tenants/contoso{part}", body=before.json if method == "PUT" else None)
        absent = theirs.send(method, f"/api/tenants/nobody{part}", body=before.json if method == "PUT" else None)
        assert (foreign.status, foreign.code) == (404, "tenant.not_found")
        assert shape(foreign, "contoso") == shape(absent, "nobody")
    assert ours.get("/api/tenants/contoso").body == before.body


def test_a_tenants_admin_narrows_and_it_holds_for_the_next_request(stack: Stack, contoso: Client) -> None:
    admin = stack.client("fabrikam", roles=(Role.TENANTS_ADMIN,))
    current = admin.get("/api/tenants/fabrikam")
    tag = {"If-Match": current.headers["etag"]}
    wider = admin.send("PUT", "/api/tenants/fabrikam", body=current.json | {"tier": "dedicated"}, headers=tag)
    assert (wider.status, wider.code) == (422, "tenant.invalid")
    less = current.json | {"enabled_capabilities": ["insights.summarise"]}
    assert (
        admin.send("PUT", "/api/tenants/fabrikam", body=less, headers=tag).json["version"]
        == current.json["version"] + 1
    )
    fabrikam = stack.client("fabrikam")
    refused = fabrikam.post("/api/runs", request_of(search("a")))
    assert (refused.status, refused.code) == (422, "plan.invalid")
    assert contoso.submit(request_of(search("a")))
    now = admin.get("/api/tenants/fabrikam")
    again = admin.send("PUT", "/api/tenants/fabrikam", body=current.json | {"version": now.json["version"]},
                       headers={"If-Match": now.headers["etag"]})  # fmt: skip
    assert again.status == 200
    assert fabrikam.submit(request_of(search("a")))


def test_a_running_run_cannot_be_cancelled_from_outside(contoso: Client, fabrikam: Client) -> None:
    run_id = contoso.submit(request_of(pause("nap", 2)))
    assert fabrikam.post(f"/api/runs/{run_id}/cancel").status == 404
    assert contoso.finished(run_id)["status"] == "succeeded"


def test_the_list_shows_the_callers_tenant_only(stack: Stack, theirs: str, contoso: Client, fabrikam: Client) -> None:
    own = fabrikam.submit(request_of(search("a")))
    fabrikam.finished(own)
    listed = {entry["run_id"] for entry in fabrikam.get("/api/runs?limit=200").json["runs"]}
    others = {entry["run_id"] for entry in contoso.get("/api/runs?limit=200").json["runs"]}
    assert own in listed
    assert theirs in others
    assert not listed & others


def test_without_the_role_to_read_a_caller_sees_own_runs_only(stack: Stack, theirs: str) -> None:
    dora = stack.client("contoso", "dora", (Role.RUNS_SUBMIT,))
    run_id = dora.submit(request_of(search("a")))
    dora.finished(run_id)
    assert {entry["run_id"] for entry in dora.get("/api/runs?limit=200").json["runs"]} == {run_id}
    assert dora.get(f"/api/runs/{theirs}").status == 404


def test_a_cursor_of_another_tenant_is_refused(theirs: str, contoso: Client, fabrikam: Client) -> None:
    cursor = contoso.get("/api/runs?limit=1").json["next_cursor"]
    assert contoso.get(f"/api/runs?limit=1&cursor={cursor}").status == 200
    answer = fabrikam.get(f"/api/runs?limit=1&cursor={cursor}")
    assert (answer.status, answer.code) == (400, "cursor.invalid")


def test_no_route_but_the_public_ones_answers_without_a_token(stack: Stack, theirs: str) -> None:
    nobody, public = stack.anonymous(), set()
    for method, path, needs_token in operations(stack):
        answer = call(nobody, method, filled(path, theirs))
        if not needs_token:
            public.add(path)
            # A link is its own token: this one leads nowhere.
            expected = (404, "link.invalid") if "{token}" in path else (200, None)
            assert (answer.status, answer.code) == expected, (method, path)
            continue
        assert (answer.status, answer.code) == (401, "auth.missing"), (method, path)
        assert answer.headers["www-authenticate"] == 'Bearer realm="livoa"'
    assert public == {
        "/api/health/live", "/api/openapi.json", "/api/schemas", "/api/schemas/{name}", "/api/grants/keys",
        "/api/links/{tenant}/{run_id}/{token}",
    }  # fmt: skip


def test_the_durable_engines_own_addresses_are_not_open_to_callers(stack: Stack, theirs: str, contoso: Client) -> None:
    answer = contoso.get(f"/runtime/webhooks/durabletask/instances/{theirs}?taskHub=LivoaTaskHub&connection=Storage")
    assert answer.status in {401, 403, 404}
    assert theirs.encode() not in answer.body


def bad_tokens(tokens: Tokens) -> dict[str, str]:
    """Tokens that must not be accepted."""
    good = tokens.mint("contoso")
    head, payload, signature = good.split(".")
    flipped = ("B" if signature[10] == "A" else "A").join((signature[:10], signature[11:]))
    return {
        "no token at all": "nonsense-in-place-of-a-token",
        "another signature": f"{head}.{payload}.{flipped}",
        "the payload of somebody else": f"{head}.{tokens.mint('fabrikam').split('.')[1]}.{signature}",
        "for another audience": tokens.mint("contoso", audience="api://livoa-agents"),
        "of an unknown tenant": tokens.mint("nobody"),
        "without a signature": "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + payload + ".",
    }


@pytest.mark.parametrize(
    "what",
    [
        "no token at all",
        "another signature",
        "the payload of somebody else",
        "for another audience",
        "of an unknown tenant",
        "without a signature",
    ],
)
def test_a_bad_token_is_refused(stack: Stack, theirs: str, what: str) -> None:
    token = bad_tokens(stack.tokens)[what]
    answer = Client(stack.url, lambda: token).get(f"/api/runs/{theirs}")
    assert answer.status == 401
    assert re.match(r"auth\.[a-z_]+$", answer.code or "")
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert token.encode() not in answer.body


def test_a_token_of_another_issuer_with_the_same_names_is_refused(
    stack: Stack, theirs: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Tokens(tmp_path_factory.mktemp("other-issuer"))
    assert Client(stack.url, lambda: other.mint("contoso")).get(f"/api/runs/{theirs}").status == 401


@pytest.mark.parametrize(
    ("roles", "method", "target"),
    [
        ((Role.RUNS_READ,), "POST", "/api/runs"),
        ((Role.RUNS_READ,), "POST", "/api/runs/{run_id}/cancel"),
        ((Role.AUDIT_READ,), "GET", "/api/runs"),
        ((Role.AUDIT_READ,), "GET", "/api/runs/{run_id}"),
        ((Role.AGENT_EXECUTE,), "GET", "/api/runs/{run_id}/events"),
        ((Role.RUNS_APPROVE,), "GET", "/api/runs/{run_id}/steps/a/output"),
        ((Role.RUNS_APPROVE,), "POST", "/api/plans"),
    ],
)
def test_a_wrong_role_is_refused(stack: Stack, theirs: str, roles: tuple[Role, ...], method: str, target: str) -> None:
    before = stack.traces()
    answer = call(stack.client(roles=roles), method, filled(target, theirs))
    assert (answer.status, answer.code) == (403, "auth.role_missing")
    assert "insufficient_scope" in answer.headers["www-authenticate"]
    assert stack.traces() == before


def test_identity_claimed_by_header_changes_nothing(stack: Stack, theirs: str, fabrikam: Client) -> None:
    for target in (f"/api/runs/{theirs}", f"/api/runs/{theirs}/events"):
        assert fabrikam.send("GET", target, headers=PLATFORM_HEADERS).status == 404
        assert stack.anonymous().send("GET", target, headers=PLATFORM_HEADERS).status == 401
    run_id = fabrikam.submit({"intent": "How much did we spend in Q3?"}, **PLATFORM_HEADERS)
    assert fabrikam.finished(run_id)["status"] == "succeeded"
    assert stack.client("contoso").get(f"/api/runs/{run_id}").status == 404
