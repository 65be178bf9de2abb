"""What may be done: a call without its own grant is refused over a real socket, whoever makes it, and nothing is executed."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent_kit import GrantCheck, JwksFile
from agent_kit.problems import RefusedError
from engine.domain.execute import EXECUTE_AUDIENCE
from engine.domain.grants import GRANT_HEADER, GRANT_KEYS_FILE, GRANT_TYPE, request_sha256
from engine.identity.development import DevelopmentIssuer
from tests.contract.agents.harness import Stand, grants_in, request

Sign = Callable[..., str]


async def answer(found: Stand, *grants: str, **fields: Any) -> tuple[int, str, list[str]]:
    """Status, code and places of a call with these Livoa-Grant headers and a token that is good."""
    body = request("probe.count", **fields)
    headers = [
        ("Authorization", f"Bearer {found.issuer.mint_for_agents()}"),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", body.idempotency_key),
        *((GRANT_HEADER, grant) for grant in grants),
    ]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{found.url}/execute", data=body.model_dump_json(), headers=headers) as response,
    ):
        answered = await response.json(content_type=None)
        places = [one["pointer"] for one in answered.get("violations", [])]
        return response.status, answered.get("code", ""), places


@pytest.fixture
def claims() -> dict[str, Any]:
    """Those of a grant for ``request("probe.count")``."""
    now = int(time.time())
    return {
        "iss": "livoa-orchestrator",
        "aud": EXECUTE_AUDIENCE,
        "jti": "a-grant-of-the-tests",
        "iat": now,
        "exp": now + 60,
        "tenant_id": "contoso",
        "run_id": "r",
        "step_id": "s",
        "item": None,
        "attempt": 1,
        "capability": "probe.count",
        "input_sha256": request_sha256("probe.count", {"note": "a"}),
        "plan_hash": "",
        "idempotency_key": "r/s",
    }


@pytest.fixture
async def sign(probe_stand: Stand, key_folder: Path) -> Sign:
    await probe_stand.grants.mint(request("probe.count"))  # makes the key where there is none
    key = load_pem_private_key((key_folder / "grants" / "signing-key.pem").read_bytes(), None)
    kid = (await probe_stand.grants.jwks())["keys"][0]["kid"]

    def made(payload: dict[str, Any], by: Any = key, algorithm: str = "ES256", **header: Any) -> str:
        return jwt.encode(payload, by, algorithm=algorithm, headers={"kid": kid, "typ": GRANT_TYPE} | header)

    return made


async def test_a_call_with_its_own_grant_is_executed(probe_stand: Stand, sign: Sign, claims: dict[str, Any]) -> None:
    minted = await probe_stand.grants.mint(request("probe.count"))
    assert (await answer(probe_stand, minted))[0] == 200
    assert (await answer(probe_stand, sign(claims)))[0] == 200, "and presenting one again is the same call"
    assert probe_stand.probes.effects == 1


async def test_a_good_token_alone_does_nothing(probe_stand: Stand) -> None:
    minted = await probe_stand.grants.mint(request("probe.count"))
    assert await answer(probe_stand) == (403, "grant.missing", [])
    assert await answer(probe_stand, "") == (403, "grant.missing", [])
    assert await answer(probe_stand, minted, minted) == (403, "grant.missing", [])
    assert probe_stand.probes.effects == 0


@pytest.mark.parametrize(
    ("other", "place"),
    [
        ({"tenant_id": "fabrikam"}, "tenant_id"),
        ({"run_id": "another"}, "run_id"),
        ({"step_id": "another"}, "step_id"),
        ({"item": 1}, "item"),
        ({"attempt": 2}, "attempt"),
        ({"plan_hash": "f" * 64}, "plan_hash"),
        ({"idempotency_key": "r/another"}, "idempotency_key"),
        ({"capability": "probe.output"}, "capability"),
        ({"inputs": {"note": "b"}}, "inputs"),
    ],
)
async def test_a_grant_of_another_call_is_refused_and_the_difference_named(
    probe_stand: Stand, other: dict[str, Any], place: str
) -> None:
    fields = {"capability": "probe.count"} | other
    minted = await probe_stand.grants.mint(request(**fields))
    status, code, places = await answer(probe_stand, minted)
    assert (status, code) == (403, "grant.mismatch")
    assert f"/{place}" in places
    assert set(places) <= {f"/{place}", "/inputs"}, "the hash covers the capability too"
    assert probe_stand.probes.effects == 0


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"exp": 1_700_000_000, "iat": 1_699_999_900}, "grant.expired"),
        ({"aud": "api://others"}, "grant.audience_wrong"),
        ({"aud": [EXECUTE_AUDIENCE, "api://others"]}, "grant.invalid"),
        ({"iss": "somebody"}, "grant.invalid"),
        ({"iat": int(time.time()) + 3_600, "exp": int(time.time()) + 3_660}, "grant.invalid"),
        ({"exp": int(time.time()) + 86_400}, "grant.invalid"),
        ({"attempt": 0}, "grant.invalid"),
        ({"input_sha256": "short"}, "grant.invalid"),
        ({"surprise": 1}, "grant.invalid"),
        *(({name: None}, "grant.invalid") for name in ("iss", "aud", "jti", "iat", "exp", "run_id", "input_sha256")),
    ],
)
async def test_a_signed_grant_that_is_not_of_here_and_now_is_refused(
    probe_stand: Stand, sign: Sign, claims: dict[str, Any], change: dict[str, Any], code: str
) -> None:
    """None means that the claim is left out."""
    kept = {key: value for key, value in (claims | change).items() if key == "item" or value is not None}
    assert (await answer(probe_stand, sign(kept)))[:2] == (403, code)
    assert probe_stand.probes.effects == 0


async def test_forged_grants_are_refused(probe_stand: Stand, sign: Sign, claims: dict[str, Any]) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    head, _, signature = sign(claims).split(".")
    other = base64.urlsafe_b64encode(json.dumps(claims | {"attempt": 2}).encode()).rstrip(b"=").decode()
    token_kid = probe_stand.issuer.jwks()["keys"][0]["kid"]
    forged = {
        "a stranger's key": sign(claims, stranger),
        "another payload": f"{head}.{other}.{signature}",
        "no signature": sign(claims, None, "none"),
        "a shared secret": sign(claims, "s" * 32, "HS256"),
        "an unknown key": sign(claims, kid="unheard-of"),
        "the issuer of tokens": sign(claims, probe_stand.issuer._private_key, "RS256", kid=token_kid),
        "another type": sign(claims, typ="JWT"),
        "no type": sign(claims, typ=None),
        "a key of its own": sign(claims, stranger, jwk={"kty": "EC"}),
        "a curve that is not ours": sign(claims, ec.generate_private_key(ec.SECP384R1()), "ES384"),
        "garbage": "a.b.c",
        "a header that nests deeply": base64.urlsafe_b64encode(b"[" * 2_700).decode() + ".e30.e30",
        "no text": "....",
        "too long": sign(claims | {"padding": "x" * 5_000}),
        "the caller's token": probe_stand.issuer.mint_for_agents(),
        "cut": sign(claims)[:-8],
    }
    for name, grant in forged.items():
        assert (await answer(probe_stand, grant))[:2] == (403, "grant.invalid"), name
    assert probe_stand.probes.effects == 0


async def test_a_grant_is_no_token(probe_stand: Stand) -> None:
    minted = await probe_stand.grants.mint(request("probe.count"))
    headers = {"Authorization": f"Bearer {minted}", GRANT_HEADER: minted}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{probe_stand.url}/execute", json={}, headers=headers) as response,
    ):
        assert (response.status, (await response.json(content_type=None))["code"]) == (401, "auth.token_invalid")


async def test_a_refused_grant_reaches_the_engine_under_its_own_code(
    probe_stand: Stand, tmp_path: Path, issuer: DevelopmentIssuer
) -> None:
    probe_stand.invoker._grants = grants_in(tmp_path)  # another engine's key
    found = await probe_stand.call("probe.count")
    assert found.status == "failed"
    assert (found.error.code, found.error.retryable) == ("grant.invalid", False)
    assert probe_stand.probes.effects == 0


async def test_without_keys_the_answer_is_later_not_yes(tmp_path: Path, sign: Sign, claims: dict[str, Any]) -> None:
    path = tmp_path / GRANT_KEYS_FILE
    with pytest.raises(RefusedError) as caught:
        await GrantCheck(JwksFile(path)).verify([sign(claims)])
    assert (caught.value.status, caught.value.retryable) == (503, True)
    path.parent.mkdir()
    path.write_text('{"keys": []}')
    with pytest.raises(RefusedError) as caught:
        await GrantCheck(JwksFile(path)).verify([sign(claims)])
    assert caught.value.code == "grant.invalid"


async def test_keys_that_are_none_of_grants_verify_none(tmp_path: Path, sign: Sign, claims: dict[str, Any]) -> None:
    weak = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    numbers = weak.public_key().public_numbers()

    def number(value: int) -> str:
        return base64.urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()

    kid = jwt.get_unverified_header(sign(claims))["kid"]
    entry = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), "kid": kid, "issuer": "livoa-orchestrator"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [entry]}))
    for grant in (sign(claims), sign(claims, weak, "RS256")):
        with pytest.raises(RefusedError) as caught:
            await GrantCheck(JwksFile(path)).verify([grant])
        assert caught.value.code == "grant.invalid"
