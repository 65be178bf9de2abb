"""Chat models behind Azure OpenAI and any OpenAI-compatible server (vLLM, Ollama), as the ``ChatModels`` port.

Light to import: langchain and openai are loaded by the first call, in a thread, because together they cost seconds. Retries,
budgets, breakers and fallbacks are deliberately not here: one call is one attempt.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING

from engine.adapters.azure_openai.endpoints import ModelEndpoint
from engine.adapters.egress.connector import Lookup, system_lookup
from engine.domain.tenant import TenantConfig
from engine.ports.models import ModelCall, ModelDelta, ModelDeployment, ModelFailure, ModelResult, ModelWork

if TYPE_CHECKING:
    from engine.adapters.azure_openai.client import DeploymentClient

Credential = Callable[[], Awaitable[str]]
"""Gives a token of the app's own identity for Azure OpenAI. Called for every request; caching is its business."""

_LOG = logging.getLogger("livoa.models")
_Clients = dict[str, "asyncio.Future[DeploymentClient]"]


class AzureOpenAiChatModels:
    """Every deployment of ``endpoints``, each with one HTTP client per event loop.

    ``connections`` caps how many calls to one deployment are under way at once; ``idle_timeout_s`` is how long a stream may be
    silent; ``connect_timeout_s`` is how long a connection may take.
    """

    def __init__(
        self,
        endpoints: Sequence[ModelEndpoint],
        credential: Credential | None = None,
        *,
        connections: int = 64,
        idle_timeout_s: float = 30.0,
        connect_timeout_s: float = 5.0,
        lookup: Lookup = system_lookup,
    ) -> None:
        self._endpoints = {endpoint.deployment.name: endpoint for endpoint in endpoints}
        self._credential = credential
        self._connections = connections
        self._idle_timeout_s = idle_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._lookup = lookup
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Clients] = weakref.WeakKeyDictionary()
        self._warned: set[tuple[str, str]] = set()

    def deployment(self, name: str) -> ModelDeployment | None:
        """See the port."""
        endpoint = self._endpoints.get(name)
        return endpoint.deployment if endpoint is not None else None

    def for_tenant(self, tenant: TenantConfig, work: ModelWork) -> tuple[ModelDeployment, ...]:
        """See the port. A name that no deployment has is skipped with one warning.

        A choice of which nothing exists is no choice of the defaults: the tenant may have chosen where its data may go.
        """
        chosen: tuple[str, ...] = getattr(tenant.models, work)
        if not chosen:
            return tuple(one.deployment for one in self._endpoints.values() if work in one.default_for)
        for name in chosen:
            if name not in self._endpoints and (tenant.tenant_id, name) not in self._warned:
                self._warned.add((tenant.tenant_id, name))
                _LOG.warning(
                    "tenant %s chooses the model deployment %s for the %s, which does not exist",
                    tenant.tenant_id,
                    name,
                    work,
                )
        return tuple(self._endpoints[name].deployment for name in chosen if name in self._endpoints)

    async def complete(self, call: ModelCall, *, traceparent: str | None = None) -> ModelResult:
        """See the port. ``timeout_s`` bounds the whole call; loading the libraries, once in a process, does not count."""
        ready = await self._ready(call)
        if isinstance(ready, ModelFailure):
            return ready
        # A context of its own: callbacks that a surrounding graph has put into its context would be handed the prompt.
        task = asyncio.create_task(ready.complete(call, traceparent), context=Context())
        return await task

    async def stream(
        self, call: ModelCall, *, traceparent: str | None = None
    ) -> AsyncIterator[ModelDelta | ModelResult]:
        """See the port. Closing the iterator, or cancelling who awaits it, closes the connection."""
        ready = await self._ready(call)
        if isinstance(ready, ModelFailure):
            yield ready
            return
        # A task reads and this generator hands on: a deadline inside a generator would cancel whoever consumes it. The queue
        # needs no bound of its own, because a reply has one.
        pieces: asyncio.Queue[ModelDelta | ModelResult] = asyncio.Queue()
        task = asyncio.create_task(ready.stream(call, traceparent, pieces.put_nowait), context=Context())
        try:
            while isinstance(piece := await pieces.get(), ModelDelta):
                yield piece
            yield piece
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Close the clients of the running loop."""
        clients = self._clients.pop(asyncio.get_running_loop(), {})
        for client in clients.values():
            with suppress(Exception):
                await (await client).close()

    async def _ready(self, call: ModelCall) -> DeploymentClient | ModelFailure:
        endpoint = self._endpoints.get(call.deployment)
        if endpoint is None:
            return ModelFailure("model.not_configured", f"there is no model deployment {call.deployment}")
        if call.timeout_s <= 0:
            return ModelFailure("model.timeout", "the deadline had passed before the call", retryable=True)
        return await self._client(endpoint)

    async def _client(self, endpoint: ModelEndpoint) -> DeploymentClient:
        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        name = endpoint.deployment.name
        if name not in clients:
            clients[name] = asyncio.ensure_future(asyncio.to_thread(self._connect, endpoint))
        try:
            # Shielded: the first caller's cancellation is not the others' failure.
            return await asyncio.shield(clients[name])
        except Exception:
            clients.pop(name, None)
            raise

    def _connect(self, endpoint: ModelEndpoint) -> DeploymentClient:
        started = time.monotonic()
        from engine.adapters.azure_openai.client import DeploymentClient

        client = DeploymentClient(
            endpoint,
            self._credential,
            connections=self._connections,
            idle_timeout_s=self._idle_timeout_s,
            connect_timeout_s=self._connect_timeout_s,
            lookup=self._lookup,
        )
        _LOG.info(
            "client for the model deployment %s built in %.1f s", endpoint.deployment.name, time.monotonic() - started
        )
        return client
