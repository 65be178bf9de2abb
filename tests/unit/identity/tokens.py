"""Tokens of every kind for tests: a directory's key pair, a clock that stands still, and claims that can be bent."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from engine.domain.tenant import TenantConfig, TrustedIssuer
from engine.identity import JwtTokenValidator, parse_jwks

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AUDIENCE = "11111111-aaaa-4bbb-8ccc-000000000001"
TID = "aaaaaaaa-0000-4000-8000-000000000001"
OTHER_TID = "bbbbbbbb-0000-4000-8000-000000000002"
STRANGER_TID = "cccccccc-0000-4000-8000-000000000003"
SUSPENDED_TID = "dddddddd-0000-4000-8000-000000000004"
CONSUMER_TID = "9188040d-6c67-4c5b-b112-36a304b66dad"
OID = "eeeeeeee-0000-4000-8000-000000000005"
CLIENT = "ffffffff-0000-4000-8000-000000000006"
TEMPLATE = "https://login.example.test/{tenantid}/v2.0"


def issuer(tid: str) -> str:
    return TEMPLATE.replace("{tenantid}", tid)


@dataclass
class FixedClock:
    at: datetime = NOW

    def now(self) -> datetime:
        return self.at

    def pass_s(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key per name; making one takes a while."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


def public_pem(name: str) -> bytes:
    return (
        rsa_key(name)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def jwk(name: str, *, issuer: str | None = TEMPLATE, **more: Any) -> dict[str, Any]:
    public = RSAAlgorithm.to_jwk(rsa_key(name).public_key(), as_dict=True)
    members = {"kty": "RSA", "use": "sig", "kid": name, "n": public["n"], "e": public["e"]}
    return members | ({"issuer": issuer} if issuer else {}) | more


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


DIRECTORY_JWKS = jwks(jwk("directory"), jwk("consumer", issuer=issuer(CONSUMER_TID)))


class StaticKeys:
    def __init__(self, data: bytes = DIRECTORY_JWKS) -> None:
        self._keys = parse_jwks(data)

    async def key(self, kid: str) -> Any:
        return self._keys.get(kid)


def tenant(tenant_id: str, tid: str, **more: Any) -> TenantConfig:
    return TenantConfig(
        tenant_id=tenant_id,
        display_name=tenant_id,
        issuers=(TrustedIssuer(issuer=issuer(tid), directory_id=tid),),
        **({"allowed_client_apps": (CLIENT,)} | more),
    )


class Directory:
    def __init__(self, *tenants: TenantConfig) -> None:
        self._tenants = tenants

    async def get(self, tenant_id: str) -> TenantConfig | None:
        return next((t for t in self._tenants if t.tenant_id == tenant_id), None)

    async def by_directory(self, issuer: str, directory_id: str) -> TenantConfig | None:
        wanted = TrustedIssuer(issuer=issuer, directory_id=directory_id)
        return next((t for t in self._tenants if wanted in t.issuers), None)

    async def all(self) -> tuple[TenantConfig, ...]:
        return self._tenants


def directory() -> Directory:
    return Directory(
        tenant("contoso", TID), tenant("fabrikam", OTHER_TID), tenant("sleepy", SUSPENDED_TID, status="suspended")
    )


def validator(clock: FixedClock | None = None, keys: Any = None) -> JwtTokenValidator:
    return JwtTokenValidator(keys or StaticKeys(), directory(), clock or FixedClock(), audience=AUDIENCE)


def user_claims(**changes: Any) -> dict[str, Any]:
    """Claims of a good delegated token. A change to ``...`` removes the claim."""
    at = int(NOW.timestamp())
    claims = {
        "iss": issuer(TID), "aud": AUDIENCE, "tid": TID, "oid": OID, "ver": "2.0", "azp": CLIENT, "uti": "token-1",
        "scp": "profile access_as_user", "roles": ["Runs.Submit"], "iat": at, "nbf": at, "exp": at + 3600,
    } | changes  # fmt: skip
    return {name: value for name, value in claims.items() if value is not ...}


def app_claims(**changes: Any) -> dict[str, Any]:
    return user_claims(**({"scp": ..., "idtyp": "app"} | changes))


@dataclass
class Token:
    """A token about to be signed; ``headers`` are added to alg, typ and kid."""

    claims: dict[str, Any] = field(default_factory=user_claims)
    key: str = "directory"
    kid: str | None = "directory"
    headers: dict[str, Any] = field(default_factory=dict)

    def sign(self) -> str:
        headers = ({"kid": self.kid} if self.kid is not None else {}) | self.headers
        # As bytes: the library's own encoder refuses some of the claims that a validator must be able to meet.
        payload = json.dumps(self.claims).encode()
        return jwt.PyJWS().encode(payload, rsa_key(self.key), algorithm="RS256", headers=headers)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hand_made(header: dict[str, Any], claims: Any, secret: bytes | None) -> str:
    """A token whose header no library would write. Without ``secret`` the signature is some bytes."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    signature = b"not a signature" if secret is None else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{b64(signature)}"
