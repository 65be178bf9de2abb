"""A model provider on loopback that speaks the OpenAI wire format and does what a test scripts, failures included.

It runs in a thread of its own, so that sync and async tests use it alike and a slow answer holds nobody else back. It is no
model: what it says comes from the script. What it does check is what a provider checks: the key, and that a schema for strict
structured output keeps to the documented subset.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from tests.support.model_server.answers import Answer, ModelRequest, Script, failure
from tests.support.model_server.strict_subset import faults
from tests.support.model_server.wire import pieces

_MAX_REQUEST_BYTES = 32 * 1024 * 1024
_START_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request, and when it was over: ``finished`` is set once everything was sent, ``gone`` once the client hung up before."""

    request: ModelRequest
    finished: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Rule:
    script: Script
    matches: Callable[[ModelRequest], bool]


class ModelServer:
    """``with ModelServer() as server: server.script([text("hello")])``; then ``server.url`` is where a client goes.

    ``url`` is the base of an OpenAI-compatible endpoint (it ends in /v1), ``azure_url`` that of an Azure resource. With ``key``
    every request must carry it, as bearer token or ``api-key``.
    """

    def __init__(self, *, key: str | None = None, port: int = 0) -> None:
        self._key, self._port = key, port
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="model-server", daemon=True)
        self.recorded: list[Recorded] = []
        self.attempted = 0
        """Requests of any kind, to whatever path."""
        self.address = ""

    @property
    def url(self) -> str:
        """Base of the OpenAI-compatible endpoint."""
        return f"{self.address}/v1"

    @property
    def azure_url(self) -> str:
        """Base of the Azure resource."""
        return self.address

    @property
    def requests(self) -> list[ModelRequest]:
        """Every request so far, in the order of arrival."""
        return [one.request for one in self.recorded]

    def script(
        self,
        answers: Sequence[Answer] | Script,
        *,
        work: str | None = None,
        model: str | None = None,
        containing: str | None = None,
    ) -> None:
        """Say what to answer: a list is used up in order, a function ``(request) -> Answer`` answers for ever.

        ``work`` is the schema's name (``text`` for requests without one), ``model`` the model or Azure deployment,
        ``containing`` a part of the prompt. The newest script that matches answers; a list that is used up matches no more.
        """

        queue = None if callable(answers) else list(answers)

        def matches(request: ModelRequest) -> bool:
            return (
                queue != []
                and (work is None or request.work == work)
                and (model is None or request.model == model)
                and (containing is None or containing in request.prompt)
            )

        def from_queue(request: ModelRequest) -> Answer:
            assert queue
            return queue.pop(0)

        with self._lock:
            self._rules.insert(0, _Rule(answers if callable(answers) else from_queue, matches))

    def __enter__(self) -> ModelServer:
        self._thread.start()
        if not self._started.wait(_START_TIMEOUT_S):
            raise RuntimeError("the model server did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=_MAX_REQUEST_BYTES, middlewares=[self._count])
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/openai/v1/chat/completions", self._handle)
        app.router.add_post("/openai/deployments/{deployment}/chat/completions", self._handle)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port)
        await site.start()
        self.address = "http://{}:{}".format(*runner.addresses[0][:2])
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _count(self, incoming: web.Request, handler: Handler) -> web.StreamResponse:
        self.attempted += 1
        return await handler(incoming)

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        recorded = self._record(incoming, await incoming.json())
        try:
            answer = self._answer(recorded.request)
            await asyncio.sleep(answer.before_headers_s)
            response = await self._send(incoming, recorded.request, answer)
        except (asyncio.CancelledError, ConnectionError):
            recorded.gone.set()
            raise
        recorded.finished.set()
        return response

    def _record(self, incoming: web.Request, body: dict[str, Any]) -> Recorded:
        with self._lock:
            headers = {name.lower(): value for name, value in incoming.headers.items()}
            number = len(self.recorded) + 1
            request = ModelRequest(number, incoming.path, dict(incoming.query), headers, body)
            kind = (request.work, request.model)
            self._attempts[kind] += 1
            request = ModelRequest(number, incoming.path, dict(incoming.query), headers, body, self._attempts[kind])
            self.recorded.append(Recorded(request))
            return self.recorded[-1]

    def _answer(self, request: ModelRequest) -> Answer:
        offered = request.headers.get("api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._key is not None and offered != self._key:
            return failure(401, "invalid_api_key", f"Incorrect API key provided: {offered}.")
        structured = (request.body.get("response_format") or {}).get("json_schema")
        if structured is not None and structured.get("strict"):
            found = faults(str(structured.get("name")), structured.get("schema"))
            if found:
                message = f"Invalid schema for response_format {structured.get('name')!r}: {'; '.join(found[:20])}"
                return failure(400, None, message)
        with self._lock:
            rule = next((rule for rule in self._rules if rule.matches(request)), None)
            if rule is None:
                return failure(501, "unscripted", f"nothing is scripted for work {request.work}, model {request.model}")
            return rule.script(request)

    async def _send(self, incoming: web.Request, request: ModelRequest, answer: Answer) -> web.StreamResponse:
        streams = request.streamed and answer.status == 200 and answer.body is None
        kind = "text/event-stream" if streams else "application/json"
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": kind} | dict(answer.headers))
        response.enable_chunked_encoding()
        await response.prepare(incoming)
        for number, piece in enumerate(pieces(request, answer)):
            if number == answer.cut_after_pieces:
                assert incoming.transport is not None
                incoming.transport.abort()
                break
            await response.write(piece)
            await asyncio.sleep(answer.between_pieces_s)
        else:
            await response.write_eof()
        return response


def parsed(request: ModelRequest) -> Any:
    """The last user message as JSON, for scripts that act on what they are given."""
    users = [message["content"] for message in request.body["messages"] if message["role"] == "user"]
    return json.loads(users[-1])
