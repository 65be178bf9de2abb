"""Call agents over HTTP. Implements the ``CapabilityInvoker`` port for manifests with delivery ``http``.

Endpoint addresses are fixed configuration of the platform, never data: no plan, manifest or tenant can name one. The egress guard
still stands in front of them, with private addresses allowed: a name that is made to lead to a metadata address ends there.
Redirects are off and the environment's proxies are ignored. Neither tokens nor bodies are ever logged.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.adapters.egress import guarded_connector
from engine.adapters.egress.connector import Lookup, system_lookup
from engine.adapters.http_agents.answers import RawAnswer, failed, interpret
from engine.adapters.http_agents.papers import Credential, NoPapersError, Papers
from engine.domain.capability import Capability
from engine.domain.capped_body import BodyEncodingError, BodyTooLargeError, Inflater
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError
from engine.domain.execute import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    ExecuteFailed,
    ExecuteRequest,
    ExecuteResponse,
)
from engine.ports.grants import Grants

if TYPE_CHECKING:
    from aiohttp import ClientSession

_CONNECT_TIMEOUT_S = 5.0
_CHUNK_BYTES = 64 * 1024
_MAX_IN_FLIGHT_PAUSE_S = 2.0
"""The agent says when its lease ends at the latest; most calls are over long before."""


class HttpAgentInvoker:
    """Calls ``POST {endpoint}/execute``.

    ``endpoints`` maps endpoint names of manifests to base addresses (https, or http to loopback). One client session per event
    loop; ``connections_per_agent`` caps how many calls to one address are under way at once.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        credential: Credential,
        grants: Grants,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        connections_per_agent: int = 32,
        in_flight_pause_s: float = 0.5,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._endpoints = {name: _checked(name, url) for name, url in endpoints.items()}
        self._rules = _rules(self._endpoints.values())
        self._lookup = lookup
        self._credential = credential
        self._grants = grants
        self._now = now
        self._connections_per_agent = connections_per_agent
        self._in_flight_pause_s = in_flight_pause_s
        self._sessions: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ClientSession] = (
            weakref.WeakKeyDictionary()
        )

    async def invoke(
        self, capability: Capability, request: ExecuteRequest, *, traceparent: str | None = None
    ) -> ExecuteResponse:
        """See the port. One attempt: retries belong to the scheduler. A call in flight elsewhere is awaited."""
        url = self._endpoints.get(capability.endpoint)
        if url is None:
            message = f"No address is configured for the endpoint {capability.endpoint}."
            return failed("agent.not_configured", message)
        budget_s = min((request.deadline_at - self._now()).total_seconds(), capability.timeout_s)
        if budget_s <= 0:
            return failed("agent.timeout", "The deadline had passed before the call.", retryable=True)
        body = request.model_dump_json().encode()
        if len(body) > MAX_REQUEST_BYTES:
            return failed(
                "agent.request_too_large", f"A request has at most {MAX_REQUEST_BYTES} bytes; pass less inline."
            )
        try:
            async with asyncio.timeout(budget_s):
                give_up_at = asyncio.get_running_loop().time() + budget_s
                headers = self._headers(request, traceparent)
                papers = Papers(self._credential, self._grants, request, self._now)
                return await self._settled(f"{url}/execute", body, headers, papers, give_up_at)
        except TimeoutError:
            return failed("agent.timeout", f"The agent did not answer within {budget_s:.1f} s.", retryable=True)
        except NoPapersError as error:
            return error.failure

    async def _settled(
        self, url: str, body: bytes, headers: dict[str, str], papers: Papers, give_up_at: float
    ) -> ExecuteResponse:
        """The answer, asked for until the call is no longer in flight for somebody else.

        That somebody is an earlier delivery of this very step, perhaps of a host that died: its answer is ours too. Taking the
        409 for a failure would write a step off, for good where it may be tried once only, whose effect is under way.
        """
        while True:
            response = await self._post(url, body, headers | await papers.headers())
            if not isinstance(response, ExecuteFailed) or response.error.code != "agent.conflict":
                return response
            pause_s = max(self._in_flight_pause_s, min(response.error.retry_after_s or 0.0, _MAX_IN_FLIGHT_PAUSE_S))
            if asyncio.get_running_loop().time() + pause_s >= give_up_at:
                return response
            await asyncio.sleep(pause_s)

    @staticmethod
    def _headers(request: ExecuteRequest, traceparent: str | None) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, application/problem+json",
            "Accept-Encoding": "identity",
            "Idempotency-Key": request.idempotency_key,
        }
        return headers | ({"traceparent": traceparent} if traceparent is not None else {})

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> ExecuteResponse:
        import aiohttp

        try:
            async with self._session().post(url, data=body, headers=headers, allow_redirects=False) as response:
                inflater = Inflater(response.headers.get("Content-Encoding", ""), MAX_RESPONSE_BYTES)
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    inflater.feed(chunk)
                found = {name.lower(): value for name, value in response.headers.items()}
                return interpret(RawAnswer(response.status, found, inflater.body()))
        except BodyTooLargeError:
            return failed("agent.contract_violation", f"The agent's answer is larger than {MAX_RESPONSE_BYTES} bytes.")
        except BodyEncodingError:
            return failed("agent.contract_violation", "The agent's answer has an unacceptable content encoding.")
        except EgressRefusedError as error:
            return failed("agent.not_allowed", f"The agent's address must not be called: {error.code}.")
        except (aiohttp.ClientError, OSError) as error:
            # The type is enough to act on; the message would name addresses and headers.
            reason = type(error).__name__
            return failed("agent.unreachable", f"The agent cannot be reached: {reason}.", retryable=True)

    def _session(self) -> ClientSession:
        import aiohttp

        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None or session.closed:
            session = aiohttp.ClientSession(
                connector=guarded_connector(
                    self._rules, connections_per_host=self._connections_per_agent, lookup=self._lookup
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            self._sessions[loop] = session
        return session

    async def close(self) -> None:
        """Close the session of the running loop."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            with suppress(OSError):
                await session.close()


def _checked(name: str, url: str) -> str:
    """The address without a final slash.

    ``LivoaError("settings.invalid")`` unless it is https, or http to this machine, without user, query or fragment.
    """
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if (
        not parts.hostname
        or not (local or parts.scheme == "https")
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        message = f"endpoint {name}: must be an https address, or http to this machine"
        raise LivoaError("settings.invalid", message, status=500, pointer=f"/{name}")
    return url.rstrip("/")


def _rules(addresses: Iterable[str]) -> EgressRules:
    parts = [urlsplit(address) for address in addresses]
    ports = [part.port or (443 if part.scheme == "https" else 80) for part in parts]
    hosts = [f"[{part.hostname}]" if ":" in (part.hostname or "") else part.hostname for part in parts]
    entries = [f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)]
    try:
        return EgressRules.of(entries, allow_private=True, allow_loopback=True)
    except EgressRefusedError as err:
        message = "an endpoint's host is neither a name nor an address in its ordinary form"
        raise LivoaError("settings.invalid", message, status=500, pointer="/LIVOA_AGENT_ENDPOINTS") from err
