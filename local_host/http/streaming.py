"""HTTP functions of an app that uses the FastAPI extension: requests and responses stream in both directions.

The real worker runs the extension's ASGI app behind a proxy of the host. Here the aiohttp server speaks ASGI to the
same app directly, so that JSON conversion of return values, HTTPException handling and streaming are the extension's
own. Importing the extension switches every HTTP function of the app; nothing of FastAPI is imported otherwise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from local_host.app_loader import HttpExtension
from local_host.http.classic import HOP_BY_HOP
from local_host.http.routing import RouteMatch, decode_path
from local_host.invocation import FunctionError

_log = logging.getLogger("local_host.http")
Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
CallFunction = Callable[[Any], Awaitable[Any]]
OnError = Callable[[FunctionError], None]
_CALL_KEY = "local_host.call"
_READ_SIZE = 65_536


class StreamTimeoutError(Exception):
    """The app sent nothing for longer than the response limit."""


class StreamingApp:
    """The extension's ASGI app with a single catch-all handler that calls the matched function."""

    def __init__(self, extension: HttpExtension, on_error: OnError) -> None:
        self._extension = extension
        web_app = extension.web_app_type()

        async def handle(request: Any) -> Any:
            call: CallFunction = request.scope[_CALL_KEY]
            try:
                return await call(request)
            except FunctionError as err:
                return self._failure(err, on_error)

        # FastAPI reads the annotation at registration; the class is only known at run time.
        handle.__annotations__ = {"request": extension.request_type}
        web_app.route(handle)
        self._app: AsgiApp = web_app.get_app()

    @staticmethod
    def _failure(err: FunctionError, on_error: OnError) -> Any:
        from starlette.exceptions import HTTPException
        from starlette.responses import Response

        if isinstance(err.__cause__, HTTPException):
            raise err.__cause__  # an answer chosen by the app: the extension's app renders it
        on_error(err)
        return Response(status_code=500)

    def exchange(self, request: web.Request, match: RouteMatch, call: CallFunction, body_limit: int) -> Exchange:
        """Start one request; the caller pumps the exchange into a response."""

        async def call_with_route_values(asgi_request: Any) -> Any:
            self._extension.synchronizer.sync_route_params(asgi_request, dict(match.values))
            return await call(asgi_request)

        scope = _scope(request)
        scope[_CALL_KEY] = call_with_route_values
        return Exchange(self._app, scope, request, body_limit)


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers of a response."""

    status: int
    headers: tuple[tuple[str, str], ...]


class BodyTooLargeError(Exception):
    """The request body grew beyond the limit while it was read."""


class Exchange:
    """One ASGI conversation: the app runs in its own task and is held back by a short queue.

    When the client leaves, a function that has begun to stream is cancelled (its generator sees CancelledError); one
    that has not answered yet goes on to its end, as it does in Azure, and its answer is dropped.
    """

    def __init__(self, app: AsgiApp, scope: Message, request: web.Request, body_limit: int) -> None:
        self._request = request
        self._left = body_limit
        self._body_done = False
        self._reading = asyncio.Lock()
        self._started = False
        self._complete = False
        self._too_large = False
        self.failed = False
        self._gone = asyncio.Event()
        self._out: asyncio.Queue[Message | None] = asyncio.Queue(maxsize=2)
        self.task = asyncio.ensure_future(self._run(app, scope))

    async def _run(self, app: AsgiApp, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
        except OSError:
            if not self._gone.is_set():  # otherwise it is Starlette saying that its client left
                self.fail()
                _log.exception("streaming a response failed")
        except Exception:
            self.fail()
            _log.exception("streaming a response failed")
        finally:
            await self._put(None)

    def fail(self) -> None:
        """Mark the response as broken off: what the client has must not look complete."""
        self.failed = True

    async def _receive(self) -> Message:
        if not self._gone.is_set():
            async with self._reading:  # a generator may read the body while Starlette watches for a disconnect
                if not self._body_done and (message := await self._read()) is not None:
                    return message
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _read(self) -> Message | None:
        read = asyncio.ensure_future(self._request.content.read(_READ_SIZE))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({read, gone}, return_when=asyncio.FIRST_COMPLETED)
            return self._body_message(read.result()) if read.done() and not self._gone.is_set() else None
        except (ConnectionError, web.RequestPayloadError):
            self._gone.set()
            return None
        finally:
            read.cancel()
            gone.cancel()

    def _body_message(self, chunk: bytes) -> Message:
        self._left -= len(chunk)
        if self._left < 0:
            self._too_large = True
            self.fail()
            self._gone.set()
            return {"type": "http.disconnect"}
        self._body_done = self._request.content.at_eof()
        return {"type": "http.request", "body": chunk, "more_body": not self._body_done}

    async def _send(self, message: Message) -> None:
        self._started = True
        await self._put(message)
        if self._gone.is_set():
            raise OSError("the client has left")

    async def _put(self, message: Message | None) -> None:
        if self._gone.is_set():
            return
        put = asyncio.ensure_future(self._out.put(message))
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({put, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            gone.cancel()

    def disconnect(self) -> None:
        """Tell the app that its client is gone."""
        self._gone.set()
        if self._started and not self._complete:
            self.task.cancel()  # a complete one may still be busy with the app's background tasks

    async def _next(self, limit_s: float) -> Message | None:
        get = asyncio.ensure_future(self._out.get())
        gone = asyncio.ensure_future(self._gone.wait())
        try:
            done, _ = await asyncio.wait({get, gone}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise StreamTimeoutError
            return get.result() if get in done else None
        finally:
            get.cancel()
            gone.cancel()

    async def head(self, limit_s: float) -> Head | None:
        """Wait for the response to begin; None when the app ended without one.

        Raises StreamTimeoutError after `limit_s`, BodyTooLargeError when the request body was cut off.
        """
        message = await self._next(limit_s)
        if self._too_large:
            raise BodyTooLargeError
        if message is None or message["type"] != "http.response.start":
            return None
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
        return Head(message["status"], headers)

    async def next_chunk(self, limit_s: float) -> bytes | None:
        """The next piece of the body; None at its end. Raises StreamTimeoutError after `limit_s` of silence."""
        while not self._complete and (message := await self._next(limit_s)) is not None:
            if message["type"] == "http.response.body":
                self._complete = not message.get("more_body", False)
                body: bytes = message.get("body", b"")
                return body
        return None


def response_of(head: Head) -> web.StreamResponse:
    """An aiohttp response with the app's status and headers; framing is ours unless the app fixed a length."""
    response = web.StreamResponse(status=head.status)
    for name, value in head.headers:
        if name.lower() == "content-length":
            response.content_length = int(value)
        elif name.lower() not in HOP_BY_HOP:
            response.headers.add(name, value)
    return response


def _scope(request: web.Request) -> Message:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    raw_path = request.rel_url.raw_path
    return {
        "type": "http",
        # 2.4: Starlette then leaves the request body alone while it streams a response (older: it reads and drops it).
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"{request.version.major}.{request.version.minor}",
        "method": request.method,
        "scheme": request.scheme,
        "path": "/" + "/".join(decode_path(raw_path)),
        "raw_path": raw_path.encode(),
        "query_string": request.rel_url.raw_query_string.encode(),
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": peer[:2] if peer else None,
        "server": (request.host.rsplit(":", 1)[0], request.url.port or 80),
        "state": {},
    }
