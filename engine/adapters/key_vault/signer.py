"""Signs checkpoints with a P-256 key in Azure Key Vault or a managed HSM, over its REST interface (api-version 7.4).

What is used of it: ``GET /keys/{name}/{version}`` (public half), ``GET /keys/{name}/versions`` and ``POST …/sign`` with ES256
over a digest. The identity needs ``get``, ``list`` and ``sign`` of keys and nothing else; the vault logs each signature.
To change the key make a new version. Every process takes it up within minutes, once others have had the time to list it, and at
once when the one before no longer signs.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.adapters.key_vault.vault import VaultKey, encoded
from engine.domain.errors import LivoaError
from engine.evidence.signed import key_id_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

_MAX_PAGES = 10
_SIGNATURE_BYTES = 64
_KEYS_FRESH_S = 60.0
"""How long the list of versions is believed: a process that signs with a newer one shows up in it within a minute."""

_SETTLED_S = 120.0
"""For how long a new version must have been the newest before it signs."""


@dataclass(frozen=True, slots=True)
class _Version:
    """One version of the key: its address without query, its public half, and when it was made (Unix seconds; 0: not told)."""

    address: str
    public: EllipticCurvePublicKey
    made_s: float


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
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._key = VaultKey(key_url, credential, _unavailable, ssl_context=ssl_context, allow_loopback=allow_loopback)
        self._monotonic, self._wall = monotonic, wall
        self._current: _Version | None = None
        self._doubted = False
        self._looked_at = 0.0
        self._newer: tuple[_Version, float] | None = None
        self._seen: dict[str, _Version] = {}
        self._keys: tuple[float, bytes] | None = None

    async def key_id(self) -> str:
        """See ``Signer.key_id``."""
        return key_id_of((await self._signing()).public)

    async def sign(self, data: bytes, key_id: str) -> bytes:
        """See ``Signer.sign``. The vault sees the digest only. After a failure the vault is asked whether this version is still
        enabled."""
        version = self._seen.get(key_id)
        if version is None:
            raise _unavailable("no such version was named")
        digest = encoded(hashlib.sha256(data).digest())
        try:
            found = await self._key.ask("POST", f"{version.address}/sign", {"alg": "ES256", "value": digest})
            signature = self._key.decoded(found.get("value"))
            if len(signature) != _SIGNATURE_BYTES:
                raise _unavailable("the vault answered with something that is no signature")
        except LivoaError:
            self._doubted = True
            raise
        return signature

    async def public_pem(self) -> bytes:
        """See ``Signer.public_pem``: the enabled versions of the key."""
        now = self._monotonic()
        if self._keys is None or now - self._keys[0] > _KEYS_FRESH_S:
            self._keys = (now, b"".join([_pem(each.public) for each in await self._enabled_versions()]))
        return self._keys[1]

    async def _signing(self) -> _Version:
        now, current = self._monotonic(), self._current
        if current is not None and self._doubted:
            current = await self._enabled(current)
        if current is None:
            self._looked_at, self._newer = now, None
            current = await self._first(now)
        elif now - self._looked_at > _KEYS_FRESH_S:
            self._looked_at = now
            current = await self._settled(current, now)
        self._current, self._doubted = current, False
        return current

    async def _first(self, now: float) -> _Version:
        """The version to begin with: the newest, unless others cannot have listed it yet and there is one before it."""
        newest = await self._version(self._key.current)
        age_s = max(self._wall() - newest.made_s, 0.0)
        if self._key.is_pinned or age_s >= _SETTLED_S + _KEYS_FRESH_S:
            return newest
        try:
            before = [each for each in await self._enabled_versions() if each.address != newest.address]
        except LivoaError:
            return newest
        self._newer = (
            newest,
            now - age_s + _KEYS_FRESH_S,
        )  # as if it had been noticed by a process that looks once a minute
        return max(before, key=lambda version: version.made_s, default=newest)

    async def _enabled(self, version: _Version) -> _Version | None:
        """None for a version of which the vault gives out nothing. A signature may fail for many reasons, and only this one lets
        the newest version sign before others could list it."""
        try:
            return await self._version(version.address)
        except LivoaError:
            return None

    async def _settled(self, current: _Version, now: float) -> _Version:
        """The vault's newest version once it has been the newest for a while, else the one that signs so far: whoever checks
        signatures must have had the time to list it."""
        try:
            newest = await self._version(self._key.current)
        except LivoaError:
            return current  # signing will say whether the vault is away
        if newest.address == current.address:
            self._newer = None
        elif self._newer is None or self._newer[0].address != newest.address:
            self._newer = (newest, now)
        elif now - self._newer[1] >= _SETTLED_S:
            self._newer = None
            return newest
        return current

    async def _enabled_versions(self) -> list[_Version]:
        """Those of P-256: a version of another kind has signed nothing here."""
        found = []
        for address in await self._versions():
            try:
                found.append(await self._version(address))
            except LivoaError as err:
                if err.code != "audit.key_invalid":
                    raise
        return found

    async def _version(self, address: str) -> _Version:
        found = await self._key.ask("GET", address)
        key, made_s = found.get("key"), (found.get("attributes") or {}).get("created", 0)
        if not isinstance(key, dict) or not isinstance(made_s, int | float):
            raise _unavailable("the vault answered with something that is no key")
        version = _Version(self._key.own(key.get("kid")), self._public(key), made_s)
        self._seen[key_id_of(version.public)] = version
        return version

    async def _versions(self) -> list[str]:
        addresses: list[str] = []
        url: str | None = self._key.versions
        for _ in range(_MAX_PAGES):
            if url is None:
                break
            page = await self._key.ask("GET", url)
            for item in page.get("value") or ():
                if not isinstance(item, dict):
                    raise _unavailable("the vault answered with something that is no list of keys")
                if (item.get("attributes") or {}).get("enabled", True):
                    addresses.append(self._key.own(item.get("kid")))
            url = page.get("nextLink") or None
        return addresses

    def _public(self, jwk: dict[str, Any]) -> EllipticCurvePublicKey:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

        if jwk.get("kty") not in ("EC", "EC-HSM") or jwk.get("crv") != "P-256":
            raise LivoaError("audit.key_invalid", "the vault's key is none of P-256", status=500)
        x, y = (int.from_bytes(self._key.decoded(jwk.get(name))) for name in ("x", "y"))
        try:
            return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
        except ValueError as err:
            raise LivoaError("audit.key_invalid", "the vault's key is no point of P-256", status=500) from err


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _unavailable(words: str) -> LivoaError:
    return LivoaError("audit.key_unavailable", f"The signing key cannot be used: {words}.", status=503)
