"""The HTTP side of an agent: ``POST /execute``, ``/executions/{id}``, ``/capabilities``, ``/metrics`` and ``/health/…``.

Every refusal happens in the cheapest order: who calls, with what permission, then size, form, content.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from agent_kit.agent import Agent, Registered
from agent_kit.auth import AgentAuth
from agent_kit.execution import Answer, Executions
from agent_kit.grants import GrantCheck
from agent_kit.idempotency import IdempotencyStore
from agent_kit.perform import place_of
from agent_kit.problems import PROBLEM_TYPE, RefusedError
from agent_kit.refusals import MEDIA_TYPE, Refusals
from agent_kit.schemas import pointer
from engine.domain.errors import LivoaError, Violation
from engine.domain.execute import CONTRACT_VERSION, MAX_REQUEST_BYTES, NDJSON, ExecuteRequest, execution_id
from engine.domain.grants import GRANT_HEADER, Grant
from engine.domain.strict_json import parse

_LOG = logging.getLogger("agent_kit")
_WAIT = re.compile(r"wait=(\d{1,4})")
MAX_WAIT_S = 60
"""However patient a caller says to be: connections that are silent for longer get lost on the way."""
_PLACES = {"execute": "execute", "executions": "executions", "capabilities": "capabilities"}
"""Where a refusal is counted, by the first part of the address."""
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """``slots``: executions at once. ``cpu_workers``: threads for CPU-bound work. ``drain_s``: patience at shutdown."""

    slots: int = 16
    cpu_workers: int = 2
    drain_s: float = 20.0
    max_request_bytes: int = MAX_REQUEST_BYTES


@dataclass(slots=True)
class _State:
    """What the routes share. ``draining``: shutdown has begun; ``warm``: the warm-up is done."""

    draining: bool = False
    warm: bool = False


def create_app(
    agent: Agent,
    *,
    auth: AgentAuth,
    grants: GrantCheck,
    store: IdempotencyStore,
    limits: AgentLimits = AgentLimits(),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    warm_up: Callable[[], None] | None = None,
) -> FastAPI:
    """The agent's web app. ``auth`` and ``grants`` have no default on purpose. ``warm_up`` runs in the background once the app
    has started and must not be needed for correctness."""
    executor = ThreadPoolExecutor(max_workers=limits.cpu_workers, thread_name_prefix="compute")
    executions = Executions(store=store, executor=executor, now=now, slots=limits.slots)
    state = _State()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        executor.submit(_warm, agent, warm_up, state)
        yield
        state.draining = True
        left = await executions.drain(limits.drain_s)
        executor.shutdown(wait=left == 0, cancel_futures=True)
        store.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.drain = lambda: setattr(state, "draining", True)
    door = _Door(agent, auth, grants, executions, state, limits)
    app.add_exception_handler(RefusedError, door.refuse)
    app.add_exception_handler(HTTPException, door.refuse_route)
    _add_routes(app, door)
    return app


def _warm(agent: Agent, warm_up: Callable[[], None] | None, state: _State) -> None:
    try:
        for one in agent.capabilities.values():
            one.input_schema.compile()
            one.output_schema.compile()
        if warm_up is not None:
            warm_up()
    except Exception as error:
        # Warming up only saves time; the first call that needs it will meet the same error and report it.
        _LOG.warning("warm-up failed", extra={"error_type": type(error).__name__})
    finally:
        state.warm = True


@dataclass(frozen=True, slots=True)
class _Door:
    """What stands between a request and a capability."""

    agent: Agent
    auth: AgentAuth
    grants: GrantCheck
    executions: Executions
    state: _State
    limits: AgentLimits
    refusals: Refusals = field(default_factory=Refusals)

    async def refuse(self, request: Request, error: Exception) -> Response:
        """Answer with the problem, and put on record who was turned away."""
        assert isinstance(error, RefusedError)
        self.refusals.add(
            error,
            place=_PLACES.get(request.url.path.lstrip("/").partition("/")[0], "elsewhere"),
            capability=getattr(request.state, "capability", None),
            authorization=request.headers.getlist("authorization"),
            is_known=getattr(request.state, "is_known", False),
        )
        return JSONResponse(error.body(), error.status, headers=error.headers(), media_type=PROBLEM_TYPE)

    async def refuse_route(self, request: Request, error: Exception) -> Response:
        """The same for what is not there."""
        assert isinstance(error, HTTPException)
        words = "There is nothing at this address."
        return await self.refuse(request, RefusedError(error.status_code, "agent.no_such_route", words))


def _add_routes(app: FastAPI, door: _Door) -> None:
    @app.post("/execute")
    async def execute(request: Request) -> Response:
        call = _Call(traceparent=_traceparent(request))
        return await _logged(call, _execute(request, door, call))

    @app.get("/executions/{wanted}")
    async def status(wanted: str, request: Request) -> Response:
        grant = await _papers(request, door)
        return _document(door.executions.find(grant, wanted))

    @app.delete("/executions/{wanted}")
    async def stop(wanted: str, request: Request) -> Response:
        grant = await _papers(request, door)
        return _document(await door.executions.stop(grant, wanted))

    @app.get("/capabilities")
    async def capabilities(request: Request) -> Response:
        await _caller(request, door)
        pages = [one.manifest.model_dump(mode="json") for one in door.agent.capabilities.values()]
        return JSONResponse({"contract": CONTRACT_VERSION, "capabilities": pages})

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(door.refusals.exposition(), media_type=MEDIA_TYPE)

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health/ready")
    async def ready() -> Response:
        ok = not door.state.draining
        body = {"status": "ok" if ok else "draining", "warm": door.state.warm}
        return JSONResponse(body, 200 if ok else 503)


@dataclass(slots=True)
class _Call:
    """What the log line of a call says: ids and codes, never inputs, outputs or tokens."""

    traceparent: str | None
    request: ExecuteRequest | None = None
    outcome: str = "executed"

    @property
    def own_traceparent(self) -> str | None:
        """The caller's trace with a span of our own, for calls that the capability makes."""
        if self.traceparent is None:
            return None
        version, trace, _, flags = self.traceparent.split("-")
        return f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"

    def log(self, began: float, status: int, code: str) -> None:
        fields: dict[str, Any] = {
            "http_status": status,
            "code": code,
            "duration_ms": round((time.perf_counter() - began) * 1_000),
        }
        if self.traceparent is not None:
            fields["traceparent"] = self.traceparent
        if self.request is not None:
            names = ("run_id", "step_id", "item", "attempt", "capability")
            fields |= {name: getattr(self.request, name) for name in names}
        _LOG.info("execute", extra=fields)


