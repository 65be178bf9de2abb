"""Calls to the outside, to hosts that the manifest names and nowhere else.

Addresses come from configuration and hosts from the manifest, so this is a fence against mistakes and redirects. It is not a
guard for addresses that come from data: that needs the resolved address pinned at the socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from agent_kit.agent import CapabilityError
from engine.domain.base import JsonValue
from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse

_MAX_BYTES = 256 * 1024


def check_allowed(url: str, hosts: Iterable[str]) -> None:
    """``CapabilityError("egress.not_allowed")`` unless the address is http(s), has no user part, and its host is allowed."""
    parts = urlsplit(url)
    allowed = {host.lower() for host in hosts}
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or (parts.hostname or "") not in allowed:
        raise CapabilityError("egress.not_allowed", "This address is not among the hosts that the manifest allows.")


async def get_json(
    url: str, *, query: Mapping[str, str], hosts: Iterable[str], timeout_s: float
) -> tuple[int, JsonValue]:
    """GET ``url`` and read JSON strictly. Redirects are not followed, the environment's proxies are not used.

    Returns status and body. ``CapabilityError``: ``egress.not_allowed``; ``egress.unavailable`` (retryable) when the host
    cannot be reached in time; ``egress.bad_answer`` for a redirect, more than 256 KiB, or anything that is not strict JSON.
    """
    import aiohttp

    check_allowed(url, hosts)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as session,
            session.get(url, params=query, allow_redirects=False, headers={"Accept-Encoding": "identity"}) as response,
        ):
            status, body = response.status, await _read_capped(response.content)
    except (aiohttp.ClientError, TimeoutError, OSError):
        raise CapabilityError("egress.unavailable", "The external service cannot be reached.", retryable=True) from None
    if 300 <= status < 400:
        raise CapabilityError("egress.bad_answer", "The external service redirects; redirects are not followed.")
    try:
        return status, parse(body, max_bytes=_MAX_BYTES)
    except LivoaError as error:
        raise CapabilityError(
            "egress.bad_answer", f"The external service's answer is not usable: {error.code}."
        ) from None


async def _read_capped(content: object) -> bytes:
    import aiohttp

    assert isinstance(content, aiohttp.StreamReader)
    body = bytearray()
    async for chunk in content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > _MAX_BYTES:
            raise CapabilityError("egress.bad_answer", "The external service's answer is too large.")
    return bytes(body)
