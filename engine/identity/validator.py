"""From a bearer token to a principal. One path for every token: Entra's, the development issuer's, users' and apps'.

Order matters: size and header before any cryptography, the signature before any claim is believed, the claims before any
look-up. The algorithm is ours, never the token's. The clock is injected, so the library's own time checks stay off.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import jwt

from engine.domain.errors import LivoaError
from engine.domain.principal import Principal
from engine.identity.claims import TokenClaims, is_guid, principal_for, read_claims, subject_of
from engine.identity.errors import refused
from engine.identity.keys import KeySource, SigningKey
from engine.ports.clock import Clock
from engine.ports.identity import Speaker, TokenRefusedError
from engine.ports.tenant_directory import TenantDirectory

MAX_TOKEN_CHARS = 16 * 1024
ALGORITHM = "RS256"
MAX_KEPT_TOKENS = 1_024
"""Of how many tokens it is remembered that their signature holds; the one not shown for longest goes first."""
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# Everything else (jku, jwk, x5u, x5c, crit, zip, …) is an instruction from whoever made the token.
_HEADERS = frozenset({"alg", "typ", "kid", "x5t"})
_TYPES = frozenset({"JWT", "at+jwt"})
_OFF = ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti")


class JwtTokenValidator:
    """The ``TokenValidator`` of the system."""

    def __init__(self, keys: KeySource, tenants: TenantDirectory, clock: Clock, *, audience: str) -> None:
        self._keys, self._tenants, self._clock, self._audience = keys, tenants, clock, audience
        self._genuine: OrderedDict[bytes, tuple[SigningKey, Mapping[str, Any]]] = OrderedDict()

    async def validate(self, token: str) -> Principal:
        """See ``engine.ports.identity.TokenValidator``."""
        key, payload = await self._signed(token)
        try:
            claims = read_claims(payload, audience=self._audience, now=self._clock.now())
            _check_issuer(claims, key)
            return principal_for(claims, await self._tenants.by_directory(claims.issuer, claims.directory_id))
        except LivoaError as err:
            speaker = await self._speaker(payload, key) if err.status < 500 else None
            if speaker is None:
                raise
            raise TokenRefusedError(err, speaker) from err

    async def _signed(self, token: str) -> tuple[SigningKey, Mapping[str, Any]]:
        """The key, and what it has signed.

        A client shows the same token with every request, and reading it costs more than most requests. That its signature holds
        under a key follows from the two alone, so that and nothing else is remembered: the key is looked up each time and has to
        be the very same, and times, audience, issuer and tenant are looked at each time.
        """
        if len(token) > MAX_TOKEN_CHARS:
            raise refused("auth.token_invalid")
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        kept = self._genuine.get(name)
        key = await self._keys.key(kept[0].kid if kept is not None else _key_id(token))
        if key is None:
            raise refused("auth.token_invalid")
        if kept is None or kept[0] is not key:
            kept = (key, _verified_payload(token, key))
        self._genuine[name] = kept
        self._genuine.move_to_end(name)
        while len(self._genuine) > MAX_KEPT_TOKENS:
            self._genuine.popitem(last=False)
        return kept

    async def _speaker(self, payload: Mapping[str, Any], key: SigningKey) -> Speaker | None:
        """For whom a genuine token speaks that is refused for what it says. None where its signature vouches for nobody."""
        issuer, directory, person = (payload.get(name) for name in ("iss", "tid", "oid"))
        if not (isinstance(issuer, str) and is_guid(directory) and is_guid(person)) or not key.signs_for(
            issuer, directory
        ):
            return None
        tenant = await self._tenants.by_directory(issuer, directory)
        if tenant is None:
            return None
        app = payload.get("azp")
        return Speaker(tenant.tenant_id, subject_of(directory, person), app if is_guid(app) else "")


def _key_id(token: str) -> str:
    """The key id of a token whose header asks for nothing but what we do anyway."""
    if _COMPACT.fullmatch(token) is None:
        raise refused("auth.token_invalid")
    try:
        header: Mapping[str, Any] = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as err:
        raise refused("auth.token_invalid") from err
    kid, kind = header.get("kid"), header.get("typ", "JWT")
    plain = header.keys() <= _HEADERS and header.get("alg") == ALGORITHM and isinstance(kind, str) and kind in _TYPES
    if not plain or not isinstance(kid, str) or not 0 < len(kid) <= 200:
        raise refused("auth.token_invalid")
    return kid


def _verified_payload(token: str, key: SigningKey) -> Mapping[str, Any]:
    options: Any = {"verify_signature": True, "require": []} | dict.fromkeys(_OFF, False)
    try:
        return jwt.decode(token, key.public_key, algorithms=[ALGORITHM], options=options)
    except (jwt.PyJWTError, ValueError, RecursionError) as err:
        raise refused("auth.token_invalid") from err


def _check_issuer(claims: TokenClaims, key: SigningKey) -> None:
    """The key must belong to the issuer, and the issuer to the directory: a genuine signature of somebody else is not enough."""
    if claims.directory_id not in claims.issuer or not key.signs_for(claims.issuer, claims.directory_id):
        raise refused("auth.issuer_wrong")
