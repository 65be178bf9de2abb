"""Signs checkpoints with a P-256 key in Azure Key Vault or a managed HSM, over its REST interface (api-version 7.4).

What is used of it: ``GET /keys/{name}/{version}`` (public half), ``GET /keys/{name}/versions`` and ``POST …/sign`` with ES256
over a digest. The identity needs ``get``, ``list`` and ``sign`` of keys and nothing else; the vault logs each signature.
To change the key make a new version: processes that start after that sign with it, and old checkpoints stay checkable.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.adapters.egress import GuardedClient
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError
from engine.evidence.signed import key_id_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

VAULT_AUDIENCE = "https://vault.azure.net"
_API = "api-version=7.4"
_PATH = re.compile(r"/keys/([0-9A-Za-z-]{1,127})(?:/([0-9a-f]{32}))?/?")
_MAX_BYTES = 256 * 1024
_MAX_PAGES = 10
_TIMEOUT_S = 5.0
_SIGNATURE_BYTES = 64
_KEYS_FRESH_S = 60.0
"""How long the list of versions is believed: a process that signs with a newer one shows up in it within a minute."""


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of the key: its address without query, and its public half."""

    address: str
    public: EllipticCurvePublicKey


class KeyVaultSigner:
    """Implements ``Signer``. ``key_url`` is ``https://{vault}/keys/{name}``, with ``/{version}`` to stay with that one.

    Raises ``LivoaError("settings.invalid")`` for another address. Methods raise ``LivoaError``: ``audit.key_unavailable`` (503)
    when the vault does not answer or refuses, ``audit.key_invalid`` (500) for a key that is none of P-256, and what the
    ``credential`` raises. ``ssl_context`` and ``allow_loopback`` are for a vault on this machine.
    """

    def __init__(
        self,
        key_url: str,
        credential: Callable[[], Awaitable[str]],
        *,
        ssl_context: ssl.SSLContext | None = None,
        allow_loopback: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(key_url)
        path = _PATH.fullmatch(parts.path)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None or parts.query or path is None:
            raise LivoaError("settings.invalid", "The signing key is https://VAULT/keys/NAME.", status=500)
        try:
            host = f"{parts.hostname}:{parts.port or 443}"
            rules = EgressRules.of([host], allow_private=True, allow_loopback=allow_loopback)
        except EgressRefusedError as err:
            raise LivoaError(
                "settings.invalid", "The vault of the signing key has no ordinary host.", status=500
            ) from err
        self._client = GuardedClient(rules, ssl_context=ssl_context)
        self._credential, self._monotonic = credential, monotonic
        self._origin = f"https://{parts.netloc}"
        self._name, self._pinned = path[1], path[2]
        self._current: _Version | None = None
        self._keys: tuple[float, bytes] | None = None

    async def key_id(self) -> str:
        """See ``Signer.key_id``."""
        return key_id_of((await self._signing()).public)

    async def sign(self, data: bytes) -> bytes:
        """See ``Signer.sign``. The vault sees the digest only."""
        digest = _encode(hashlib.sha256(data).digest())
        found = await self._ask("POST", f"{(await self._signing()).address}/sign", {"alg": "ES256", "value": digest})
        signature = _decode(found.get("value"))
        if len(signature) != _SIGNATURE_BYTES:
            raise _unavailable("the vault answered with something that is no signature")
        return signature

    async def public_pem(self) -> bytes:
        """See ``Signer.public_pem``: the enabled versions of the key."""
        now = self._monotonic()
        if self._keys is None or now - self._keys[0] > _KEYS_FRESH_S:
            addresses = await self._versions()
            self._keys = (now, b"".join([_pem((await self._version(address)).public) for address in addresses]))
        return self._keys[1]

    async def _signing(self) -> _Version:
        if self._current is None:
            self._current = await self._version(f"{self._origin}/keys/{self._name}/{self._pinned or ''}")
        return self._current

    async def _version(self, address: str) -> _Version:
        key = (await self._ask("GET", address)).get("key")
        if not isinstance(key, dict):
            raise _unavailable("the vault answered with something that is no key")
        return _Version(self._own(key.get("kid")), _public(key))

    async def _versions(self) -> list[str]:
        addresses: list[str] = []
        url: str | None = f"{self._origin}/keys/{self._name}/versions"
        for _ in range(_MAX_PAGES):
            page = await self._ask("GET", url)
            for item in page.get("value") or ():
                if not isinstance(item, dict):
                    raise _unavailable("the vault answered with something that is no list of keys")
                if (item.get("attributes") or {}).get("enabled", True):
                    addresses.append(self._own(item.get("kid")))
            url = page.get("nextLink") or None
            if url is None:
                break
        return addresses

    def _own(self, kid: Any) -> str:
        """An address that the vault gave us, when it is one of this key."""
        parts = urlsplit(kid if isinstance(kid, str) else "")
        path = _PATH.fullmatch(parts.path)
        if path is None or path[1] != self._name or path[2] is None:
            raise _unavailable("the vault answered about another key")
        return f"{self._origin}/keys/{self._name}/{path[2]}"

    async def _ask(self, method: str, url: str | None, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {await self._credential()}", "Content-Type": "application/json"}
        address = url or ""
        target = address if "api-version=" in address else f"{address}?{_API}"
        data = json.dumps(body).encode() if body is not None else None
        try:
            fetched = await self._client.fetch(
                method, target, deadline_s=_TIMEOUT_S, max_bytes=_MAX_BYTES, headers=headers, body=data
            )
            found = json.loads(fetched.body) if fetched.status == 200 else None
        except EgressRefusedError as err:
            raise _unavailable(f"the vault cannot be reached: {err.code}") from err
        except ValueError as err:
            raise _unavailable("the vault's answer is no JSON") from err
        if not isinstance(found, dict):
            raise _unavailable(f"the vault answered with status {fetched.status}")
        return found


def _public(jwk: dict[str, Any]) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    if jwk.get("kty") not in ("EC", "EC-HSM") or jwk.get("crv") != "P-256":
        raise LivoaError("audit.key_invalid", "the vault's key is none of P-256", status=500)
    x, y = (int.from_bytes(_decode(jwk.get(name))) for name in ("x", "y"))
    try:
        return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except ValueError as err:
        raise LivoaError("audit.key_invalid", "the vault's key is no point of P-256", status=500) from err


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: Any) -> bytes:
    try:
        return base64.urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}")
    except (binascii.Error, TypeError, ValueError) as err:
        raise _unavailable("the vault answered with something that is not base64url") from err


def _unavailable(words: str) -> LivoaError:
    return LivoaError("audit.key_unavailable", f"The signing key cannot be used: {words}.", status=503)
