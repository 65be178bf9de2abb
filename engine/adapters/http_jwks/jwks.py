"""Fetches a JWKS document from one fixed HTTPS address. No redirects, no proxies from the environment, bounded in size and time.

Caching and the meaning of the document are engine.identity's business.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from engine.adapters.egress import GuardedClient
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError
from engine.identity.keys import MAX_JWKS_BYTES


class HttpJwksFetcher:
    """``await fetcher()`` gives the document's bytes, or raises.

    ``ssl_context`` replaces the system's trust, for directories with a private authority. Such a directory may also have a
    private address; ``allow_loopback`` is for one on this machine.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
        allow_loopback: bool = False,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise LivoaError(
                "settings.invalid", "The address of the key document must be a plain https:// URL.", status=500
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        entry = f"{host}:{parts.port or 443}"
        try:
            rules = EgressRules.of([entry], allow_private=True, allow_loopback=allow_loopback)
        except EgressRefusedError as err:
            raise LivoaError(
                "settings.invalid", "The address of the key document has no ordinary host.", status=500
            ) from err
        self._client = GuardedClient(rules, purpose="keys of tokens", ssl_context=ssl_context)
        self._url, self._timeout_s = url, timeout_s

    async def __call__(self) -> bytes:
        """The document. Raises ``LivoaError("auth.jwks_unavailable", status=503)`` for anything but a 200 of acceptable size."""
        try:
            fetched = await self._client.fetch("GET", self._url, deadline_s=self._timeout_s, max_bytes=MAX_JWKS_BYTES)
        except EgressRefusedError as err:
            raise _unavailable(f"The key document cannot be fetched: {err.code}.") from err
        if fetched.status != 200:
            raise _unavailable(f"The key document was answered with status {fetched.status}.")
        return fetched.body


def _unavailable(message: str) -> LivoaError:
    return LivoaError("auth.jwks_unavailable", message, status=503)
