"""What gets in, and forty-odd ways of not getting in. Every refusal has its code, and none says what the token said."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from engine.domain.errors import LivoaError
from engine.domain.principal import Role
from tests.unit.identity.tokens import (
    CLIENT,
    CONSUMER_TID,
    NOW,
    OID,
    OTHER_TID,
    STRANGER_TID,
    SUSPENDED_TID,
    TEMPLATE,
    TID,
    FixedClock,
    StaticKeys,
    Token,
    app_claims,
    b64,
    hand_made,
    issuer,
    jwk,
    jwks,
    public_pem,
    user_claims,
    validator,
)

AT = int(NOW.timestamp())
INVALID = "auth.token_invalid"


async def test_a_users_token_becomes_a_principal_of_the_tenant_its_directory_speaks_for() -> None:
    principal = await validator().validate(Token().sign())

    assert (principal.tenant_id, principal.kind, principal.client_app) == ("contoso", "user", CLIENT)
    assert principal.subject == f"{TID}:{OID}"
    assert principal.roles == {Role.RUNS_SUBMIT}
    assert principal.scopes == {"profile", "access_as_user"}
    assert principal.token_id == "token-1"
    assert principal.groups_known


async def test_nobody_is_a_second_person_by_the_spelling_of_a_guid() -> None:
    plain = await validator().validate(Token(user_claims(oid="aaaaaaaa-0000-0000-0000-0000000000bb")).sign())
    loud = await validator().validate(Token(user_claims(oid="AAAAAAAA-0000-0000-0000-0000000000BB")).sign())
    assert plain.subject == loud.subject


async def test_an_apps_token_becomes_an_app_principal() -> None:
    principal = await validator().validate(Token(app_claims()).sign())

    assert principal.kind == "app"
    assert principal.scopes == frozenset()


@pytest.mark.parametrize("overage", [{"_claim_names": {"groups": "src1"}}, {"hasgroups": True}])
async def test_groups_that_were_left_out_are_unknown_not_empty(overage: dict[str, object]) -> None:
    assert not (await validator().validate(Token(user_claims(**overage)).sign())).groups_known


async def test_roles_nobody_knows_grant_nothing() -> None:
    principal = await validator().validate(Token(user_claims(roles=["Runs.Submit.All", "runs.submit"])).sign())

    assert principal.roles == frozenset()


@pytest.mark.parametrize("late_s", [59, 0])
async def test_a_minute_of_clock_difference_is_forgiven(late_s: int) -> None:
    assert await validator().validate(Token(user_claims(exp=AT - late_s, nbf=AT + late_s)).sign())


GOOD_HEADER = {"alg": "RS256", "typ": "JWT", "kid": "directory"}
EMBEDDED = {k: v for k, v in jwk("attacker").items() if k != "issuer"}

REFUSED = {
    "a type that is no text": (hand_made(GOOD_HEADER | {"typ": ["JWT"]}, user_claims(), None), INVALID),
    "signed in beyond the calendar": (Token(user_claims(auth_time=2**39)).sign(), INVALID),
    "algorithm none": (hand_made(GOOD_HEADER | {"alg": "none"}, user_claims(), None), INVALID),
    "algorithm none without signature": (
        f"{b64(json.dumps(GOOD_HEADER | {'alg': 'none'}).encode())}.{b64(json.dumps(user_claims()).encode())}.", INVALID),
    "hmac keyed with the public PEM": (
        hand_made(GOOD_HEADER | {"alg": "HS256"}, user_claims(), public_pem("directory")), INVALID),
    "hmac keyed with the public JWK": (
        hand_made(GOOD_HEADER | {"alg": "HS256"}, user_claims(), json.dumps(jwk("directory")).encode()), INVALID),
    "hmac signature under the right algorithm": (
        hand_made(GOOD_HEADER, user_claims(), public_pem("directory")), INVALID),
    "another algorithm of the same family": (Token(headers={"alg": "RS512"}).sign(), INVALID),
    "changed payload": (
        ".".join([*(p := Token().sign().split("."))[:1], b64(json.dumps(user_claims(roles=["Tenants.Admin"])).encode()), p[2]]),
        INVALID),
    "attacker's key under a known kid": (Token(key="attacker").sign(), INVALID),
    "unknown kid": (Token(key="attacker", kid="nobody").sign(), INVALID),
    "no kid": (Token(kid=None).sign(), INVALID),
    "kid of another type": (hand_made(GOOD_HEADER | {"kid": ["directory"]}, user_claims(), None), INVALID),
    "kid without end": (Token(kid="k" * 201).sign(), INVALID),
    "jku": (Token(headers={"jku": "https://attacker.test/keys"}).sign(), INVALID),
    "embedded jwk": (Token(key="attacker", headers={"jwk": EMBEDDED}).sign(), INVALID),
    "x5u": (Token(headers={"x5u": "https://attacker.test/cert"}).sign(), INVALID),
    "crit": (Token(headers={"crit": ["exp"]}).sign(), INVALID),
    "typ of something else": (Token(headers={"typ": "logout+jwt"}).sign(), INVALID),
    "expired": (Token(user_claims(exp=AT - 61)).sign(), "auth.token_expired"),
    "not yet valid": (Token(user_claims(nbf=AT + 61)).sign(), "auth.token_not_yet_valid"),
    "issued in the future": (Token(user_claims(iat=AT + 61)).sign(), "auth.token_not_yet_valid"),
    "expiry as text": (Token(user_claims(exp=str(AT + 60))).sign(), INVALID),
    "expiry as truth": (Token(user_claims(exp=True)).sign(), INVALID),
    "expiry beyond any calendar": (Token(user_claims(exp=10**30)).sign(), INVALID),
    "audience is another API": (Token(user_claims(aud="api://somebody-else")).sign(), "auth.audience_wrong"),
    "audience is Graph": (
        Token(user_claims(aud="00000003-0000-0000-c000-000000000000")).sign(), "auth.audience_wrong"),
    "audience is a list with ours in it": (Token(user_claims(aud=[user_claims()["aud"]])).sign(), "auth.audience_wrong"),
    "issuer of another tenant with our tid": (Token(user_claims(iss=issuer(OTHER_TID))).sign(), "auth.issuer_wrong"),
    "our issuer with another tid": (Token(user_claims(tid=OTHER_TID)).sign(), "auth.issuer_wrong"),
    "tenant that is not onboarded": (
        Token(user_claims(tid=STRANGER_TID, iss=issuer(STRANGER_TID))).sign(), "auth.tenant_unknown"),
    "issuer with the placeholder in it": (Token(user_claims(iss=TEMPLATE)).sign(), "auth.issuer_wrong"),
    "look-alike issuer": (
        Token(user_claims(iss=issuer(TID).replace("login.", "login-"))).sign(), "auth.issuer_wrong"),
    "version 1 token": (Token(user_claims(ver="1.0")).sign(), INVALID),
    "consumer key for an organisation": (Token(key="consumer", kid="consumer").sign(), "auth.issuer_wrong"),
    "consumer issuer and key with our tid": (
        Token(user_claims(iss=issuer(CONSUMER_TID)), "consumer", "consumer").sign(), "auth.issuer_wrong"),
    "consumer directory": (
        Token(user_claims(tid=CONSUMER_TID, iss=issuer(CONSUMER_TID)), "consumer", "consumer").sign(),
        "auth.tenant_unknown"),
    "client that is not allowed": (Token(user_claims(azp=OTHER_TID)).sign(), "auth.client_not_allowed"),
    "no client": (Token(user_claims(azp=...)).sign(), "auth.claims_missing"),
    "id token": (Token(user_claims(azp=..., scp=..., roles=..., nonce="n")).sign(), "auth.claims_missing"),
    "app token that does not say so": (Token(app_claims(idtyp=...)).sign(), "auth.token_kind"),
    "app token with a scope": (Token(app_claims(scp="access_as_user")).sign(), "auth.token_kind"),
    "neither user nor app": (Token(user_claims(idtyp="device")).sign(), "auth.token_kind"),
    "roles as text": (Token(user_claims(roles="Runs.Submit")).sign(), INVALID),
    "roles with a number": (Token(user_claims(roles=["Runs.Submit", 1])).sign(), INVALID),
    "roles without end": (Token(user_claims(roles=["r"] * 201)).sign(), INVALID),
    "scope as a list": (Token(user_claims(scp=["access_as_user"])).sign(), INVALID),
    "tid as a list": (Token(user_claims(tid=[TID])).sign(), INVALID),
    "tid that is no GUID": (Token(user_claims(tid="contoso", iss=issuer("contoso"))).sign(), INVALID),
    "oid as a number": (Token(user_claims(oid=7)).sign(), INVALID),
    "oversized": (Token(user_claims(pad="x" * 16_384)).sign(), INVALID),
    "garbage": ("garbage", INVALID),
    "three parts of garbage": ("a.b.c", INVALID),
    "nothing": ("", INVALID),
    "two tokens": (f"{Token().sign()},{Token().sign()}", INVALID),
    "text outside the alphabet": (Token().sign() + "é", INVALID),
    "payload that is a list": (hand_made(GOOD_HEADER, [], None), INVALID),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_is_refused(name: str) -> None:
    token, code = REFUSED[name]
    with pytest.raises(LivoaError) as caught:
        await validator().validate(token)

    assert (caught.value.code, caught.value.status) == (code, 401)
    assert all(secret not in caught.value.message for secret in (TID, OID, CLIENT, "contoso", "https:"))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat", "iss", "aud", "tid", "oid", "ver"])
async def test_a_missing_claim_is_refused(claim: str) -> None:
    with pytest.raises(LivoaError) as caught:
        await validator().validate(Token(user_claims(**{claim: ...})).sign())
    assert (caught.value.code, caught.value.status) == ("auth.claims_missing", 401)


async def test_a_suspended_tenant_is_known_and_forbidden() -> None:
    token = Token(user_claims(tid=SUSPENDED_TID, iss=issuer(SUSPENDED_TID))).sign()
    with pytest.raises(LivoaError) as caught:
        await validator().validate(token)
    assert (caught.value.code, caught.value.status) == ("auth.tenant_suspended", 403)


@pytest.mark.parametrize("scope", ["access_as_user.read", "xaccess_as_user", "ACCESS_AS_USER", "access_as_user\tx"])
async def test_a_scope_that_only_looks_like_ours_is_forbidden(scope: str) -> None:
    with pytest.raises(LivoaError) as caught:
        await validator().validate(Token(user_claims(scp=scope)).sign())
    assert (caught.value.code, caught.value.status) == ("auth.scope_missing", 403)


async def test_a_token_dies_with_time_although_its_key_lives() -> None:
    clock = FixedClock()
    token = Token().sign()
    assert await validator(clock).validate(token)

    clock.at += timedelta(seconds=3_661)
    with pytest.raises(LivoaError) as caught:
        await validator(clock).validate(token)
    assert caught.value.code == "auth.token_expired"


async def test_a_key_that_names_no_issuer_signs_for_nobody() -> None:
    with pytest.raises(LivoaError) as caught:
        await validator(keys=StaticKeys(jwks(jwk("directory", issuer=None)))).validate(Token().sign())
    assert caught.value.code == INVALID
