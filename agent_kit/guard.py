"""The egress rules at the socket, for agents: an aiohttp connector that checks destination, addresses and socket.

The rules are the engine's (``engine.domain.egress``); this is only the thin part that knows aiohttp, because the kit installs
without the engine's adapters. Both are held to one suite of tests.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.domain.egress import EgressRefusedError, EgressRules

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name, as text. Raises ``OSError`` when there is no answer."""


async def system_lookup(host: str, port: int) -> list[str]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


class _CheckedResolver(AbstractResolver):
    def __init__(self, rules: EgressRules, lookup: Lookup) -> None:
        self._rules, self._lookup = rules, lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._lookup(host, port)
        self._rules.check_addresses(host, addresses)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


class GuardedConnector(aiohttp.TCPConnector):
    """Connects to nothing that ``rules`` do not allow; a refused request raises ``EgressRefusedError`` before a byte is sent.

    To be made inside a running event loop.
    """

    def __init__(self, rules: EgressRules, *, lookup: Lookup = system_lookup) -> None:
        # A kept answer would outlive its check, hence no cache.
        super().__init__(
            resolver=_CheckedResolver(rules, lookup), use_dns_cache=False, socket_factory=_checked_socket(rules)
        )
        self._rules = rules

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **kwargs: Any) -> Any:
        """Check where the request goes, then connect."""
        if req.proxy is not None:
            raise EgressRefusedError("egress.not_allowed")
        self._rules.check_destination(req.url.scheme, req.url.raw_host or "", req.url.explicit_port)
        return await super().connect(req, *args, **kwargs)


def _checked_socket(rules: EgressRules) -> Callable[[Any], socket.socket]:
    def make(address_info: Any) -> socket.socket:
        family, kind, protocol, _, address = address_info
        if not rules.permits_socket(str(address[0])):
            # As a failed connection, because that is the only failure this place may have.
            raise OSError(errno.EACCES, "the address must not be called")
        return socket.socket(family=family, type=kind, proto=protocol)

    return make
