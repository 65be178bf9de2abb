"""Grants as they are minted: one header, claims of one call, never longer than the call may take."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from engine.adapters.files.signing_key import FileSigner
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteRequest
from engine.domain.grants import Grant, differences
from engine.identity.grants import SignedGrants, jwks_of

NOW = datetime(2026, 11, 29, 12, 0, 0, 250_000, tzinfo=UTC)


class Clock:
    def now(self) -> datetime:
        return NOW


def asked(**changes: Any) -> ExecuteRequest:
    fields: dict[str, Any] = {
        "tenant_id": "contoso",
        "run_id": "r",
        "step_id": "s",
        "attempt": 1,
        "capability": "probe.count",
        "inputs": {"note": "a"},
        "idempotency_key": "r/s",
        "deadline_at": NOW + timedelta(hours=10),
    }
    return ExecuteRequest.model_validate(fields | changes)


@pytest.fixture
def grants(tmp_path: Path) -> SignedGrants:
    signer = FileSigner(tmp_path / "grants" / "key.pem", create=True)
    return SignedGrants(signer, Clock(), publish_to=tmp_path / "grants" / "jwks.json")


def part(grant: str, number: int) -> dict[str, Any]:
    text = grant.split(".")[number]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


async def test_any_reader_of_jws_can_check_one(grants: SignedGrants, tmp_path: Path) -> None:
    minted = await grants.mint(asked())
    published = json.loads((tmp_path / "grants" / "jwks.json").read_text())
    assert published == await grants.jwks()
    (entry,) = published["keys"]
    key = jwt.PyJWK(entry)
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(minted, key, algorithms=["ES256"], audience="api://livoa-agents", options=options)
    assert differences(Grant.model_validate(claims), asked()) == ()
    assert part(minted, 0) == {"alg": "ES256", "kid": entry["kid"], "typ": "livoa-grant+jwt"}
    assert b"PRIVATE" not in (tmp_path / "grants" / "jwks.json").read_bytes()
    assert "d" not in entry


@pytest.mark.parametrize(("left_s", "lives_s"), [(36_000, 301), (300, 301), (20, 21), (0.1, 1), (-5, 1)])
async def test_it_lives_for_minutes_and_not_beyond_the_call(grants: SignedGrants, left_s: float, lives_s: int) -> None:
    claims = part(await grants.mint(asked(deadline_at=NOW + timedelta(seconds=left_s))), 1)
    assert claims["exp"] - claims["iat"] == lives_s
    assert claims["iat"] == int(NOW.timestamp())


async def test_each_has_an_id_of_its_own(grants: SignedGrants) -> None:
    ids = {part(await grants.mint(asked()), 1)["jti"] for _ in range(20)}
    assert len(ids) == 20


async def test_inputs_without_a_canonical_form_get_none(grants: SignedGrants) -> None:
    with pytest.raises(LivoaError) as caught:
        await grants.mint(asked(inputs={"note": float("nan")}))
    assert caught.value.code == "grants.inputs_invalid"


def test_only_keys_of_the_curve_are_published() -> None:
    rsa = generate_private_key(public_exponent=65_537, key_size=2048).public_key()
    for pem in (rsa.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), b"-----END PUBLIC KEY-----", b"x"):
        with pytest.raises(LivoaError) as caught:
            jwks_of(pem)
        assert caught.value.code == "grants.key_invalid"
