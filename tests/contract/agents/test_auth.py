"""Who may call an agent: every way of not being the orchestrator ends in 401 or 403, and nothing runs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from agent_kit import AgentAuth, JwksFile, JwksUrl
from agent_kit.problems import RefusedError
from engine.domain.execute import EXECUTE_AUDIENCE
from engine.domain.grants import GRANT_HEADER
from engine.domain.principal import Role
from engine.identity.development import ENGINE_APP, PLATFORM_DIRECTORY, DevelopmentIssuer, directory_id, issuer_of
from tests.contract.agents.harness import Stand, raw_server, request


async def answer(found: Stand, *authorization: str) -> tuple[int, str]:
    headers = [("Content-Type", "application/json"), ("Idempotency-Key", "r/s")]
    headers += [("Authorization", value) for value in authorization]
    headers.append((GRANT_HEADER, await found.grants.mint(request("probe.count"))))
    body = request("probe.count").model_dump_json()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{found.url}/execute", data=body, headers=headers) as response,
    ):
        return response.status, (await response.json(content_type=None)).get("code", "")


@pytest.fixture(scope="session")
def private_key(issuer: DevelopmentIssuer) -> rsa.RSAPrivateKey:
    return issuer._private_key


@pytest.fixture
def document(jwks: Path) -> dict[str, Any]:
    """The published keys."""
    found: dict[str, Any] = json.loads(jwks.read_text())
    return found


def with_shared_secret(claims: dict[str, Any], kid: str, secret: bytes) -> str:
    """A token as an attacker makes it who signs with the public key as if it were a shared secret."""
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": kid}, claims)]
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = hmac.new(secret, signed, hashlib.sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


@pytest.fixture(scope="session")
def stranger() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


@pytest.fixture
def claims() -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": issuer_of(PLATFORM_DIRECTORY),
        "tid": directory_id(PLATFORM_DIRECTORY),
        "aud": EXECUTE_AUDIENCE,
        "azp": ENGINE_APP,
        "idtyp": "app",
        "roles": ["Agent.Execute"],
        "iat": now,
        "nbf": now,
        "exp": now + 300,
    }


@pytest.fixture
def signed(private_key: rsa.RSAPrivateKey, document: dict[str, Any]) -> Callable[..., str]:
    kid = document["keys"][0]["kid"]

    def sign(payload: dict[str, Any], key: Any = private_key, algorithm: str = "RS256", **headers: Any) -> str:
        return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid} | headers)

    return sign


async def test_the_engines_own_token_is_accepted(probe_stand: Stand, claims: dict[str, Any], signed: Any) -> None:
    assert await answer(probe_stand, f"Bearer {signed(claims)}") == (200, "")


CHANGED: list[tuple[str, dict[str, Any], int, str]] = [
    ("another audience", {"aud": "api://livoa"}, 401, "auth.audience_wrong"),
    ("a list of audiences", {"aud": [EXECUTE_AUDIENCE, "api://other"]}, 401, "auth.token_invalid"),
    ("expired", {"iat": 1, "nbf": 1, "exp": 2}, 401, "auth.token_expired"),
    ("not yet valid", {"nbf": 2**33, "exp": 2**34}, 401, "auth.token_invalid"),
    ("another issuer", {"iss": "https://login.example/x/v2.0"}, 401, "auth.token_invalid"),
    ("an issuer of another directory", {"tid": "other"}, 401, "auth.token_invalid"),
    ("the issuer's placeholder itself", {"iss": "https://development.livoa.invalid/{tenantid}/v2.0"}, 401, ""),
    ("no role", {"roles": []}, 403, "auth.role_missing"),
    ("another role", {"roles": ["Runs.Submit"]}, 403, "auth.role_missing"),
    ("the role inside a word", {"roles": ["Agent.Execute.Not"]}, 403, "auth.role_missing"),
    ("roles as a text", {"roles": "Agent.Execute"}, 403, "auth.role_missing"),
    ("a user", {"idtyp": "user"}, 403, "auth.not_an_app"),
    ("an app that is no text", {"azp": 7}, 403, "auth.not_an_app"),
    ("no expiry", {"exp": None}, 401, "auth.token_invalid"),
    ("no kind", {"idtyp": None}, 401, "auth.token_invalid"),
    ("no directory", {"tid": None}, 401, "auth.token_invalid"),
    ("no app", {"azp": None}, 401, "auth.token_invalid"),
]


@pytest.mark.parametrize(("name", "change", "status", "code"), CHANGED, ids=[case[0] for case in CHANGED])
async def test_a_token_that_is_not_for_this_is_refused(
    probe_stand: Stand, claims: dict[str, Any], signed: Any, name: str, change: dict[str, Any], status: int, code: str
) -> None:
    payload = {key: value for key, value in (claims | change).items() if value is not None}
    found = await answer(probe_stand, f"Bearer {signed(payload)}")
    assert found[0] == status
    assert found[1] == (code or found[1])
    assert probe_stand.probes.effects == 0


async def test_forged_signatures_are_refused(
    probe_stand: Stand, claims: dict[str, Any], signed: Any, stranger: rsa.RSAPrivateKey, document: dict[str, Any]
) -> None:
    key = document["keys"][0]
    forged = {
        "a stranger's key": signed(claims, stranger),
        "the public key as a shared secret": with_shared_secret(claims, key["kid"], json.dumps(key).encode()),
        "no signature": signed(claims, None, "none"),
        "an unknown key id": signed(claims, kid="unheard-of"),
        "a key id that is no text": signed(claims).replace(".", "", 1),
        "a changed payload": ".".join(
            [part if number != 1 else part[:-4] + "AAAA" for number, part in enumerate(signed(claims).split("."))]
        ),
        "a key of its own": signed(claims, stranger, jwk={"kty": "RSA", "n": key["n"], "e": key["e"]}),
        "too long": signed({**claims, "padding": "x" * 9_000}),
    }
    for name, token in forged.items():
        assert await answer(probe_stand, f"Bearer {token}") == (401, "auth.token_invalid"), name
    assert probe_stand.probes.effects == 0


@pytest.mark.parametrize(
    "value", [[], ["Bearer"], ["Bearer "], ["Basic dXNlcjpwYXNz"], ["Bearer garbage"], ["Bearer a.b.c"]]
)
async def test_without_a_token_nothing_happens(probe_stand: Stand, value: list[str]) -> None:
    status, code = await answer(probe_stand, *value)
    assert status == 401
    assert code.startswith("auth.token_")


async def test_two_tokens_are_ambiguous(probe_stand: Stand, claims: dict[str, Any], signed: Any) -> None:
    token = f"Bearer {signed(claims)}"
    assert await answer(probe_stand, token, token) == (400, "auth.several_tokens")


async def test_a_token_in_the_address_is_no_token(probe_stand: Stand, claims: dict[str, Any], signed: Any) -> None:
    url = f"{probe_stand.url}/execute?access_token={signed(claims)}"
    async with aiohttp.ClientSession() as session, session.post(url) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_users_token_of_the_api_is_not_one_for_agents(probe_stand: Stand, issuer: DevelopmentIssuer) -> None:
    roles = [Role.AGENT_EXECUTE, Role.RUNS_SUBMIT]
    user = issuer.mint("contoso", "ana", roles, audience=EXECUTE_AUDIENCE)
    assert (await answer(probe_stand, f"Bearer {user}"))[0] in (401, 403)
    api = issuer.mint("contoso", "ana", roles, audience="api://livoa")
    assert (await answer(probe_stand, f"Bearer {api}"))[0] == 401


async def refusal(auth: AgentAuth, token: str) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        await auth.check([f"Bearer {token}"])
    return caught.value.status, caught.value.code


async def test_callers_can_be_restricted(jwks: Path, claims: dict[str, Any], signed: Any) -> None:
    auth = AgentAuth(JwksFile(jwks), callers=frozenset({"another-app"}))
    assert await refusal(auth, signed(claims)) == (403, "auth.caller_not_allowed")
    assert (
        await AgentAuth(JwksFile(jwks), callers=frozenset({ENGINE_APP})).check([f"Bearer {signed(claims)}"])
        == ENGINE_APP
    )


async def test_without_keys_the_answer_is_later_not_yes(tmp_path: Path, claims: dict[str, Any], signed: Any) -> None:
    path = tmp_path / "jwks.json"
    auth = AgentAuth(JwksFile(path))
    assert await refusal(auth, signed(claims)) == (503, "auth.keys_unavailable")
    path.write_text("not json")
    assert await refusal(auth, signed(claims)) == (503, "auth.keys_unavailable")
    path.write_text('{"keys": []}')
    assert await refusal(auth, signed(claims)) == (401, "auth.token_invalid")


async def test_a_key_without_an_issuer_signs_for_nobody(
    tmp_path: Path, document: dict[str, Any], claims: dict[str, Any], signed: Any
) -> None:
    bound = document["keys"][0].pop("issuer")
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(document))
    assert await refusal(AgentAuth(JwksFile(path)), signed(claims)) == (401, "auth.token_invalid")
    assert await AgentAuth(JwksFile(path, issuer=bound)).check([f"Bearer {signed(claims)}"]) == ENGINE_APP


async def test_keys_are_fetched_once_and_unknown_ids_do_not_cause_a_storm(
    document: dict[str, Any], claims: dict[str, Any], signed: Any
) -> None:
    fetched, up, now = 0, True, 0.0
    body = json.dumps(document).encode()

    async def serve(_: Any, writer: Any) -> None:
        nonlocal fetched
        fetched += 1
        status = b"200 OK" if up else b"500 Broken"
        head = b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()

    async with raw_server(serve) as url:
        auth = AgentAuth(JwksUrl(f"{url}/keys", monotonic=lambda: now))
        up = False
        assert await refusal(auth, signed(claims)) == (503, "auth.keys_unavailable")
        assert await refusal(auth, signed(claims)) == (503, "auth.keys_unavailable")
        assert fetched == 1, "a failed fetch is not repeated at once"
        up, now = True, 11.0
        assert await auth.check([f"Bearer {signed(claims)}"]) == ENGINE_APP
        for number in range(50):
            assert await refusal(auth, signed(claims, kid=f"unknown-{number}")) == (401, "auth.token_invalid")
        assert fetched == 2, "the keys are seconds old"
        now = 400.0
        for number in range(50):
            await refusal(auth, signed(claims, kid=f"unknown-{number}"))
        assert fetched == 3
        up, now = False, 100_000.0
        assert await auth.check([f"Bearer {signed(claims)}"]) == ENGINE_APP, "stale keys go on while renewal fails"


@pytest.mark.parametrize("url", ["http://keys.example/jwks", "ftp://127.0.0.1:1/", "file:///etc/passwd"])
def test_keys_come_over_a_safe_way_only(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        JwksUrl(url)