async def _logged(call: _Call, answering: Awaitable[Response]) -> Response:
    began = time.perf_counter()
    try:
        response = await answering
    except RefusedError as refusal:
        call.log(began, refusal.status, refusal.code)
        raise
    except Exception as error:
        call.log(began, 500, "agent.internal")
        _LOG.error("call failed", extra={"error_type": type(error).__name__, "error_place": place_of(error)})
        raise RefusedError(500, "agent.internal", "The agent failed unexpectedly.", retryable=True) from None
    call.log(began, response.status_code, call.outcome)
    return response


async def _caller(request: Request, door: _Door) -> None:
    await door.auth.check(request.headers.getlist("authorization"))
    request.state.is_known = True


async def _papers(request: Request, door: _Door) -> Grant:
    """Who calls, and with what permission. Checked before a byte of the body is read."""
    await _caller(request, door)
    grant = await door.grants.verify(request.headers.getlist(GRANT_HEADER))
    request.state.capability = grant.capability
    return grant


async def _execute(request: Request, door: _Door, call: _Call) -> Response:
    grant = await _papers(request, door)
    if door.state.draining:
        raise RefusedError(503, "agent.draining", "This agent is shutting down.", retryable=True, retry_after_s=1)
    body = await _read_body(request, door.limits.max_request_bytes)
    call.request = parsed = _parse(body)
    _check_key(request, parsed)
    door.grants.match(grant, parsed)
    registered = door.agent.capabilities.get(parsed.capability)
    if registered is None:
        raise RefusedError(404, "agent.unknown_capability", "This agent does not serve that capability.")
    _check_inputs(registered, parsed)
    begun = door.executions.begin(registered, parsed, traceparent=call.own_traceparent)
    if isinstance(begun, Answer):
        call.outcome = "replayed"
        return _document(begun.body, {"Idempotency-Replayed": "true"})
    if registered.streams and _accepts_stream(request):
        call.outcome = "streamed"
        return StreamingResponse(door.executions.stream(begun), media_type=NDJSON)
    answer = await door.executions.wait(begun, _patience_s(request))
    if answer is not None:
        return _document(answer.body)
    call.outcome = "accepted"
    address = f"/executions/{execution_id(parsed.tenant_id, parsed.idempotency_key)}"
    return _document(begun.update(), {"Location": address, "Retry-After": "1"}, 202)


def _document(body: bytes, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json", headers=dict(headers or {}))


def _accepts_stream(request: Request) -> bool:
    offered = ",".join(request.headers.getlist("accept")).split(",")
    return any(one.partition(";")[0].strip().lower() == NDJSON for one in offered)


def _patience_s(request: Request) -> float | None:
    """How long the caller waits before it wants to be told to come back (RFC 7240); None when it waits for the result."""
    wishes = {one.strip().lower() for one in ",".join(request.headers.getlist("prefer")).split(",")}
    if "respond-async" not in wishes:
        return None
    waits = [found[1] for one in wishes if (found := _WAIT.fullmatch(one))]
    return float(min(int(waits[0]), MAX_WAIT_S)) if waits else 0.0


def _traceparent(request: Request) -> str | None:
    value = request.headers.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None


async def _read_body(request: Request, max_bytes: int) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" or request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(415, "agent.media_type", "Send application/json without content encoding.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise RefusedError(413, "agent.too_large", f"A request has at most {max_bytes} bytes.")
    return bytes(body)


def _parse(body: bytes) -> ExecuteRequest:
    try:
        document = parse(body, max_bytes=len(body))
    except LivoaError as error:
        raise RefusedError(400, error.code, error.message, violations=error.violations) from None
    try:
        return ExecuteRequest.model_validate(document)
    except ValidationError as error:
        found = [
            Violation(code="agent.request_invalid", pointer=pointer(one["loc"]), message=one["msg"])
            for one in error.errors(include_url=False, include_input=False, include_context=False)[:20]
        ]
        raise RefusedError(
            422, "agent.request_invalid", "The request does not have the right form.", violations=found
        ) from None


def _check_key(request: Request, parsed: ExecuteRequest) -> None:
    keys = request.headers.getlist("idempotency-key")
    if keys != [parsed.idempotency_key]:
        raise RefusedError(
            422, "agent.key_mismatch", "The Idempotency-Key header must equal idempotency_key in the body."
        )


def _check_inputs(registered: Registered, parsed: ExecuteRequest) -> None:
    found = registered.input_schema.violations(parsed.inputs, code="agent.inputs_invalid")
    if found:
        raise RefusedError(
            422, "agent.inputs_invalid", "The inputs do not fit the capability's schema.", violations=found
        )
