"""Fetches a JWKS document from one fixed HTTPS address. No redirects, no proxies from the environment, bounded in size and time.

Caching and the meaning of the document are engine.identity's business.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from engine.domain.errors import LivoaError
from engine.identity.keys import MAX_JWKS_BYTES


class HttpJwksFetcher:
    """``await fetcher()`` gives the document's bytes, or raises.

    ``ssl_context`` replaces the system's trust, for directories with a private authority.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, ssl_context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.username is not None:
            raise LivoaError(
                "settings.invalid", "The address of the key document must be a plain https:// URL.", status=500
            )
        self._url, self._timeout_s, self._ssl = url, timeout_s, ssl_context

    async def __call__(self) -> bytes:
        """The document. Raises ``LivoaError("auth.jwks_unavailable", status=503)`` for anything but a 200 of acceptable size."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            # A session per fetch: there is one fetch a day, and a kept connection would be dead by then.
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.get(self._url, allow_redirects=False, ssl=self._ssl or True) as response,
            ):
                if response.status != 200:
                    raise _unavailable(f"The key document was answered with status {response.status}.")
                return await _read_capped(response.content)
        except (aiohttp.ClientError, TimeoutError) as err:
            raise _unavailable("The key document cannot be fetched.") from err


async def _read_capped(stream: object) -> bytes:
    """All of a body, counted after decompression: a declared length is a claim, not a bound."""
    from aiohttp import StreamReader

    assert isinstance(stream, StreamReader)
    data = bytearray()
    async for chunk in stream.iter_chunked(16 * 1024):
        data += chunk
        if len(data) > MAX_JWKS_BYTES:
            raise _unavailable("The key document is too large.")
    return bytes(data)


def _unavailable(message: str) -> LivoaError:
    return LivoaError("auth.jwks_unavailable", message, status=503)
