"""An authority for one machine: mints the tokens and grants that an agent in development accepts. For tests and the conformance
suite, never for anything that others can reach.

Its keys lie in a folder in the layout of the development stack (``./livoa up --data``), so either can go on with the other's:
``development-key.pem`` and ``development-jwks.json`` for tokens, ``grants/signing-key.pem`` and ``grants/jwks.json`` for grants.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.domain.execute import EXECUTE_AUDIENCE, ExecuteRequest
from engine.domain.grants import (
    BOUND_FIELDS,
    GRANT_ALGORITHM,
    GRANT_ISSUER,
    GRANT_KEYS_FILE,
    GRANT_TYPE,
    request_sha256,
)
from engine.domain.principal import Role

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

TOKEN_KEYS_FILE = "development-jwks.json"  # noqa: S105 - a file's name
ISSUER_TEMPLATE = "https://development.livoa.invalid/{tenantid}/v2.0"
_TOKEN_KEY = "development-key.pem"  # noqa: S105 - a file's name
_GRANT_KEY = "grants/signing-key.pem"
_DIRECTORY = str(uuid.UUID(int=0x10A))
CALLER = str(uuid.uuid5(uuid.UUID("6c1f6c0e-9a3b-5d0f-8a44-1f0b8d6f5c55"), "client/engine"))
"""The calling application in the tokens (``azp``): what the engine of a development stack is called."""


class Authority:
    """Holds both private keys. ``strange`` makes one whose keys nobody knows, under the names of the known ones."""

    def __init__(self, token_key: RSAPrivateKey, grant_key: EllipticCurvePrivateKey) -> None:
        self._token_key, self._grant_key = token_key, grant_key
        self._token_jwk, self._grant_jwk = _rsa_jwk(token_key), _ec_jwk(grant_key)

    @classmethod
    def open(cls, folder: Path) -> Authority:
        """The authority of a folder; makes keys and publishes their public halves where there are none."""
        authority = cls(_load(folder / _TOKEN_KEY, _new_rsa), _load(folder / _GRANT_KEY, _new_ec))
        for name, jwk in ((TOKEN_KEYS_FILE, authority._token_jwk), (GRANT_KEYS_FILE, authority._grant_jwk)):
            if not (folder / name).exists():
                (folder / name).write_text(json.dumps({"keys": [jwk]}, indent=2) + "\n", encoding="utf-8")
        return authority

    def public_pems(self) -> tuple[bytes, bytes]:
        """The public keys of tokens and of grants."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        form = Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        return self._token_key.public_key().public_bytes(*form), self._grant_key.public_key().public_bytes(*form)

    def strange(self) -> Authority:
        """One with other keys of the same names: whoever looks at names only is taken in."""
        other = Authority(_new_rsa(), _new_ec())
        other._token_jwk["kid"], other._grant_jwk["kid"] = self._token_jwk["kid"], self._grant_jwk["kid"]
        return other

    def token(self, *, audience: str = EXECUTE_AUDIENCE, **claims: Any) -> str:
        """A token of the orchestrator; ``claims`` replace its own, and None leaves one out."""
        import jwt

        now = int(time.time())
        own: dict[str, Any] = {
            "iss": ISSUER_TEMPLATE.replace("{tenantid}", _DIRECTORY),
            "tid": _DIRECTORY,
            "aud": audience,
            "azp": CALLER,
            "idtyp": "app",
            "roles": [Role.AGENT_EXECUTE.value],
            "iat": now,
            "nbf": now,
            "exp": now + 600,
            "uti": secrets.token_urlsafe(12),
        }
        payload = {name: value for name, value in (own | claims).items() if value is not None}
        return jwt.encode(payload, self._token_key, algorithm="RS256", headers={"kid": self._token_jwk["kid"]})

    def grant(
        self, request: ExecuteRequest, *, audience: str = EXECUTE_AUDIENCE, typ: str = GRANT_TYPE, **claims: Any
    ) -> str:
        """A grant for a request; ``claims`` as in ``token``. With another ``typ`` it is none."""
        import jwt

        now = int(time.time())
        own: dict[str, Any] = {name: getattr(request, name) for name in BOUND_FIELDS} | {
            "iss": GRANT_ISSUER,
            "aud": audience,
            "jti": secrets.token_urlsafe(18),
            "iat": now,
            "exp": now + 60,
            "input_sha256": request_sha256(request.capability, request.inputs),
        }
        payload = {name: value for name, value in (own | claims).items() if name == "item" or value is not None}
        headers = {"kid": self._grant_jwk["kid"], "typ": typ}
        return jwt.encode(payload, self._grant_key, algorithm=GRANT_ALGORITHM, headers=headers)


def unsigned(token: str) -> str:
    """The same header and content, saying of itself that it needs no signature."""
    head, content, _ = token.split(".")
    return f"{_with_algorithm(head, 'none')}.{content}."


def signed_with_public_key(token: str, public_key: bytes) -> str:
    """The same content under an HMAC whose secret is the public key that everybody has: what a verifier takes for good that
    lets the token say how it is to be verified."""
    head, content, _ = token.split(".")
    signed = f"{_with_algorithm(head, 'HS256')}.{content}"
    return f"{signed}.{_encode(hmac.digest(public_key, signed.encode(), 'sha256'))}"


def _with_algorithm(head: str, algorithm: str) -> str:
    found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    return _encode(_spelled(found | {"alg": algorithm}))


def _new_rsa() -> RSAPrivateKey:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65_537, key_size=2048)


def _new_ec() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _load(path: Path, make: Any) -> Any:
    from cryptography.hazmat.primitives import serialization as form

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = make().private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
        # Linking fails where the file exists already: of two that start together one wins, and both use its key.
        with suppress(FileExistsError):
            os.link(temporary, path)
        temporary.unlink()
    return form.load_pem_private_key(path.read_bytes(), password=None)


def _rsa_jwk(key: RSAPrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    members = {"e": _number(numbers.e), "kty": "RSA", "n": _number(numbers.n)}
    kid = hashlib.sha256(_spelled(members)).hexdigest()[:32]
    return members | {"use": "sig", "alg": "RS256", "kid": kid, "issuer": ISSUER_TEMPLATE}


def _ec_jwk(key: EllipticCurvePrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    members = {"crv": "P-256", "kty": "EC", "x": _number(numbers.x, 32), "y": _number(numbers.y, 32)}
    kid = _encode(hashlib.sha256(_spelled(members)).digest())
    return members | {"use": "sig", "alg": GRANT_ALGORITHM, "kid": kid, "issuer": GRANT_ISSUER}


def _spelled(members: dict[str, str]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()


def _number(value: int, length: int = 0) -> str:
    return _encode(value.to_bytes(length or (value.bit_length() + 7) // 8))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
