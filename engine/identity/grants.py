"""Mint execution grants with a key that stays with its signer, and publish the public half.

A key of its own: what signs evidence must not be able to permit calls, nor the other way round.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import secrets
from pathlib import Path
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.errors import LivoaError
from engine.domain.execute import EXECUTE_AUDIENCE, ExecuteRequest
from engine.domain.grants import (
    BOUND_FIELDS,
    GRANT_ALGORITHM,
    GRANT_ISSUER,
    GRANT_TYPE,
    MAX_GRANT_LIFETIME_S,
    Grant,
    request_sha256,
)
from engine.identity.key_files import publish
from engine.ports.checkpoints import Signer, with_current_key
from engine.ports.clock import Clock

_PEM_END = b"-----END PUBLIC KEY-----"
_WRITE = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class SignedGrants:
    """Implements ``Grants``. ``audience`` is what agents accept as theirs; with ``publish_to``, the keys are written into that
    file before the first grant leaves, for agents on the same machine."""

    def __init__(
        self, signer: Signer, clock: Clock, *, audience: str = EXECUTE_AUDIENCE, publish_to: Path | None = None
    ) -> None:
        self._signer, self._clock = signer, clock
        self._audience = audience
        self._publish_to = publish_to

    async def mint(self, request: ExecuteRequest) -> str:
        """See the port."""
        await self._publish()
        claims = self._claims(request).model_dump()

        async def signed_by(key_id: str) -> str:
            header = {"alg": GRANT_ALGORITHM, "kid": key_id, "typ": GRANT_TYPE}
            signed = b".".join(_encode(_json(part)) for part in (header, claims))
            return (signed + b"." + _encode(await self._signer.sign(signed, key_id))).decode()

        return await with_current_key(self._signer, signed_by)

    async def _publish(self) -> None:
        place = self._publish_to
        if place is None:
            return
        published = json.dumps(await self.jwks(), indent=2).encode() + b"\n"
        try:
            await asyncio.to_thread(publish, place, published)
        except OSError as err:
            raise LivoaError("grants.not_published", "the keys of grants cannot be published", status=503) from err
        self._publish_to = None

    def _claims(self, request: ExecuteRequest) -> Grant:
        now = self._clock.now().timestamp()
        until = min(request.deadline_at.timestamp(), now + MAX_GRANT_LIFETIME_S)
        try:
            input_sha256 = request_sha256(request.capability, request.inputs)
        except ValueError as err:
            raise LivoaError("grants.inputs_invalid", "the inputs have no canonical form", status=422) from err
        bound: dict[str, Any] = {name: getattr(request, name) for name in BOUND_FIELDS}
        return Grant(
            iss=GRANT_ISSUER,
            aud=self._audience,
            jti=secrets.token_urlsafe(18),
            iat=int(now),
            exp=max(int(now) + 1, math.ceil(until)),
            input_sha256=input_sha256,
            **bound,
        )

    async def jwks(self) -> JsonObject:
        """See the port."""
        return jwks_of(await self._signer.public_pem())


def jwks_of(pem: bytes) -> JsonObject:
    """Public P-256 keys in PEM blocks as a JWKS document; each is named by its thumbprint (RFC 7638), as signers name it.

    Raises ``LivoaError("grants.key_invalid")`` for a block that is something else, or no block at all.
    """
    blocks = [block.strip() + b"\n" + _PEM_END for block in pem.split(_PEM_END) if block.strip()]
    if not blocks:
        raise LivoaError("grants.key_invalid", "there is no key of grants", status=500)
    return {"keys": [_jwk(block) for block in blocks]}


def _jwk(block: bytes) -> JsonObject:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(block)
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("not a P-256 key")
    except ValueError as err:
        raise LivoaError("grants.key_invalid", "the key of grants is none of P-256", status=500) from err
    numbers = key.public_numbers()
    members = {
        "crv": "P-256",
        "kty": "EC",
        "x": _encode(numbers.x.to_bytes(32)).decode(),
        "y": _encode(numbers.y.to_bytes(32)).decode(),
    }
    kid = _encode(hashlib.sha256(_json(members)).digest()).decode()
    return {**members, "use": "sig", "alg": GRANT_ALGORITHM, "kid": kid, "issuer": GRANT_ISSUER}


def _json(value: JsonObject) -> bytes:
    return _WRITE(value).encode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
