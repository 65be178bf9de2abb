"""The public HTTP port: authorisation, routing, limits, and handing over to the function.

Answers are the platform's: 401, 404 and 500 have empty bodies and never carry a trace. The response limit stands for
the Azure load balancer: no first byte within it is a 504, silence of that length inside a stream cuts the connection.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web

from local_host.app_loader import HttpExtension
from local_host.http.classic import classic_input, classic_response
from local_host.http.keys import KeyStore, matches_any
from local_host.http.routing import BadPathError, RouteMatch, RouteTable
from local_host.http.streaming import (
    BodyTooLargeError,
    Exchange,
    StreamingApp,
    StreamTimeoutError,
    response_of,
)
from local_host.invocation import FunctionError, Invoker
from local_host.invocation_context import Trace

_log = logging.getLogger("local_host.http")
DEFAULT_BODY_LIMIT = 104_857_600  # bytes; the platform's FUNCTIONS_REQUEST_BODY_SIZE_LIMIT
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """`response_limit_s` is the Azure load balancer's idle time-out; None for a request limit means unlimited."""

    body_limit_bytes: int = DEFAULT_BODY_LIMIT
    response_limit_s: float = 230.0
    max_outstanding: int | None = None
    max_concurrent: int | None = None


class HttpFront:
    """Serves the HTTP functions of one app.

    `admin` handles paths under `/admin/` after the master key was checked, `webhooks` those under
    `/runtime/webhooks/` (it checks its own keys).
    """

    def __init__(
        self,
        table: RouteTable,
        invoker: Invoker,
        keys: KeyStore,
        limits: HttpLimits,
        extension: HttpExtension | None = None,
    ) -> None:
        self._table = table
        self._invoker = invoker
        self._keys = keys
        self._limits = limits
        self._streaming = StreamingApp(extension, _log_failure) if extension is not None else None
        self._running: set[asyncio.Future[Any]] = set()
        self._outstanding = 0
        self._slots = asyncio.Semaphore(limits.max_concurrent or sys.maxsize)
        self.admin: Handler | None = None
        self.webhooks: Handler | None = None

    def build_app(self) -> web.Application:
        """The aiohttp application; run it with `handler_cancellation=True` so that disconnects are noticed."""
        app = web.Application(client_max_size=self._limits.body_limit_bytes)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def drain(self, seconds: float) -> None:
        """Wait for functions whose client has left already; those still running afterwards are cancelled."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=seconds)
            for task in late:
                task.cancel()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        first = path.lstrip("/").split("/", 1)[0].lower()
        if first == "admin":
            return await self._handle_admin(request)
        if path.lower().startswith("/runtime/webhooks/"):
            return await self.webhooks(request) if self.webhooks is not None else web.Response(status=404)
        try:
            match = self._table.find(request.method, path)
        except BadPathError:
            return web.Response(status=400)
        if match is None:
            return web.Response(status=204 if path == "/" and request.method in {"GET", "HEAD"} else 404)
        if not self._keys.allows(match.route.trigger.auth_level, match.route.spec.name, _presented_key(request)):
            return web.Response(status=401)
        if request.content_length is not None and request.content_length > self._limits.body_limit_bytes:
            return web.Response(status=413)
        if self._limits.max_outstanding is not None and self._outstanding >= self._limits.max_outstanding:
            return web.Response(status=429)
        self._outstanding += 1
        try:
            async with self._slots:
                return await (self._serve_stream if self._streaming else self._serve_whole)(request, match)
        finally:
            self._outstanding -= 1

    async def _handle_admin(self, request: web.Request) -> web.StreamResponse:
        if not matches_any(_presented_key(request), [self._keys.master]):
            return web.Response(status=401)
        return await self.admin(request) if self.admin is not None else web.Response(status=404)

    # -- whole bodies

    async def _serve_whole(self, request: web.Request, match: RouteMatch) -> web.StreamResponse:
        spec = match.route.spec
        try:
            body = await asyncio.wait_for(request.read(), self._limits.response_limit_s)
        except web.HTTPRequestEntityTooLarge:
            return web.Response(status=413)
        except TimeoutError:
            return web.Response(status=408)
        trigger = classic_input(request, body, match.values)
        # The function goes on when its client leaves, as it does in Azure.
        task = self._track(
            asyncio.ensure_future(self._invoker.call(spec, trigger, Trace.from_headers(request.headers)))
        )
        done, _ = await asyncio.wait({task}, timeout=self._limits.response_limit_s)
        if not done:
            _log.warning("function %s exceeded the response limit of %s s", spec.name, self._limits.response_limit_s)
            return web.Response(status=504)
        try:
            return classic_response(spec, task.result())
        except FunctionError as err:
            _log_failure(err)
            return web.Response(status=500)

    def _track(self, task: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._running.add(task)
        task.add_done_callback(self._untrack)
        return task

    def _untrack(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.debug("function task ended with %s", type(task.exception()).__name__)

    # -- streams

    async def _serve_stream(self, request: web.Request, match: RouteMatch) -> web.StreamResponse:
        assert self._streaming is not None
        trace = Trace.from_headers(request.headers)
        call = partial(self._invoker.call_with_value, match.route.spec, trace=trace)
        exchange = self._streaming.exchange(request, match, call, self._limits.body_limit_bytes)
        self._track(exchange.task)
        try:
            return await self._pump(request, exchange)
        except BodyTooLargeError:
            return web.Response(status=413)
        finally:
            exchange.disconnect()

    async def _pump(self, request: web.Request, exchange: Exchange) -> web.StreamResponse:
        limit_s = self._limits.response_limit_s
        try:
            head = await exchange.head(limit_s)
        except StreamTimeoutError:
            return web.Response(status=504)
        if head is None:
            return web.Response(status=500)
        response = response_of(head)
        await response.prepare(request)
        try:
            while (chunk := await exchange.next_chunk(limit_s)) is not None:
                if request.method != "HEAD":
                    await response.write(chunk)
            if not exchange.failed:
                await response.write_eof()
        except (StreamTimeoutError, ConnectionError):
            exchange.fail()
        if exchange.failed and request.transport is not None:
            request.transport.abort()  # a truncated body must not look complete
        return response


def _presented_key(request: web.Request) -> str | None:
    return request.headers.get("x-functions-key") or request.query.get("code")


def _log_failure(err: FunctionError) -> None:
    _log.error("function %s failed\n%s", err.function_name, err.host_text())
