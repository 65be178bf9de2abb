"""Who calls: validate the orchestrator's app-only bearer token. There is no way to turn this off.

Deliberately not here: tenants (the body names the tenant; a trusted caller is trusted with all of them), users, and roles other
than the one that lets an app execute. Facts about claims: Entra ID v2.0 access tokens; ``idtyp`` is ``app`` in app-only tokens
and ``azp`` names the calling application.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent_kit.problems import RefusedError
from engine.domain.egress import EgressRules
from engine.domain.errors import LivoaError
from engine.domain.execute import EXECUTE_AUDIENCE
from engine.domain.principal import Role
from engine.domain.strict_json import parse

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_TOKEN_BYTES = 8 * 1024
_MAX_JWKS_BYTES = 256 * 1024
_MIN_RSA_BITS = 2048
_LEEWAY_S = 30
_REQUIRED = ["exp", "nbf", "iat", "iss", "aud", "tid", "azp", "idtyp"]
_TENANT_PLACEHOLDER = "{tenantid}"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key, the issuer it signs for (``{tenantid}`` in it stands for the token's directory), and its one algorithm."""

    public_key: RSAPublicKey | EllipticCurvePublicKey
    issuer: str
    algorithm: str


class KeySet(Protocol):
    """Finds a signing key by its id. ``RefusedError`` 503 when it cannot tell."""

    async def find(self, kid: str) -> TrustedKey | None:
        """The key, or None when there is none of that id."""
        ...


def _unavailable() -> RefusedError:
    return RefusedError(
        503, "auth.keys_unavailable", "The signing keys cannot be had.", retryable=True, retry_after_s=5
    )


def read_jwks(data: bytes, *, issuer: str | None) -> dict[str, TrustedKey]:
    """The usable keys of a JWKS document (RFC 7517) by id, bound to an issuer: RSA of at least 2048 bits (RS256, tokens) and
    P-256 (ES256, grants).

    ``issuer`` is the binding of keys that name none themselves; without either a key is left out.
    """
    document = parse(data, max_bytes=_MAX_JWKS_BYTES, max_depth=8)
    entries = document.get("keys") if isinstance(document, dict) else None
    found: dict[str, TrustedKey] = {}
    for entry in entries if isinstance(entries, list) else []:
        key = _read_key(entry, issuer)
        if key is not None:
            found[entry["kid"]] = key
    return found


