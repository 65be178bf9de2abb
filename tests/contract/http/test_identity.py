"""Identity over HTTP: every kind of token that must not work, sent to real endpoints with keys from a real key document.

The table is the validator's (tests/unit/identity); here each row goes through the whole door: header, key cache, claims, tenant,
role, problem document, log, span, audit. Nothing of a refused token may come out of any of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from typing import Any

import pytest

from engine.adapters.memory import MemoryAuditLog
from engine.domain.audit import AuditEntry, AuditRecord, AuditType
from engine.domain.principal import Role
from engine.identity import AuditedRejections, JwksCache, JwtTokenValidator
from engine.identity.rejections import LINES_WINDOW_S, MAX_LINES, MAX_RECORDS, WINDOW_S
from tests.unit.identity.test_validator import AT, INVALID, REFUSED
from tests.unit.identity.tokens import (
    AUDIENCE,
    CLIENT,
    DIRECTORY_JWKS,
    OID,
    OTHER_TID,
    SUSPENDED_TID,
    TID,
    Token,
    app_claims,
    directory,
    issuer,
    jwk,
    jwks,
    user_claims,
)
from tests.unit.triggers.world import INTENT, Answered, World

GET_RUNS = ("GET", "/api/runs")


class KeyEndpoint:
    """Serves the bytes of a key document, counts, and can be down."""

    def __init__(self) -> None:
        self.data, self.down, self.fetches = DIRECTORY_JWKS, False, 0

    async def __call__(self) -> bytes:
        self.fetches += 1
        await asyncio.sleep(0)
        if self.down:
            raise OSError("down")
        return self.data


class Door:
    """A world whose tokens come from a directory outside."""

    def __init__(self) -> None:
        self.keys, self.world = KeyEndpoint(), World()
        tenants, clock = directory(), self.world.clock
        cache = JwksCache(self.keys, clock)
        self.world.with_deps(
            tokens=JwtTokenValidator(cache, tenants, clock, audience=AUDIENCE),
            tenants=tenants,
            rejections=AuditedRejections(self.world.audit, clock),
        )

    async def send(self, token: str | None, method: str = "GET", target: str = "/api/runs", **more: Any) -> Answered:
        headers = [*more.pop("headers", ()), *([("Authorization", f"Bearer {token}")] if token is not None else [])]
        return await self.world.send(method, target, token=None, headers=headers, **more)

    async def audited(self, tenant: str = "contoso") -> list[dict[str, Any]]:
        records = await self.world.audit.read(tenant, after_seq=0, limit=1_000)
        return [record.body | {"actor": record.actor} for record in records if record.type is AuditType.AUTH_REJECTED]

    def written(self, caplog: pytest.LogCaptureFixture) -> str:
        """Everything that went to logs and spans."""
        lines = [json.dumps(record.__dict__, default=str) for record in caplog.records]
        return "".join(
            [caplog.text, *lines, *(json.dumps(span.__dict__, default=str) for span in self.world.telemetry.spans)]
        )


@pytest.fixture
def door() -> Door:
    return Door()


def _missing(claim: str) -> tuple[str, int, str]:
    return Token(user_claims(**{claim: ...})).sign(), 401, "auth.claims_missing"


ROWS: dict[str, tuple[str, int, str]] = (
    {name: (token, 401, code) for name, (token, code) in REFUSED.items()}
    | {f"without {claim}": _missing(claim) for claim in ("exp", "nbf", "iat", "iss", "aud", "tid", "oid", "ver")}
    | {
        "suspended tenant": (
            Token(user_claims(tid=SUSPENDED_TID, iss=issuer(SUSPENDED_TID))).sign(), 403, "auth.tenant_suspended"),
        "scope as a substring": (Token(user_claims(scp="access_as_user.read")).sign(), 403, "auth.scope_missing"),
        "role as a substring": (Token(user_claims(roles=["Runs.Submit.Read", "runs.read"])).sign(), 403, "auth.role_missing"),
        "app token without the role": (Token(app_claims(roles=[])).sign(), 403, "auth.role_missing"),
        "app token with a scope as role": (Token(app_claims(roles=["access_as_user"])).sign(), 403, "auth.role_missing"),
    }
)  # fmt: skip
UNSENDABLE = {"two tokens": (400, "auth.header_repeated"), "nothing": (401, "auth.scheme")}
"""What the header makes of these before any token is seen."""
SIGNED_FOR_CONTOSO = {
    "version 1 token", "roles as text", "roles with a number", "roles without end", "scope as a list",
    "signed in beyond the calendar", "expiry as text", "expiry as truth", "expiry beyond any calendar",
}  # fmt: skip
"""Genuine tokens of a tenant that are refused as malformed: these are on its record."""
FORGED = {name for name in REFUSED if REFUSED[name][1] in {INVALID, "auth.issuer_wrong", "auth.tenant_unknown"}}
FORGED -= SIGNED_FOR_CONTOSO
MUST_BE_THERE = (
    "algorithm none", "hmac keyed with the public PEM", "hmac keyed with the public JWK", "changed payload",
    "attacker's key under a known kid", "unknown kid", "jku", "embedded jwk", "x5u", "crit", "expired", "not yet valid",
    "issued in the future", "without exp", "without nbf", "without iat", "without iss", "without aud", "without tid",
    "without oid", "without ver", "audience is Graph", "audience is another API", "audience is a list with ours in it",
    "issuer of another tenant with our tid", "tenant that is not onboarded", "issuer with the placeholder in it",
    "look-alike issuer", "version 1 token", "consumer key for an organisation", "suspended tenant",
    "client that is not allowed", "no client", "id token", "scope as a substring", "app token that does not say so",
    "app token without the role", "roles as text", "tid as a list", "oversized", "garbage",
)  # fmt: skip


def test_the_forty_and_more_are_all_here() -> None:
    assert len(set(MUST_BE_THERE)) >= 40
    assert set(MUST_BE_THERE) <= set(ROWS)


@pytest.mark.parametrize("name", ROWS)
async def test_is_turned_away_and_nothing_of_it_comes_out(
    door: Door, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, status, code = ROWS[name]
    status, code = UNSENDABLE.get(name, (status, code))
    with caplog.at_level(logging.DEBUG):
        answer = await door.send(token, "POST", "/api/runs", body=INTENT)
        read = await door.send(token)

    expected = (status, code) if code != "auth.role_missing" else (403, "auth.role_missing")
    assert (answer.status, answer.code) == (read.status, read.code) == expected
    assert await door.world.is_untouched()
    told = answer.body.decode() + json.dumps(answer.headers) + door.written(caplog)
    parts = [part for part in token.split(".") if len(part) > 8]
    for secret in (*parts, TID, OTHER_TID, OID, CLIENT, "contoso", "fabrikam", "login.example", "attacker.test"):
        assert secret not in told
    assert 'error="invalid_token"' in answer.headers["www-authenticate"] if status == 401 else True


async def test_the_good_token_beside_them_works(door: Door) -> None:
    reads = Token(user_claims(roles=["Runs.Submit", "Runs.Read"])).sign()
    assert (await door.send(reads, "POST", "/api/runs", body=INTENT)).status == 202
    assert len((await door.send(reads)).json["runs"]) == 1
    app = Token(app_claims(roles=["Runs.Read"])).sign()
    assert (await door.send(app)).status == 200


# -- keys


async def test_a_thousand_unknown_kids_cost_one_fetch(door: Door) -> None:
    good = Token().sign()
    assert (await door.send(good)).status == 200
    before = door.keys.fetches
    for number in range(1_000):
        assert (await door.send(Token(kid=f"unknown-{number}", key="attacker").sign())).code == INVALID
        door.world.clock.pass_s(0.29)
    assert door.keys.fetches - before == 1
    assert (await door.send(good)).status == 200


async def test_when_the_key_endpoint_is_down_known_keys_go_on_and_unknown_ones_are_a_503(door: Door) -> None:
    good = user_claims(exp=AT + 200_000)
    assert (await door.send(Token(good).sign())).status == 200
    door.keys.down = True
    door.world.clock.pass_s(90_000)
    assert (await door.send(Token(good).sign())).status == 200
    refused = await door.send(Token(good, kid="unknown").sign())
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "auth.keys_unavailable", "30")


async def test_without_keys_nobody_gets_in_at_all(door: Door) -> None:
    door.keys.down = True
    assert (await door.send(Token().sign())).code == "auth.keys_unavailable"
    assert await door.audited() == []


async def test_a_rotated_key_is_found_and_the_old_one_forgotten(door: Door) -> None:
    assert (await door.send(Token().sign())).status == 200
    door.keys.data = jwks(jwk("rotated"))
    assert (await door.send(Token(key="rotated", kid="rotated").sign())).status == 200
    assert (await door.send(Token().sign())).code == INVALID


async def test_who_comes_during_a_slow_renewal_is_not_held_up(door: Door) -> None:
    good = user_claims(exp=AT + 200_000)
    assert (await door.send(Token(good).sign())).status == 200
    door.world.clock.pass_s(90_000)
    slow, started = asyncio.Event(), asyncio.Event()

    async def hang() -> bytes:
        started.set()
        await slow.wait()
        return DIRECTORY_JWKS

    door.world.deps.tokens._keys._fetch = hang  # type: ignore[attr-defined]  # the endpoint becomes slow
    first = asyncio.create_task(door.send(Token(good).sign()))
    await started.wait()
    assert (await asyncio.wait_for(door.send(Token(good).sign()), 2)).status == 200
    assert not first.done()
    slow.set()
    assert (await first).status == 200


# -- headers


async def test_headers_of_the_platforms_own_authentication_are_no_identity(door: Door) -> None:
    forged = [
        ("X-MS-CLIENT-PRINCIPAL", "eyJhdXRoX3R5cCI6ImFhZCJ9"),
        ("X-MS-CLIENT-PRINCIPAL-ID", OID),
        ("X-Tenant-Id", "contoso"),
    ]
    assert (await door.send(None, headers=forged)).code == "auth.missing"
    other = Token(user_claims(tid=OTHER_TID, iss=issuer(OTHER_TID))).sign()
    assert (await door.send(other, "POST", "/api/runs", headers=forged, body=INTENT)).status == 202
    assert await door.world.audit.read("contoso", after_seq=0, limit=1) == ()


async def test_two_authorization_headers_are_one_too_many(door: Door) -> None:
    second = [("authorization", f"Bearer {Token().sign()}")]
    answer = await door.send(Token().sign(), headers=second)
    assert (answer.status, answer.code) == (400, "auth.header_repeated")


async def test_a_token_in_the_query_is_not_looked_for(door: Door) -> None:
    assert (await door.send(None, target=f"/api/runs?access_token={Token().sign()}")).code == "auth.missing"


@pytest.mark.parametrize("overage", [{"_claim_names": {"groups": "src1"}}, {"hasgroups": True}])
async def test_groups_that_were_left_out_are_unknown_in_the_run_on_record(door: Door, overage: dict[str, Any]) -> None:
    answer = await door.send(Token(user_claims(**overage)).sign(), "POST", "/api/runs", body=INTENT)
    run = await door.world.runs.get("contoso", answer.json["run_id"])
    assert run is not None
    assert run.principal.groups_known is False
    assert run.principal.actor_chain == (CLIENT,)


# -- on record


async def test_who_is_known_and_turned_away_is_on_record_once_in_a_while(door: Door) -> None:
    for _ in range(20):
        await door.send(Token(user_claims(azp=OTHER_TID)).sign())
        await door.send(Token(user_claims(exp=AT - 61)).sign())
        await door.send(Token(user_claims(aud="api://somebody-else")).sign())
        await door.send(Token(user_claims(roles=["Runs.Read"])).sign(), "POST", "/api/runs", body=INTENT)
    records = await door.audited()
    assert Counter(record["code"] for record in records) == {
        "auth.client_not_allowed": 1, "auth.token_expired": 1, "auth.audience_wrong": 1, "auth.role_missing": 1,
    }  # fmt: skip
    assert {record["actor"] for record in records} == {f"{TID}:{OID}"}
    assert {record["route"] for record in records} == {"GET runs", "POST runs"}
    door.world.clock.pass_s(WINDOW_S)
    await door.send(Token(user_claims(azp=OTHER_TID)).sign())
    counted, again = (await door.audited())[4:]
    assert set(counted["not_one_by_one"].values()) == {19}
    assert again["code"] == "auth.client_not_allowed"


async def test_a_suspended_tenants_callers_are_on_its_own_record(door: Door) -> None:
    await door.send(Token(user_claims(tid=SUSPENDED_TID, iss=issuer(SUSPENDED_TID))).sign())
    assert [record["code"] for record in await door.audited("sleepy")] == ["auth.tenant_suspended"]
    assert await door.audited() == []


@pytest.mark.parametrize("name", sorted(FORGED))
async def test_whoever_only_claims_to_be_somebody_writes_into_nobodys_record(door: Door, name: str) -> None:
    await door.send(ROWS[name][0])
    assert [await door.audited(tenant) for tenant in ("contoso", "fabrikam", "sleepy")] == [[], [], []]


async def test_knocking_fills_neither_a_record_nor_a_log(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "livoa.security"):
        for number in range(MAX_RECORDS + 50):
            person = f"eeeeeeee-0000-4000-8000-{number:012d}"
            await door.send(Token(user_claims(oid=person, azp=OTHER_TID)).sign())
            await door.send("garbage")
        assert len(await door.audited()) == MAX_RECORDS, "the rest is counted"
        assert len(caplog.records) == MAX_LINES
        caplog.clear()
        door.world.clock.pass_s(LINES_WINDOW_S)
        await door.send("garbage")
    assert caplog.messages == [f"rejections not told one by one: {MAX_RECORDS + 50 - MAX_LINES}", "rejected"]
    assert caplog.records[1].__dict__["code"] == INVALID


async def test_what_is_not_told_one_by_one_is_counted_when_its_time_is_over(door: Door) -> None:
    for number in range(MAX_RECORDS + 50):
        person = f"eeeeeeee-0000-4000-8000-{number:012d}"
        await door.send(Token(user_claims(oid=person, azp=OTHER_TID)).sign())
    for _ in range(7):
        await door.send(Token(user_claims(exp=AT - 61)).sign())
    rejections = door.world.deps.rejections
    await rejections.close()
    assert len(await door.audited()) == MAX_RECORDS, "not before it is over"
    door.world.clock.pass_s(WINDOW_S)
    for _ in range(2):
        await rejections.close()
    *_, counted = await door.audited()
    assert len(await door.audited()) == MAX_RECORDS + 1
    assert (counted["actor"], counted["window_s"]) == ("livoa", WINDOW_S)
    assert counted["not_one_by_one"] == {"auth.client_not_allowed": 50, "auth.token_expired": 7}


async def test_counts_are_on_record_before_their_time_is_over_lest_a_killed_process_takes_them(door: Door) -> None:
    rejections = AuditedRejections(door.world.audit, door.world.clock, flush_after_s=0.01)
    door.world.with_deps(rejections=rejections)

    async def knock_and_wait(times: int, records: int) -> None:
        for _ in range(times):
            await door.send(Token(user_claims(azp=OTHER_TID)).sign())
        for _ in range(3_000):
            if len(await door.audited()) >= records:
                return
            await asyncio.sleep(0.01)
        pytest.fail("the counts are not on record")

    await knock_and_wait(4, 2)
    door.world.clock.pass_s(1)
    await knock_and_wait(5, 3)
    _, *counted = await door.audited()
    # A slow machine may tell them in more than one record; together they are all of them.
    assert sum(one["not_one_by_one"]["auth.client_not_allowed"] for one in counted) == 3 + 5
    door.world.clock.pass_s(WINDOW_S)
    await rejections.close()
    assert len(await door.audited()) == 1 + len(counted), "what is told is not told again"


async def test_counts_wait_for_a_store_that_is_away(door: Door) -> None:
    class Flaky(MemoryAuditLog):
        down = True

        async def append(self, entry: AuditEntry) -> AuditRecord:
            if self.down:
                raise OSError("disk full")
            return await super().append(entry)

    audit = Flaky()
    rejections = AuditedRejections(audit, door.world.clock)
    door.world.with_deps(rejections=rejections)
    for _ in range(3):
        await door.send(Token(user_claims(azp=OTHER_TID)).sign())
    door.world.clock.pass_s(WINDOW_S)
    await rejections.close()
    audit.down = False
    await rejections.close()
    (record,) = await audit.read("contoso", after_seq=0, limit=10)
    assert record.body["not_one_by_one"] == {"auth.client_not_allowed": 3}


async def test_counts_outlive_who_was_writing_them_and_was_cancelled(door: Door) -> None:
    class Slow(MemoryAuditLog):
        is_writing = asyncio.Event()
        go_on = asyncio.Event()

        async def append(self, entry: AuditEntry) -> AuditRecord:
            self.is_writing.set()
            await self.go_on.wait()
            return await super().append(entry)

    audit = Slow()
    audit.go_on.set()
    rejections = AuditedRejections(audit, door.world.clock)
    door.world.with_deps(rejections=rejections)
    for _ in range(3):
        await door.send(Token(user_claims(azp=OTHER_TID)).sign())
    door.world.clock.pass_s(WINDOW_S)
    audit.go_on.clear()
    audit.is_writing.clear()
    writer = asyncio.create_task(rejections.close())
    await audit.is_writing.wait()
    writer.cancel()
    await asyncio.wait({writer})
    audit.go_on.set()
    await rejections.close()
    *_, counted = await audit.read("contoso", after_seq=0, limit=10)
    assert counted.body["not_one_by_one"] == {"auth.client_not_allowed": 2}


async def test_a_record_that_cannot_be_written_changes_no_refusal(door: Door) -> None:
    class Down:
        async def append(self, entry: object) -> None:
            raise OSError("disk full")

    rejections = AuditedRejections(Down(), door.world.clock)  # type: ignore[arg-type]  # only append is used
    door.world.with_deps(rejections=rejections)
    assert (await door.send(Token(user_claims(azp=OTHER_TID)).sign())).code == "auth.client_not_allowed"


async def test_every_route_turns_away_without_a_token_and_with_a_role_it_does_not_need(door: Door) -> None:
    nothing = Token(user_claims(roles=[Role.AGENT_EXECUTE.value])).sign()
    for endpoint in door.world.endpoints:
        roles = getattr(endpoint, "roles", None)
        if roles is None:
            continue  # public
        target = "/api/" + endpoint.path.replace("{", "").replace("}", "")
        assert (await door.send(None, endpoint.method, target)).code == "auth.missing", endpoint.name
        if roles:
            assert (await door.send(nothing, endpoint.method, target)).code == "auth.role_missing", endpoint.name
