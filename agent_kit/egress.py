"""Calls to the outside, to hosts that the manifest names and nowhere else.

The address may come from data: destination, resolved addresses and the socket's own address are checked (``agent_kit.guard``).
A manifest that names this machine allows it, for services of a developer; no other host ever leads there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from yarl import URL

from agent_kit.agent import CapabilityError
from agent_kit.guard import GuardedConnector, Lookup, system_lookup
from engine.domain.base import JsonValue
from engine.domain.capped_body import BodyEncodingError, BodyTooLargeError, Inflater
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse

_MAX_BYTES = 256 * 1024


def check_allowed(url: str, hosts: Iterable[str]) -> None:
    """``CapabilityError("egress.not_allowed")`` unless the address is one that the allow-list ``hosts`` lets through.

    Entries are ``host`` or ``host:port``; without a port https' own is meant, for hosts of this machine any.
    """
    try:
        _checked(url, EgressRules.of(hosts, allow_loopback=True))
    except EgressRefusedError:
        raise _not_allowed() from None


def _checked(url: str, rules: EgressRules) -> URL:
    """The address as an object, so that what is checked is what is connected with and no two parsers can disagree."""
    try:
        target = URL(url)
    except ValueError:
        raise EgressRefusedError("egress.host_invalid") from None
    named = target.user is not None or target.password is not None
    rules.check_destination(target.scheme, target.raw_host or "", target.explicit_port, userinfo=named)
    return target


async def get_json(
    url: str,
    *,
    query: Mapping[str, str],
    hosts: Iterable[str],
    timeout_s: float,
    lookup: Lookup = system_lookup,
) -> tuple[int, JsonValue]:
    """GET ``url`` and read JSON strictly: ``call_json`` without headers or body."""
    return await call_json("GET", url, query=query, hosts=hosts, timeout_s=timeout_s, lookup=lookup)


async def call_json(
    method: Literal["GET", "POST", "PUT"],
    url: str,
    *,
    hosts: Iterable[str],
    timeout_s: float,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: JsonValue = None,
    lookup: Lookup = system_lookup,
) -> tuple[int, JsonValue]:
    """Call ``url`` and read JSON strictly. Redirects are not followed, the environment's proxies are not used.

    ``headers`` may hold a key: it goes to the checked address alone. Returns status and body, None for an empty one.
    ``CapabilityError``: ``egress.not_allowed`` for a destination outside ``hosts`` or one that leads to an address that must not
    be called; ``egress.unavailable`` (retryable) when the host cannot be reached in time; ``egress.bad_answer`` for a redirect,
    more than 256 KiB, or anything that is not strict JSON.
    """
    allowed = tuple(hosts)
    check_allowed(url, allowed)
    rules = EgressRules.of(allowed, allow_loopback=True)
    try:
        call = Call(url, method, query or {}, headers or {}, body)
        status, data = await send(call, rules=rules, timeout_s=timeout_s, max_bytes=_MAX_BYTES, lookup=lookup)
    except EgressRefusedError as error:
        raise _capability_error(error.code) from None
    try:
        return status, parse(data, max_bytes=_MAX_BYTES) if data else None
    except LivoaError as error:
        raise CapabilityError(
            "egress.bad_answer", f"The external service's answer is not usable: {error.code}."
        ) from None


@dataclass(frozen=True, slots=True)
class Call:
    """A request. ``body`` is JSON; None sends none."""

    url: str
    method: str = "GET"
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: JsonValue = None


async def get_bytes(
    url: str,
    *,
    rules: EgressRules,
    timeout_s: float,
    max_bytes: int,
    query: Mapping[str, str] | None = None,
    lookup: Lookup = system_lookup,
) -> tuple[int, bytes]:
    """GET ``url`` under ``rules``: status and body. Raises as ``send``."""
    return await send(
        Call(url, query=query or {}), rules=rules, timeout_s=timeout_s, max_bytes=max_bytes, lookup=lookup
    )


async def send(
    call: Call, *, rules: EgressRules, timeout_s: float, max_bytes: int, lookup: Lookup = system_lookup
) -> tuple[int, bytes]:
    """Send ``call`` under ``rules``: status and body. One deadline for all of it, a cap on what the body becomes.

    Raises ``EgressRefusedError``: a destination or address that is not allowed (nothing was sent), ``egress.redirect``,
    ``egress.too_large``, ``egress.encoding``, ``egress.timeout``, ``egress.unreachable``.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _send(_checked(call.url, rules), call, rules, max_bytes, lookup)
    except TimeoutError:
        raise EgressRefusedError("egress.timeout") from None
    except BodyTooLargeError:
        raise EgressRefusedError("egress.too_large") from None
    except BodyEncodingError:
        raise EgressRefusedError("egress.encoding") from None
    except (aiohttp.ClientError, OSError):
        raise EgressRefusedError("egress.unreachable") from None


async def _send(url: URL, call: Call, rules: EgressRules, max_bytes: int, lookup: Lookup) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(
            connector=GuardedConnector(rules, lookup=lookup),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session,
        session.request(
            call.method,
            url,
            params=call.query,
            json=call.body,
            allow_redirects=False,
            headers={**call.headers, "Accept-Encoding": "identity"},
        ) as response,
    ):
        if 300 <= response.status < 400:
            raise EgressRefusedError("egress.redirect")
        inflater = Inflater(response.headers.get("Content-Encoding", ""), max_bytes)
        async for chunk in response.content.iter_chunked(64 * 1024):
            inflater.feed(chunk)
        return response.status, inflater.body()


def _capability_error(code: str) -> CapabilityError:
    match code:
        case "egress.redirect":
            return CapabilityError("egress.bad_answer", "The external service redirects; redirects are not followed.")
        case "egress.too_large" | "egress.encoding":
            return CapabilityError("egress.bad_answer", "The external service's answer is too large or damaged.")
        case "egress.unreachable" | "egress.timeout" | "egress.unresolved":
            return CapabilityError("egress.unavailable", "The external service cannot be reached.", retryable=True)
        case _:
            return _not_allowed()


def _not_allowed() -> CapabilityError:
    return CapabilityError("egress.not_allowed", "This address is not among those that the manifest allows.")