def _read_key(entry: Any, issuer: str | None) -> TrustedKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig":
        return None
    bound = entry.get("issuer", issuer)
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(entry.get("kty")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm or not isinstance(bound, str):
        return None
    key = _public_key(entry)
    return None if key is None else TrustedKey(key, bound, algorithm)


def _public_key(entry: dict[str, Any]) -> RSAPublicKey | EllipticCurvePublicKey | None:
    """Only the public members are handed on: a private key in the document is never taken into memory."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jwt import PyJWTError
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    key: Any
    try:
        if entry["kty"] == "EC":
            if entry["crv"] != "P-256":
                return None
            key = ECAlgorithm.from_jwk({"kty": "EC", "crv": "P-256", "x": entry["x"], "y": entry["y"]})
            return key if isinstance(key, EllipticCurvePublicKey) else None
        key = RSAAlgorithm.from_jwk({"kty": "RSA", "n": entry["n"], "e": entry["e"]})
    except (PyJWTError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return key if isinstance(key, RSAPublicKey) and key.key_size >= _MIN_RSA_BITS else None


class JwksFile:
    """Keys in a local file, read anew when it changes."""

    def __init__(self, path: Path, *, issuer: str | None = None) -> None:
        self._path, self._issuer = path, issuer
        self._seen: tuple[int, int] | None = None
        self._keys: Mapping[str, TrustedKey] = {}

    async def find(self, kid: str) -> TrustedKey | None:
        """See ``KeySet``."""
        try:
            stat = self._path.stat()
            if (stat.st_mtime_ns, stat.st_size) != self._seen:
                self._keys = read_jwks(self._path.read_bytes(), issuer=self._issuer)
                self._seen = (stat.st_mtime_ns, stat.st_size)
        except (OSError, LivoaError) as error:
            raise _unavailable() from error
        return self._keys.get(kid)


class JwksUrl:
    """Keys at a fixed address: kept for a day, used stale while a renewal fails, at most one fetch per five minutes for unknown
    ids. The address is configuration and must be https, or http on loopback."""

    TTL_S = 86_400.0
    UNKNOWN_S = 300.0
    RETRY_S = 10.0

    def __init__(self, url: str, *, issuer: str | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        if not url.startswith(("https://", "http://127.0.0.1:", "http://[::1]:")):
            raise ValueError("a JWKS address must be https, or http on loopback")
        self._url, self._issuer, self._monotonic = url, issuer, monotonic
        self._keys: Mapping[str, TrustedKey] = {}
        self._loaded_at = self._tried_at = float("-inf")
        self._failed = False
        self._lock = asyncio.Lock()

    async def find(self, kid: str) -> TrustedKey | None:
        """See ``KeySet``."""
        if self._due(kid):
            async with self._lock:
                if self._due(kid):
                    await self._renew()
        found = self._keys.get(kid)
        # After a failed fetch an unknown id proves nothing: it may stand in the keys we could not get.
        if found is None and self._failed:
            raise _unavailable()
        return found

    def _due(self, kid: str) -> bool:
        now = self._monotonic()
        if now - self._loaded_at >= self.TTL_S:
            return now - self._tried_at >= self.RETRY_S
        return kid not in self._keys and now - self._tried_at >= (self.RETRY_S if self._failed else self.UNKNOWN_S)

    async def _renew(self) -> None:
        self._tried_at = self._monotonic()
        try:
            self._keys = read_jwks(await _fetch(self._url), issuer=self._issuer)
            self._loaded_at, self._failed = self._monotonic(), False
        except (OSError, LivoaError, TimeoutError, ValueError):
            self._failed = True  # the keys we have go on


async def _fetch(url: str) -> bytes:
    from yarl import URL

    from agent_kit.egress import get_bytes

    # The address is the operator's, so it may be a private one; a metadata address it never is.
    rules = EgressRules.of([URL(url).authority], allow_private=True, allow_loopback=True)
    status, body = await get_bytes(url, rules=rules, timeout_s=5, max_bytes=_MAX_JWKS_BYTES)
    if status != 200:
        raise OSError(f"the key set answered {status}")
    return body


@dataclass(frozen=True, slots=True)
class AgentAuth:
    """The check every call passes. ``callers`` restricts the calling applications (``azp``); None allows each one that has
    the role."""

    keys: KeySet
    audience: str = EXECUTE_AUDIENCE
    role: str = Role.AGENT_EXECUTE.value
    callers: frozenset[str] | None = None

    async def check(self, authorization: list[str]) -> str:
        """Validate the ``Authorization`` headers of a request; returns the calling application.

        Raises ``RefusedError``: 400 for several headers, 401 ``auth.*`` for a token that is not valid here, 403 for a
        valid one that may not execute. Messages say nothing about the token's content.
        """
        if len(authorization) > 1:
            raise RefusedError(400, "auth.several_tokens", "Send one Authorization header.")
        scheme, _, token = (authorization[0] if authorization else "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise RefusedError(401, "auth.token_missing", "Send a bearer token.")
        claims = await self._claims(token.strip())
        caller = claims["azp"]
        if not isinstance(caller, str) or claims["idtyp"] != "app":
            raise RefusedError(403, "auth.not_an_app", "Only applications may execute.")
        roles = claims.get("roles")
        if not isinstance(roles, list) or self.role not in roles:
            raise RefusedError(403, "auth.role_missing", f"The role {self.role} is required.")
        if self.callers is not None and caller not in self.callers:
            raise RefusedError(403, "auth.caller_not_allowed", "This application may not call here.")
        return caller

    async def _claims(self, token: str) -> dict[str, Any]:
        import jwt

        invalid = RefusedError(401, "auth.token_invalid", "The token is not valid here.")
        if len(token) > MAX_TOKEN_BYTES:
            raise invalid
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self.keys.find(kid) if isinstance(kid, str) else None
            if key is None or key.algorithm != "RS256":
                raise invalid
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public_key,
                algorithms=["RS256"],
                audience=self.audience,
                leeway=_LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise RefusedError(401, "auth.token_expired", "The token has expired.") from None
        except jwt.InvalidAudienceError:
            raise RefusedError(401, "auth.audience_wrong", "The token is for somebody else.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise invalid from None
        # PyJWT accepts a list that contains the audience; such a token could be replayed at every other member of the list.
        issued_by = key.issuer.replace(_TENANT_PLACEHOLDER, str(claims["tid"]))
        if claims["aud"] != self.audience or claims["iss"] != issued_by:
            raise invalid
        return claims
