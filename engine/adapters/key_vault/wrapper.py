"""Wraps data keys of runs with an RSA key in Azure Key Vault or a managed HSM (RSA-OAEP-256). The key never leaves the vault.

The identity needs ``wrapKey`` and ``unwrapKey`` and nothing else. To change the key make a new version: it wraps from then on,
and older versions unwrap what they wrapped for as long as they are enabled.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from engine.adapters.key_vault.vault import VaultKey, encoded
from engine.domain.errors import LivoaError
from engine.ports.run_keys import WrappedKey

_ALGORITHM = "RSA-OAEP-256"


class KeyVaultWrapper:
    """Implements ``KeyWrapper``. ``key_url`` and the other parameters as of ``VaultKey``."""

    def __init__(
        self,
        key_url: str,
        credential: Callable[[], Awaitable[str]],
        *,
        ssl_context: ssl.SSLContext | None = None,
        allow_loopback: bool = False,
    ) -> None:
        self._key = VaultKey(key_url, credential, _unavailable, ssl_context=ssl_context, allow_loopback=allow_loopback)

    async def wrap(self, key: bytes) -> WrappedKey:
        """See ``KeyWrapper.wrap``. ``kek_id`` is the address of the version that wrapped."""
        found = await self._key.ask("POST", f"{self._key.current}/wrapkey", _asked(key))
        return WrappedKey(self._key.own(found.get("kid")), self._key.decoded(found.get("value")))

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        """See ``KeyWrapper.unwrap``. A text that was changed is refused by the vault like any other bad request."""
        found = await self._key.ask("POST", f"{self._key.own(wrapped.kek_id)}/unwrapkey", _asked(wrapped.data))
        return self._key.decoded(found.get("value"))


def _asked(data: bytes) -> dict[str, str]:
    return {"alg": _ALGORITHM, "value": encoded(data)}


def _unavailable(words: str) -> LivoaError:
    return LivoaError("payload.key_unavailable", f"The key of contents cannot be used: {words}.", status=503)
