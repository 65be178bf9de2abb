"""Signing keys: what a key is, how a JWKS document is read, and where keys come from.

A key is bound to the issuer that may sign with it: a directory's shared key set also holds keys of issuers that must not
speak for organisations. Sources are handed in; nothing here takes an address from a token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse
from engine.identity.errors import keys_unavailable
from engine.ports.clock import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MAX_JWKS_BYTES = 256 * 1024
MAX_KEYS = 200
MIN_RSA_BITS = 2048
TENANT_PLACEHOLDER = "{tenantid}"
"""Stands for the directory id in the ``issuer`` of keys that sign for many directories (OpenID metadata of Entra ID)."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public RSA key and the issuer it signs for. ``issuer`` may hold ``{tenantid}``."""

    kid: str
    issuer: str
    public_key: RSAPublicKey

    def signs_for(self, issuer: str, directory_id: str) -> bool:
        """True when this key may sign tokens of ``issuer`` for the directory ``directory_id``."""
        return self.issuer.replace(TENANT_PLACEHOLDER, directory_id) == issuer


class KeySource(Protocol):
    """Finds a signing key by its id."""

    async def key(self, kid: str) -> SigningKey | None:
        """The key, or None when the source is sure that there is none.

        Raises ``LivoaError("auth.keys_unavailable", status=503)`` when it cannot tell.
        """
        ...


def parse_jwks(data: bytes, *, issuer: str | None = None) -> dict[str, SigningKey]:
    """The usable keys of a JWKS document (RFC 7517) by ``kid``.

    Taken are RSA signature keys of at least 2048 bits with a ``kid`` and an issuer: the key's own ``issuer`` member, or
    ``issuer`` for sources that belong to one issuer. A ``kid`` that occurs twice is ambiguous and left out. Anything else in
    the document is ignored. Raises ``LivoaError`` when it is not a JWKS document at all.
    """
    document = parse(data, max_bytes=MAX_JWKS_BYTES, max_depth=8)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise LivoaError(
            "auth.jwks_invalid", "The key document holds no list of keys of acceptable length.", status=503
        )
    found: dict[str, SigningKey] = {}
    ambiguous: set[str] = set()
    for entry in entries:
        if (key := _signing_key(entry, issuer)) is None:
            continue
        if key.kid in found:
            ambiguous.add(key.kid)
        found[key.kid] = key
    return {kid: key for kid, key in found.items() if kid not in ambiguous}


def _signing_key(entry: Any, default_issuer: str | None) -> SigningKey | None:
    if not isinstance(entry, Mapping) or entry.get("kty") != "RSA":
        return None
    kid, issuer = entry.get("kid"), entry.get("issuer", default_issuer)
    wrong_use = entry.get("use", "sig") != "sig" or entry.get("alg", "RS256") != "RS256"
    if wrong_use or not isinstance(kid, str) or not kid or not isinstance(issuer, str):
        return None
    public_key = _public_key(entry)
    if public_key is None or public_key.key_size < MIN_RSA_BITS:
        return None
    return SigningKey(kid, issuer, public_key)


