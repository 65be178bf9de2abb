"""Signed checkpoints on paper: compact JWS (RFC 7515) with ES256 and nothing to choose, and the keys that check them.

One algorithm, one header, one spelling of the payload (its RFC 8785 form): whatever deviates is refused, so a signature cannot
be made to mean something else. Private keys are never seen here; the port ``Signer`` has them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.domain.base import JsonObject, iso_utc
from engine.domain.checkpoint import Checkpoint
from engine.domain.errors import LivoaError
from engine.evidence.canonical import canonical_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

TYPE = "livoa-checkpoint"
MAX_JWS_BYTES = 16 * 1024
_COORDINATE_BYTES = 32
_PEM_END = b"-----END PUBLIC KEY-----"

PublicKeys = Mapping[str, "EllipticCurvePublicKey"]
"""Keys that may have signed, by key id."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A JWS taken apart. Its signature has not been looked at."""

    key_id: str
    checkpoint: Checkpoint
    signing_input: bytes
    signature: bytes


def signing_input(checkpoint: Checkpoint, key_id: str) -> bytes:
    """What is signed: header and payload of the JWS."""
    header = canonical_bytes({"alg": "ES256", "kid": key_id, "typ": TYPE})
    return _encode(header) + b"." + _encode(canonical_bytes(_payload(checkpoint)))


def assemble(signed: bytes, signature: bytes) -> str:
    """The JWS of a signing input and its signature (r and s, 32 bytes each)."""
    return (signed + b"." + _encode(signature)).decode()


def take_apart(jws: str) -> Signed:
    """Raises ``LivoaError("anchor.unreadable")`` for anything but exactly what ``assemble`` makes."""
    try:
        if len(jws) > MAX_JWS_BYTES:
            raise ValueError("too long")
        head, payload, signature = jws.encode("ascii").split(b".")
        header = json.loads(_decode(head))
        checkpoint = Checkpoint.model_validate_json(_decode(payload))
        key_id = header["kid"]
        signed = head + b"." + payload
        if not isinstance(key_id, str) or signing_input(checkpoint, key_id) != signed:
            raise ValueError("another spelling")
        return Signed(key_id, checkpoint, signed, _decode(signature))
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise LivoaError("anchor.unreadable", "this is not a signed checkpoint", status=500) from err


def holds(signed: Signed, key: EllipticCurvePublicKey) -> bool:
    """True when ``key`` made the signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.hashes import SHA256

    if len(signed.signature) != 2 * _COORDINATE_BYTES:
        return False
    r = int.from_bytes(signed.signature[:_COORDINATE_BYTES])
    s = int.from_bytes(signed.signature[_COORDINATE_BYTES:])
    try:
        key.verify(encode_dss_signature(r, s), signed.signing_input, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def key_id_of(key: EllipticCurvePublicKey) -> str:
    """The key's JWK thumbprint (RFC 7638), base64url."""
    numbers = key.public_numbers()
    jwk = {
        "crv": "P-256",
        "kty": "EC",
        "x": _encode(numbers.x.to_bytes(_COORDINATE_BYTES)).decode(),
        "y": _encode(numbers.y.to_bytes(_COORDINATE_BYTES)).decode(),
    }
    return _encode(hashlib.sha256(canonical_bytes(jwk)).digest()).decode()


def public_keys(pem: bytes) -> dict[str, EllipticCurvePublicKey]:
    """The P-256 keys in a file of PEM blocks, by key id.

    Raises ``LivoaError("audit.key_invalid")`` when there is none, or a block that is something else.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    keys: dict[str, EllipticCurvePublicKey] = {}
    *blocks, rest = pem.split(_PEM_END)
    try:
        for block in blocks:
            key = load_pem_public_key(block.strip() + _PEM_END + b"\n")
            if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
                raise ValueError("not a P-256 key")
            keys[key_id_of(key)] = key
    except ValueError as err:
        raise LivoaError("audit.key_invalid", "a public key is a PEM block of a P-256 key", status=500) from err
    if not keys or rest.strip():
        raise LivoaError("audit.key_invalid", "there is no public key, or something behind it", status=500)
    return keys


def _payload(checkpoint: Checkpoint) -> JsonObject:
    fields: dict[str, Any] = checkpoint.model_dump(mode="python")
    return fields | {"at": iso_utc(checkpoint.at)}


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as err:
        raise ValueError("not base64url") from err
    if _encode(data) != text:
        raise ValueError("base64url has one spelling")
    return data
