"""The HTTP of model calls: nothing goes out that was not meant to, nothing comes in without bound. Imported with openai only.

The SDK adds what it finds in the environment (organisation, project, custom headers) and facts of this machine; a list of
allowed headers is the one place that holds whatever it learns to add. Redirects, cookies, proxies of the environment and
compressed replies are off, so a call ends where the configuration says and a reply cannot grow after it was counted.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator

import httpx2

MAX_REPLY_BYTES = 16 * 1024 * 1024
"""Of one reply. The longest replies of today's models, streamed with their framing, stay below a third of it."""

_HEADERS_OUT = frozenset(
    "host authorization api-key content-type content-length transfer-encoding accept connection traceparent".split()
)


class ReplyTooLargeError(Exception):
    """More bytes than a reply may have."""


class ReplyEncodingError(Exception):
    """A content encoding that was not asked for."""


class ConfinedTransport(httpx2.AsyncBaseTransport):
    """Sends through ``inner`` with the allowed headers only; ``authorised`` says whether a credential is among them."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, authorised: bool) -> None:
        self._inner = inner
        self._allowed = _HEADERS_OUT if authorised else _HEADERS_OUT - {"authorization", "api-key"}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2."""
        headers = {name: value for name, value in request.headers.items() if name.lower() in self._allowed}
        headers |= {"user-agent": "livoa-orchestrator", "accept-encoding": "identity"}
        # A copy: the SDK looks into the headers of its own request later.
        confined = httpx2.Request(
            request.method, request.url, headers=headers, stream=request.stream, extensions=request.extensions
        )
        response = await self._inner.handle_async_request(confined)
        if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            await response.aclose()
            raise ReplyEncodingError
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Counted(response.stream)
        return response

    async def aclose(self) -> None:
        """See httpx2."""
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner
        self._left_bytes = MAX_REPLY_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._left_bytes -= len(chunk)
            if self._left_bytes < 0:
                raise ReplyTooLargeError
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@functools.cache
def _tls() -> ssl.SSLContext:
    """The system's authorities; reading them costs tens of milliseconds."""
    return ssl.create_default_context()


def http_client(*, connections: int, connect_timeout_s: float, authorised: bool) -> httpx2.AsyncClient:
    """A client that only connecting can time out: the deadline of a call belongs to who makes it."""
    inner = httpx2.AsyncHTTPTransport(
        verify=_tls(),
        trust_env=False,
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections // 4),
    )
    return httpx2.AsyncClient(
        transport=ConfinedTransport(inner, authorised=authorised),
        timeout=httpx2.Timeout(None, connect=connect_timeout_s),
        follow_redirects=False,
        trust_env=False,
    )