def _public_key(entry: Mapping[str, Any]) -> RSAPublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from jwt import PyJWTError
    from jwt.algorithms import RSAAlgorithm

    try:
        # Only the public members are handed on, so that a document with private parts cannot put one into memory.
        key = RSAAlgorithm.from_jwk({"kty": "RSA", "n": entry["n"], "e": entry["e"]})
    except (PyJWTError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return key if isinstance(key, RSAPublicKey) else None


FetchJwks = Callable[[], Awaitable[bytes]]
"""Fetches the bytes of one JWKS document from a fixed place. Any exception means "not now"."""


@dataclass(frozen=True, slots=True)
class CacheTimes:
    """``ttl_s``: age at which keys are fetched anew. ``max_stale_s``: age at which keys that could not be renewed are no
    longer trusted. ``unknown_kid_s``: at most one fetch in this time is caused by unknown key ids. ``retry_s``: pause after
    a failure."""

    ttl_s: float = 86_400
    max_stale_s: float = 7 * 86_400
    unknown_kid_s: float = 300
    retry_s: float = 10


class JwksCache:
    """Keys fetched from one fixed place, kept for a day, served stale when a renewal fails.

    Concurrent callers share one fetch. Unknown key ids cost at most one fetch per five minutes however many there are.
    """

    def __init__(
        self, fetch: FetchJwks, clock: Clock, *, issuer: str | None = None, times: CacheTimes | None = None
    ) -> None:
        self._fetch, self._clock, self._issuer = fetch, clock, issuer
        self._times = times or CacheTimes()
        self._keys: dict[str, SigningKey] = {}
        self._loaded_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._asked_unknown_at: datetime | None = None
        self._last_failed = False
        self._lock = asyncio.Lock()

    async def key(self, kid: str) -> SigningKey | None:
        """See ``KeySource``."""
        self._heed_clock()
        # Not behind the lock: a slow fetch for somebody's unknown key id must not hold us up. Nor must a slow renewal that
        # somebody else is waiting for already, as long as the keys we have may be used.
        good_for_s = self._times.max_stale_s if self._lock.locked() else self._times.ttl_s
        if kid in self._keys and not self._older_than(self._loaded_at, good_for_s):
            return self._keys[kid]
        async with self._lock:
            if self._older_than(self._loaded_at, self._times.ttl_s):
                await self._renew()
            if self._older_than(self._loaded_at, self._times.max_stale_s):
                raise keys_unavailable()
            if kid not in self._keys and self._older_than(self._asked_unknown_at, self._times.unknown_kid_s):
                self._asked_unknown_at = self._clock.now()
                await self._renew()
            found = self._keys.get(kid)
            if found is None and self._last_failed:
                raise keys_unavailable()
            return found

    def _heed_clock(self) -> None:
        """Where the clock was set back, keys from the future are due now, and good until then as any that could not be renewed:
        they would pass for new until it has caught up, or for too old while nobody can be asked for others."""
        now = self._clock.now()
        if self._loaded_at is not None and self._loaded_at > now:
            self._loaded_at = now - timedelta(seconds=self._times.ttl_s)

    def _older_than(self, at: datetime | None, age_s: float) -> bool:
        # The lower bound: after a clock was set back, nothing would be tried for hours.
        return at is None or not timedelta() <= self._clock.now() - at < timedelta(seconds=age_s)

    async def _renew(self) -> None:
        if self._last_failed and not self._older_than(self._tried_at, self._times.retry_s):
            return
        self._tried_at = self._clock.now()
        try:
            keys = parse_jwks(await self._fetch(), issuer=self._issuer)
            if not keys:
                # Nobody signs with nothing: a document without a usable key is an accident, not a rotation.
                raise keys_unavailable()
            self._keys, self._loaded_at, self._last_failed = keys, self._clock.now(), False
        except Exception:
            # Whatever went wrong, the answer is the same: go on with the keys we have, or say that there are none.
            self._last_failed = True


class FileKeySource:
    """Keys of one issuer in a local JWKS file, read anew when it changes. For development; absent means unavailable."""

    def __init__(self, path: Path, *, issuer: str) -> None:
        self._path, self._issuer = path, issuer
        self._seen: tuple[int, int] | None = None
        self._keys: dict[str, SigningKey] = {}

    async def key(self, kid: str) -> SigningKey | None:
        """See ``KeySource``."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                self._keys = parse_jwks(self._path.read_bytes(), issuer=self._issuer)
                self._seen = seen
        except (OSError, LivoaError) as err:
            raise keys_unavailable() from err
        return self._keys.get(kid)


class FirstOf:
    """Several sources asked in order. A source that cannot answer does not hide a key that another one has."""

    def __init__(self, sources: Sequence[KeySource]) -> None:
        self._sources = tuple(sources)

    async def key(self, kid: str) -> SigningKey | None:
        """See ``KeySource``."""
        unavailable: LivoaError | None = None
        for source in self._sources:
            try:
                if (found := await source.key(kid)) is not None:
                    return found
            except LivoaError as err:
                unavailable = err
        if unavailable is not None:
            raise unavailable
        return None
