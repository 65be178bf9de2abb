"""The event log of a run over HTTP: server-sent events, or pages of JSON, both with long polling.

Where responses stream, an SSE response lives up to ``stream_limit_s`` and then ends; where they do not, it is finite: it waits
for the first event, carries what there is, and ends. Either way the client resumes with Last-Event-ID, which every
``EventSource`` does by itself, so the 230 s that the platform's front end allows a response are never the end of a stream.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from engine.domain.errors import LivoaError
from engine.domain.events import FINAL_EVENTS, RunEvent
from engine.domain.run import Run
from engine.ports.deps import Deps, DepsProvider
from triggers.endpoint import Call, Endpoint, build_blueprint
from triggers.http_adapter import HttpResponse, json_response
from triggers.run_access import READERS, integer_query, run_of
from triggers.views import EventPage, event_view_of

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

MAX_EVENTS = 500
MAX_SEQ = 10**12
RETRY_STREAM_MS = 1_000
RETRY_POLL_MS = 250
_HEARTBEAT = b": heartbeat\n\n"
_SSE = "text/event-stream"


def format_event(event: RunEvent) -> bytes:
    """One server-sent event; JSON text holds no line break, so one data line is enough."""
    data = json.dumps(event_view_of(event).model_dump(mode="json"), separators=(",", ":"))
    return f"id: {event.seq}\nevent: {event.type.value}\ndata: {data}\n\n".encode()


def _ends(events: tuple[RunEvent, ...]) -> bool:
    return bool(events) and events[-1].type in FINAL_EVENTS


async def _is_over(run: Run, after: int, deps: Deps) -> bool:
    """True when nothing will follow ``after``. A terminated run has no last event, so the run itself is asked, and then the
    log once more, because the last events may have come between the two."""
    current = await deps.runs.get(run.tenant_id, run.run_id)
    if current is not None and not current.status.is_final:
        return False
    return not await deps.events.read(run.tenant_id, run.run_id, after_seq=after, limit=1)


async def _read(run: Run, after: int, limit: int, wait_s: float, deps: Deps) -> tuple[RunEvent, ...]:
    """Events after ``after``; when there are none, whatever comes within ``wait_s``."""
    events = await deps.events.read(run.tenant_id, run.run_id, after_seq=after, limit=limit)
    if events or wait_s <= 0 or await _is_over(run, after, deps):
        return events
    if await deps.events.wait(run.tenant_id, run.run_id, after_seq=after, timeout_s=wait_s):
        return await deps.events.read(run.tenant_id, run.run_id, after_seq=after, limit=limit)
    return ()


def _position(call: Call) -> int:
    """Where to go on: Last-Event-ID, which a resuming client sends with an unchanged URL, before ``after``."""
    text = call.request.header("last-event-id")
    if text is None or text == "":
        return integer_query(call, "after", default=0, low=0, high=MAX_SEQ)
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    raise LivoaError("events.position_invalid", "Last-Event-ID must be the id of an event of this run.")


def wants_json(accept: str | None) -> bool:
    """True when the client asks for JSON and not for server-sent events."""
    kinds = {part.partition(";")[0].strip().lower() for part in (accept or "").split(",")}
    return "application/json" in kinds and _SSE not in kinds


async def list_events(call: Call) -> HttpResponse:
    """``GET /api/runs/{run_id}/events``.

    As server-sent events, a log that is read to its end is a 204: the only answer after which an EventSource stays away.
    """
    run = await run_of(call)
    after = _position(call)
    limit = integer_query(call, "limit", default=MAX_EVENTS, low=1, high=MAX_EVENTS)
    if wants_json(call.request.header("accept")):
        return await _page(call, run, after, limit)
    if call.deps.settings.http_streaming:
        return HttpResponse(204) if await _is_over(run, after, call.deps) else _sse(stream(run, after, call.deps))
    return await _finite(run, after, limit, call.deps)


async def _page(call: Call, run: Run, after: int, limit: int) -> HttpResponse:
    wait_s = integer_query(call, "wait_s", default=0, low=0, high=10**6)
    events = await _read(run, after, limit, min(float(wait_s), call.deps.settings.long_poll_s), call.deps)
    next_after = events[-1].seq if events else after
    ended = _ends(events) or (not events and await _is_over(run, after, call.deps))
    page = EventPage(events=tuple(event_view_of(event) for event in events), next_after=next_after, ended=ended)
    return json_response(page.model_dump(mode="json"))


async def _finite(run: Run, after: int, limit: int, deps: Deps) -> HttpResponse:
    events = await _read(run, after, limit, deps.settings.long_poll_s, deps)
    if not events and await _is_over(run, after, deps):
        return HttpResponse(204)
    body = b"".join(format_event(event) for event in events) or _HEARTBEAT
    return _sse(f"retry: {RETRY_POLL_MS}\n\n".encode() + body)


async def stream(run: Run, after: int, deps: Deps) -> AsyncIterator[bytes]:
    """Server-sent events from ``after`` on, with heartbeats, until the run is over or the stream has lived long enough."""
    settings = deps.settings
    until = time.monotonic() + settings.stream_limit_s
    yield f"retry: {RETRY_STREAM_MS}\n\n".encode()
    while time.monotonic() < until:
        events = await _read(run, after, MAX_EVENTS, settings.heartbeat_s, deps)
        for event in events:
            yield format_event(event)
        after = events[-1].seq if events else after
        if _ends(events) or (not events and await _is_over(run, after, deps)):
            return
        if not events:
            yield _HEARTBEAT


def _sse(body: bytes | AsyncIterator[bytes]) -> HttpResponse:
    # Buffering front ends hold small writes back unless they are told not to.
    return HttpResponse(200, (("content-type", f"{_SSE}; charset=utf-8"), ("x-accel-buffering", "no")), body)


ENDPOINTS = (Endpoint("list_run_events", "GET", "runs/{run_id}/events", list_events, READERS),)


def build(deps: DepsProvider, *, streaming: bool) -> Blueprint:
    """The blueprint of these endpoints."""
    return build_blueprint(ENDPOINTS, deps, streaming=streaming)
