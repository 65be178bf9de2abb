"""Call agents over HTTP. Implements the ``CapabilityInvoker`` port for manifests with delivery ``http``.

Endpoint addresses are fixed configuration of the platform, never data: no plan, manifest or tenant can name one. The egress guard
still stands in front of them, with private addresses allowed: a name that is made to lead to a metadata address ends there.
Redirects are off and the environment's proxies are ignored. Neither tokens nor bodies are ever logged.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

from engine.adapters.egress.connector import Lookup, system_lookup
from engine.adapters.http_agents.answers import failed
from engine.adapters.http_agents.call import AgentCall, Pauses
from engine.adapters.http_agents.exchange import Exchange
from engine.adapters.http_agents.papers import Credential, NoPapersError, Papers
from engine.domain.capability import Capability
from engine.domain.egress import EgressRefusedError, EgressRules
from engine.domain.errors import LivoaError
from engine.domain.execute import MAX_REQUEST_BYTES, ExecuteRequest, ExecuteResponse
from engine.ports.egress import EgressLog, EgressRefusal, NoEgressLog
from engine.ports.grants import Grants
from engine.ports.invoker import LEAVE_RUNNING, ProgressSink

_CANCEL_TIMEOUT_S = 3.0


class HttpAgentInvoker:
    """Calls ``POST {endpoint}/execute``, and asks for or stops the execution where that takes longer.

    ``endpoints`` maps endpoint names of manifests to base addresses (https, or http to loopback). One client session per event
    loop; ``connections_per_agent`` caps how many calls to one address are under way at once. ``refusals`` is told of every call
    that the guard does not let through.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        credential: Credential,
        grants: Grants,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        connections_per_agent: int = 32,
        pauses: Pauses | None = None,
        lookup: Lookup = system_lookup,
        refusals: EgressLog | None = None,
    ) -> None:
        self._endpoints = {name: checked_address(name, url) for name, url in endpoints.items()}
        self._exchange = Exchange(
            _rules(self._endpoints.values()), connections_per_agent=connections_per_agent, lookup=lookup
        )
        self._credential, self._grants = credential, grants
        self._now = now
        self._refusals = refusals if refusals is not None else NoEgressLog()
        self._pauses = pauses or Pauses()

    async def invoke(
        self,
        capability: Capability,
        request: ExecuteRequest,
        *,
        traceparent: str | None = None,
        progress: ProgressSink | None = None,
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
        call = AgentCall(
            self._exchange,
            url,
            request,
            body,
            Papers(self._credential, self._grants, request, self._now),
            self._pauses,
            give_up_at=asyncio.get_running_loop().time() + budget_s,
            traceparent=traceparent,
            progress=progress,
            refused=self._teller(capability, request, url),
        )
        return await _bounded(call, budget_s)

    def _teller(self, capability: Capability, request: ExecuteRequest, url: str) -> Callable[[str], Awaitable[None]]:
        async def tell(code: str) -> None:
            await self._refusals.refused(
                EgressRefusal(
                    tenant_id=request.tenant_id,
                    run_id=request.run_id,
                    step_id=request.step_id,
                    item=request.item,
                    attempt=request.attempt,
                    key=request.idempotency_key,
                    capability=capability.name,
                    endpoint=capability.endpoint,
                    host_sha256=hashlib.sha256(_entry(url).encode()).hexdigest(),
                    code=code,
                )
            )

        return tell

    async def close(self) -> None:
        """Close the session of the running loop."""
        await self._exchange.close()


async def _bounded(call: AgentCall, budget_s: float) -> ExecuteResponse:
    try:
        async with asyncio.timeout(budget_s):
            return await call.result()
    except TimeoutError:
        return failed("agent.timeout", f"The agent did not answer within {budget_s:.1f} s.", retryable=True)
    except NoPapersError as error:
        return error.failure
    except asyncio.CancelledError as cancelled:
        if cancelled.args != (LEAVE_RUNNING,):
            with suppress(TimeoutError, NoPapersError):
                async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                    await call.cancel()
        raise


def checked_address(name: str, url: str) -> str:
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
    try:
        return EgressRules.of(map(_entry, addresses), allow_private=True, allow_loopback=True)
    except EgressRefusedError as err:
        message = "an endpoint's host is neither a name nor an address in its ordinary form"
        raise LivoaError("settings.invalid", message, status=500, pointer="/LIVOA_AGENT_ENDPOINTS") from err


def _entry(address: str) -> str:
    """The host and port of an address, as an entry of an allow-list."""
    parts = urlsplit(address)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
