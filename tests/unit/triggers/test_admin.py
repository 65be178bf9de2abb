"""A tenant's own admin over HTTP: look, change, look back; never another tenant, never more than the operator gives."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from engine.domain.audit import AuditType
from engine.domain.errors import LivoaError
from engine.domain.principal import Role
from engine.domain.tenant import Bounds
from tests.unit.triggers.world import INTENT, Answered, World

ADMIN = (Role.TENANTS_ADMIN,)
PATH = "/api/tenants/contoso"


async def look(world: World, tenant: str = "contoso") -> Answered:
    return await world.get(f"/api/tenants/{tenant}", token=world.token(tenant, roles=ADMIN))


async def put(world: World, body: Any, tag: str | None, *, user: str = "ana", path: str = PATH) -> Answered:
    headers = {"if-match": tag} if tag is not None else {}
    return await world.send("PUT", path, body=body, headers=headers, token=world.token(user=user, roles=ADMIN))


async def changed(world: World, **fields: Any) -> Answered:
    current = await look(world)
    return await put(world, current.json | fields, current.headers["etag"])


async def records(world: World) -> list[dict[str, Any]]:
    found = await world.audit.read("contoso", after_seq=0, limit=100)
    return [record.body | {"actor": record.actor} for record in found if record.type is AuditType.CONFIG_CHANGED]


async def test_the_admin_sees_what_holds(world: World) -> None:
    answer = await look(world)
    assert (answer.status, answer.json["tenant_id"], answer.json["version"]) == (200, "contoso", 1)
    assert answer.json["bounds"]["max_wall_time_s"] == 600
    assert answer.headers["etag"].startswith('"1-')


@pytest.mark.parametrize("roles", [(), (Role.RUNS_SUBMIT, Role.RUNS_READ, Role.POLICIES_ADMIN, Role.AUDIT_READ)])
@pytest.mark.parametrize(("method", "target"), [("GET", PATH), ("PUT", PATH), ("GET", f"{PATH}/versions")])
async def test_nobody_else_does(world: World, roles: tuple[Role, ...], method: str, target: str) -> None:
    answer = await world.send(method, target, token=world.token(roles=roles))
    assert (answer.status, answer.code) == (403, "auth.role_missing")


@pytest.mark.parametrize(("method", "part"), [("GET", ""), ("PUT", ""), ("GET", "/versions")])
async def test_another_tenant_is_as_absent_as_one_that_is_not(world: World, method: str, part: str) -> None:
    token = world.token("fabrikam", roles=ADMIN)
    theirs = await world.send(method, f"{PATH}{part}", token=token, body=b"{}", headers={"if-match": '"1"'})
    absent = await world.send(
        method, f"/api/tenants/nobody{part}", token=token, body=b"{}", headers={"if-match": '"1"'}
    )
    assert (theirs.status, theirs.code) == (404, "tenant.not_found")
    assert theirs.body.replace(b"contoso", b"") == absent.body.replace(b"nobody", b"")


async def test_a_change_holds_for_the_next_request_and_is_on_record_by_hash(world: World) -> None:
    answer = await changed(world, enabled_capabilities=[], directories={"recipients": ["secret@contoso.example"]})
    assert (answer.status, answer.json["version"], answer.json["enabled_capabilities"]) == (200, 2, [])
    assert (await look(world)).body == answer.body
    assert (await look(world)).headers["etag"] == answer.headers["etag"]

    intended, applied = await records(world)
    assert (intended["phase"], applied["phase"]) == ("intended", "applied")
    assert intended["fields"] == ["directories", "enabled_capabilities"]
    assert (intended["from_version"], intended["version"], applied["version"]) == (1, 2, 2)
    assert intended["sha256"] == applied["sha256"] != intended["from_sha256"]
    assert "secret@" not in json.dumps([intended, applied])
    assert intended["actor"].endswith(intended["actor"].split(":")[1])


async def test_the_same_change_again_changes_nothing_and_is_one_fact(world: World) -> None:
    current = await look(world)
    body, tag = current.json | {"display_name": "Ours"}, current.headers["etag"]
    first, second = await put(world, body, tag), await put(world, body, tag)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body
    assert len(await records(world)) == 2
    assert len(await world.versions.versions("contoso", below=None, limit=9)) == 1


async def test_who_read_before_somebody_elses_change_must_read_again(world: World) -> None:
    stale = await look(world)
    assert (await changed(world, display_name="Ours")).status == 200
    answer = await put(world, stale.json | {"display_name": "Mine"}, stale.headers["etag"])
    assert (answer.status, answer.code) == (412, "tenant.version_mismatch")
    fresh = await look(world)
    answer = await put(world, stale.json | {"display_name": "Mine"}, fresh.headers["etag"])
    assert (answer.status, answer.code) == (412, "tenant.version_mismatch"), "the body says which version it changes"
    answer = await put(world, fresh.json | {"display_name": "Mine"}, stale.headers["etag"])
    assert (answer.status, answer.code) == (412, "tenant.version_mismatch"), "and so does the tag"


async def test_of_two_at_the_same_moment_one_wins_and_the_other_is_told(world: World) -> None:
    current = await look(world)
    bodies = [current.json | {"display_name": f"rival {number}"} for number in range(6)]
    answers = await asyncio.gather(
        *(put(world, body, current.headers["etag"], user=body["display_name"][-1]) for body in bodies)
    )
    assert sorted(answer.status for answer in answers)[0] == 200
    assert sum(answer.status == 200 for answer in answers) == 1
    assert {answer.code for answer in answers if answer.status != 200} <= {
        "tenant.version_conflict",
        "tenant.version_mismatch",
    }
    won = next(answer for answer in answers if answer.status == 200)
    assert (await look(world)).json["display_name"] == won.json["display_name"]


async def test_a_race_lost_in_the_store_is_a_conflict_on_record(world: World) -> None:
    current = await look(world)
    inner = world.deps.tenant_configs

    class Late:
        async def add(self, tenant_id: str, version: Any) -> None:
            await changed(quick, display_name="Quicker")
            await inner.add(tenant_id, version)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    quick = World()
    quick.deps = world.deps
    world.with_deps(tenant_configs=Late())
    answer = await put(world, current.json | {"display_name": "Mine"}, current.headers["etag"])
    assert (answer.status, answer.code) == (409, "tenant.version_conflict")
    assert [record["phase"] for record in await records(world)] == ["intended", "intended", "applied", "refused"]


@pytest.mark.parametrize("tag", [None, "", "*"])
async def test_a_change_must_say_what_it_changes(world: World, tag: str | None) -> None:
    answer = await put(world, (await look(world)).json, tag)
    assert (answer.status, answer.code) == (428, "tenant.if_match_required")


async def test_everything_wrong_with_a_change_is_named(world: World) -> None:
    answer = await changed(
        world, tier="dedicated", issuers=[{"issuer": "https://evil.test", "directory_id": "x"}],
        enabled_capabilities=["test.echo", "mail.send"], egress_hosts=["evil.test"],
        bounds=Bounds(max_wall_time_s=601, max_cost_micro_usd=10**12).model_dump(),
        quota={"max_concurrent_runs": 500},
    )  # fmt: skip
    assert (answer.status, answer.code) == (422, "tenant.invalid")
    assert set(answer.pointers) == {
        "/tier", "/issuers", "/enabled_capabilities/1", "/egress_hosts/0", "/bounds/max_wall_time_s",
        "/bounds/max_cost_micro_usd", "/quota/max_concurrent_runs",
    }  # fmt: skip
    assert await records(world) == []
    assert (await look(world)).json["version"] == 1


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"unknown": 1}, "/unknown"),
        ({"bounds": {"max_steps": "10"}}, "/bounds/max_steps"),
        ({"bounds": {"max_steps": 5_001}}, "/bounds/max_steps"),
        ({"status": "sleeping"}, "/status"),
        ({"egress_hosts": ["*"]}, "/egress_hosts/0"),
        ({"display_name": ""}, "/display_name"),
    ],
)
async def test_what_is_no_configuration_is_refused_with_its_place(
    world: World, fields: dict[str, Any], pointer: str
) -> None:
    answer = await changed(world, **fields)
    assert (answer.status, answer.code) == (422, "tenant.invalid")
    assert pointer in answer.pointers


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 422, "tenant.invalid"),
        (b"null", 422, "tenant.invalid"),
        (b"{", 400, "json.syntax"),
        (b'{"version": 1, "version": 2}', 400, "json.duplicate_key"),
        (b" " * 300_000, 413, "http.body_too_large"),
    ],
)
async def test_what_is_no_json_object_is_refused(world: World, body: bytes, status: int, code: str) -> None:
    answer = await put(world, body, '"1"')
    assert (answer.status, answer.code) == (status, code)


async def test_a_tenant_can_stop_itself_at_once_and_cannot_start_itself_again(world: World) -> None:
    assert (await world.post("/api/runs", INTENT)).status == 202
    assert (await changed(world, status="suspended")).status == 200
    for answer in (await world.post("/api/runs", INTENT), await look(world)):
        assert (answer.status, answer.code) == (403, "auth.tenant_suspended")


async def test_without_a_record_there_is_no_change(world: World) -> None:
    audit = world.audit

    class Down:
        async def append(self, entry: object) -> None:
            raise OSError("disk full")

    world.with_deps(audit=Down())
    answer = await changed(world, display_name="Ours")
    assert (answer.status, answer.code) == (503, "audit.unavailable")
    assert await world.versions.latest("contoso") is None
    world.with_deps(audit=audit)


async def test_a_change_whose_second_record_was_lost_is_completed_by_sending_it_again(world: World) -> None:
    audit = world.audit

    class Once:
        async def append(self, entry: Any) -> Any:
            if entry.body.get("phase") == "applied":
                raise OSError("the process dies")
            return await audit.append(entry)

    world.with_deps(audit=Once())
    current = await look(world)
    body, tag = current.json | {"display_name": "Ours"}, current.headers["etag"]
    assert (await put(world, body, tag)).status == 503
    world.with_deps(audit=audit)
    assert (await put(world, body, tag, user="bo")).status == 200
    intended, applied = await records(world)
    assert [intended["phase"], applied["phase"]] == ["intended", "applied"]
    assert intended["actor"] == applied["actor"], "it was Ana's change, whoever completes the record"


async def test_versions_tell_who_and_when_and_not_what(world: World) -> None:
    for number in range(5):
        assert (await changed(world, display_name=f"name-{number}")).status == 200
        world.clock.pass_s(60)
    token = world.token(roles=ADMIN)
    page = (await world.get(f"{PATH}/versions?limit=3", token=token)).json
    assert ([v["version"] for v in page["versions"]], page["next_below"], page["operator_version"]) == ([6, 5, 4], 4, 1)
    rest = (await world.get(f"{PATH}/versions?limit=3&below=4", token=token)).json
    assert ([v["version"] for v in rest["versions"]], rest["next_below"]) == ([3, 2], None)
    assert page["versions"][0]["changed_at"] == "2026-11-22T12:04:00Z"
    assert "name-" not in json.dumps(page)
    for target in (f"{PATH}/versions?limit=0", f"{PATH}/versions?below=x", f"{PATH}/versions?below=0"):
        assert (await world.get(target, token=token)).code == "query.invalid"


async def test_where_changes_cannot_be_read_nobody_gets_in(world: World) -> None:
    async def down(tenant_id: str) -> Any:
        raise LivoaError("store.unavailable", "the database failed", status=503)

    token = world.token()
    world.versions.latest = down  # type: ignore[method-assign]  # the store fails
    assert (await world.get("/api/runs", token=token)).status == 503


async def test_a_configuration_is_in_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        await changed(world, directories={"recipients": ["secret@contoso.example"]})
    written = caplog.text + json.dumps([span.__dict__ for span in world.telemetry.spans], default=str)
    assert "secret@" not in written


async def test_the_run_says_under_which_version_it_was_admitted(world: World) -> None:
    await changed(world, display_name="Ours")
    await world.submitted()
    found = await world.audit.read("contoso", after_seq=0, limit=100)
    assert [record.body["tenant_version"] for record in found if record.type is AuditType.RUN_SUBMITTED] == [2]
