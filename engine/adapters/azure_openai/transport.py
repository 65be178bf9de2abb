"""The HTTP of model calls: nothing goes out that was not meant to, nothing comes in without bound. Imported with openai only.

The SDK adds what it finds in the environment (organisation, project, custom headers) and facts of this machine; a list of
allowed headers is the one place that holds whatever it learns to add. Redirects, cookies, proxies of the environment and
compressed replies are off, so a call ends where the configuration says and a reply cannot grow after it was counted. Addresses
are checked as everywhere in the engine, at the socket: each name is resolved once and what is connected to is what was checked.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore2
import httpx2
from httpcore2 import AnyIOBackend

from engine.adapters.egress.connector import Lookup
from engine.domain.egress import EgressRules

MAX_REPLY_BYTES = 16 * 1024 * 1024
"""Of one reply. The longest replies of today's models, streamed with their framing, stay below a third of it."""

_KEEPALIVE_S = 5.0

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


_RULES = EgressRules(frozenset(), allow_private=True, allow_loopback=True)
"""The platform configures these destinations, so private endpoints are fine; which host is asked is not up to any data."""


class _GuardedBackend(AnyIOBackend):
    """Connects to checked addresses only; TLS keeps the name."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await self._lookup(host, port)
        except OSError as error:
            raise httpcore2.ConnectError from error
        _RULES.check_addresses(host, addresses)
        failed: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        for address in addresses:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        assert failed is not None
        raise failed


@functools.cache
def _tls() -> ssl.SSLContext:
    """The system's authorities; reading them costs tens of milliseconds."""
    return ssl.create_default_context()


def http_client(*, connections: int, connect_timeout_s: float, authorised: bool, lookup: Lookup) -> httpx2.AsyncClient:
    """A client that only connecting can time out: the deadline of a call belongs to who makes it."""
    inner = httpx2.AsyncHTTPTransport(verify=_tls(), trust_env=False)
    # httpx2 has no argument for the backend; the pool it would make differs in nothing else.
    inner._pool = httpcore2.AsyncConnectionPool(
        ssl_context=_tls(),
        max_connections=connections,
        max_keepalive_connections=max(1, connections // 4),
        keepalive_expiry=_KEEPALIVE_S,
        network_backend=_GuardedBackend(lookup),
    )
    return httpx2.AsyncClient(
        transport=ConfinedTransport(inner, authorised=authorised),
        timeout=httpx2.Timeout(None, connect=connect_timeout_s),
        follow_redirects=False,
        trust_env=False,
    )
