"""The guard at the socket: an aiohttp connector that checks the destination, resolves once, checks every address, and connects
to a checked one. TLS, SNI and Host keep the name. The rules themselves are ``engine.domain.egress``.

Three fences, because each sees what another cannot: the destination of the request, the addresses of its name, and the address
of the very socket (a literal is never resolved).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from engine.domain.egress import EgressRefusedError, EgressRules

if TYPE_CHECKING:
    from aiohttp import TCPConnector

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name, as text. Raises ``OSError`` when there is no answer."""


async def system_lookup(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def guarded_connector(
    rules: EgressRules, *, connections_per_host: int = 0, lookup: Lookup = system_lookup
) -> TCPConnector:
    """A connector that connects to nothing that ``rules`` do not allow. To be made inside a running event loop.

    A request that is refused raises ``EgressRefusedError``; nothing has been sent by then.
    """
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

    class _CheckedResolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            addresses = await lookup(host, port)
            rules.check_addresses(host, addresses)
            return [_result(host, port, address) for address in addresses]

        async def close(self) -> None:
            """Nothing is kept open."""

    class _GuardedConnector(aiohttp.TCPConnector):
        async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> Any:
            if req.proxy is not None:
                raise EgressRefusedError("egress.not_allowed")
            rules.check_destination(req.url.scheme, req.url.raw_host or "", req.url.explicit_port)
            return await super().connect(req, *args, **kwargs)

    return _GuardedConnector(
        limit=0,
        limit_per_host=connections_per_host,
        resolver=_CheckedResolver(),
        # A kept answer would outlive its check.
        use_dns_cache=False,
        socket_factory=_checked_socket(rules),
    )


def is_blocked_socket(error: BaseException) -> bool:
    """Whether a failure to connect is the last fence's, which can only fail as sockets do."""
    cause = getattr(error, "os_error", error)
    return isinstance(cause, OSError) and cause.errno == errno.EACCES


def _result(host: str, port: int, address: str) -> Any:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return {"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": flags}


def _checked_socket(rules: EgressRules) -> Callable[[Any], socket.socket]:
    def make(address_info: Any) -> socket.socket:
        family, kind, protocol, _, address = address_info
        if not rules.permits_socket(str(address[0])):
            # As a failed connection, because that is the only failure this place may have.
            raise OSError(errno.EACCES, "the address must not be called")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make
