"""The broker over HTTP on the private loopback port, for other processes of this machine.

All calls carry `Authorization: Bearer <token>`; address and token are in `<data>/queue-endpoint.json` (mode 0600),
written at start and removed at a clean stop. Queue names may hold slashes (`topic/Subscriptions/s`), unescaped.

    PUT  /queues/{name}            {options}                          declare a queue or subscription → 204
    PUT  /topics/{name}                                               declare a topic → 204
    GET  /queues/{name}                                               {active, scheduled, locked, dead_letter}
    POST /queues/{name}/messages   {body | body_base64, …}            send → 201 {message_id}
    POST /queues/{name}/receive    {limit, wait_s, session}           → 200 {messages: […]}
    POST /queues/{name}/settle     {lock_token, action, reason}       complete | abandon | dead_letter | renew
    POST /queues/{name}/sessions   {action: accept|renew|release, session_id, session, wait_s}   → 200 {session}

Sending is idempotent only with a `message_id` on a queue declared with `duplicate_window_s`. Errors are
`{"code", "message"}`: 400 bad_message/bad_name, 401, 404 not_found, 409 conflict, 410 lock_lost, 413.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiohttp import web

from local_host.http.keys import matches_any
from local_host.queues import (
    MAX_BODY_BYTES,
    EntityOptions,
    LockedMessage,
    OutgoingMessage,
    QueueBroker,
    QueueError,
    SessionLock,
)

_STATUS = {
    "queue.not_found": 404,
    "queue.conflict": 409,
    "queue.lock_lost": 410,
    "queue.bad_message": 400,
    "queue.bad_name": 400,
}
MAX_WAIT_S = 60.0
MAX_RECEIVE = 1000
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_T = TypeVar("_T")


def build_queue_app(broker: QueueBroker, token: str) -> web.Application:
    """The aiohttp application; mount it at the root of the private port."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not matches_any(presented, [token]):
            return _error(401, "queue.unauthorized", "a bearer token is needed")
        try:
            return await handler(request)
        except QueueError as err:
            return _error(_STATUS[err.code], err.code, err.message)

    app = web.Application(middlewares=[guard], client_max_size=2 * MAX_BODY_BYTES)
    api = _QueueApi(broker)
    app.router.add_put("/queues/{name:.+}", api.declare)
    app.router.add_put("/topics/{name:.+}", api.declare_topic)
    app.router.add_get("/queues/{name:.+}", api.counts)
    app.router.add_post("/queues/{name:.+}/messages", api.send)
    app.router.add_post("/queues/{name:.+}/receive", api.receive)
    app.router.add_post("/queues/{name:.+}/settle", api.settle)
    app.router.add_post("/queues/{name:.+}/sessions", api.session)
    return app


class _QueueApi:
    def __init__(self, broker: QueueBroker) -> None:
        self._broker = broker

    async def declare(self, request: web.Request) -> web.Response:
        body = await _json_object(request)
        known = {field.name for field in fields(EntityOptions)}
        if set(body) - known:
            raise QueueError("queue.bad_message", f"unknown options: {sorted(set(body) - known)}")
        try:
            options = EntityOptions(**body) if body else None
        except TypeError as err:
            raise QueueError("queue.bad_message", "options have the wrong type") from err
        self._broker.declare(request.match_info["name"], options)
        return web.Response(status=204)

    async def declare_topic(self, request: web.Request) -> web.Response:
        self._broker.declare_topic(request.match_info["name"])
        return web.Response(status=204)

    async def counts(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._broker.counts(request.match_info["name"])))

    async def send(self, request: web.Request) -> web.Response:
        message = message_from_json(await _json_object(request))
        message_id = self._broker.send(request.match_info["name"], message)
        return web.json_response({"message_id": message_id}, status=201)

    async def receive(self, request: web.Request) -> web.Response:
        body, name = await _json_object(request), request.match_info["name"]
        limit = body.get("limit", 1)
        if not isinstance(limit, int) or not 1 <= limit <= MAX_RECEIVE:
            raise QueueError("queue.bad_message", f"limit must be 1 to {MAX_RECEIVE}")
        session = _session_from_json(name, body["session"]) if body.get("session") is not None else None
        found = await self._wait(name, body, lambda: self._broker.receive(name, limit, session) or None)
        return web.json_response({"messages": [_locked_json(locked) for locked in found or []]})

    async def settle(self, request: web.Request) -> web.Response:
        body, name = await _json_object(request), request.match_info["name"]
        token = _text(body, "lock_token")
        match body.get("action"):
            case "complete":
                self._broker.complete(name, token)
            case "abandon":
                self._broker.abandon(name, token)
            case "dead_letter":
                self._broker.dead_letter(name, token, _text(body, "reason"), str(body.get("description", "")))
            case "renew":
                return web.json_response({"locked_until_at": self._broker.renew(name, token).isoformat()})
            case other:
                raise QueueError("queue.bad_message", f"unknown action {other!r}")
        return web.json_response({})

    async def session(self, request: web.Request) -> web.Response:
        body, name = await _json_object(request), request.match_info["name"]
        match body.get("action"):
            case "accept":
                session_id = body.get("session_id")
                lock = await self._wait(name, body, lambda: self._broker.accept_session(name, session_id))
            case "renew":
                lock = self._broker.renew_session(_session_from_json(name, body.get("session")))
            case "release":
                self._broker.release_session(_session_from_json(name, body.get("session")))
                lock = None
            case other:
                raise QueueError("queue.bad_message", f"unknown action {other!r}")
        return web.json_response({"session": _session_json(lock) if lock is not None else None})

    async def _wait(self, name: str, body: Mapping[str, Any], attempt: Callable[[], _T | None]) -> _T | None:
        """Long poll: try at once, then after each arrival and once a second, for up to `wait_s`."""
        wait_s = body.get("wait_s", 0)
        if not isinstance(wait_s, int | float) or not 0 <= wait_s <= MAX_WAIT_S:
            raise QueueError("queue.bad_message", f"wait_s must be 0 to {MAX_WAIT_S}")
        loop = asyncio.get_running_loop()
        give_up_at, arrived = loop.time() + wait_s, asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(arrived.set)

        stop = self._broker.on_available(name, wake)
        try:
            while (found := attempt()) is None and (left_s := give_up_at - loop.time()) > 0:
                try:
                    # Once a second also finds scheduled messages and expired locks, which wake nobody.
                    await asyncio.wait_for(arrived.wait(), min(left_s, 1.0))
                except TimeoutError:
                    continue
                finally:
                    arrived.clear()
            return found
        finally:
            stop()


def message_from_json(body: Mapping[str, Any]) -> OutgoingMessage:
    """A message from its JSON form. Raises QueueError `queue.bad_message` naming the field."""
    known = {field.name for field in fields(OutgoingMessage)} | {"body_base64"}
    if set(body) - known:
        raise QueueError("queue.bad_message", f"unknown fields: {sorted(set(body) - known)}")
    values = {key: value for key, value in body.items() if key not in {"body_base64", "body"} and value is not None}
    properties = values.get("properties", {})
    if not isinstance(properties, dict) or not all(
        isinstance(v, str | int | float | bool | None) for v in properties.values()
    ):
        raise QueueError("queue.bad_message", "properties must be an object of plain values")
    for key, value in values.items():
        if key not in {"properties", "ttl_s"} and not isinstance(value, str):
            raise QueueError("queue.bad_message", f"{key} must be a string")
    if not isinstance(values.get("ttl_s", 1), int | float) or values.get("ttl_s", 1) <= 0:
        raise QueueError("queue.bad_message", "ttl_s must be a positive number")
    if "scheduled_at" in values:
        values["scheduled_at"] = _moment(values["scheduled_at"])
    return OutgoingMessage(body=_body_bytes(body), **values)


def _body_bytes(body: Mapping[str, Any]) -> bytes:
    try:
        if "body_base64" in body:
            return base64.b64decode(body["body_base64"], validate=True)
        return str(body["body"]).encode() if isinstance(body["body"], str) else json.dumps(body["body"]).encode()
    except KeyError as err:
        raise QueueError("queue.bad_message", "body or body_base64 is needed") from err
    except (binascii.Error, TypeError, ValueError) as err:
        raise QueueError("queue.bad_message", "body_base64 is not base64") from err


def _moment(text: str) -> datetime:
    try:
        moment_at = datetime.fromisoformat(text)
    except ValueError as err:
        raise QueueError("queue.bad_message", "scheduled_at is not an ISO 8601 time") from err
    if moment_at.tzinfo is None:
        raise QueueError("queue.bad_message", "scheduled_at needs a time zone")
    return moment_at.astimezone(UTC)


def _locked_json(locked: LockedMessage) -> dict[str, Any]:
    document = asdict(locked)
    message = document.pop("message")
    message["body_base64"] = base64.b64encode(message.pop("body")).decode()
    document.update(message)
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in document.items()}


def _session_json(lock: SessionLock) -> dict[str, str]:
    return {"session_id": lock.session_id, "token": lock.token, "locked_until_at": lock.locked_until_at.isoformat()}


def _session_from_json(name: str, value: Any) -> SessionLock:
    if not isinstance(value, dict):
        raise QueueError("queue.bad_message", "session must be the object that `accept` returned")
    return SessionLock(
        name, _text(value, "session_id"), _text(value, "token"), _moment(_text(value, "locked_until_at"))
    )


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise QueueError("queue.bad_message", f"{key} must be a non-empty string")
    return value


async def _json_object(request: web.Request) -> dict[str, Any]:
    if not request.body_exists:
        return {}
    try:
        body = await request.json()
    except ValueError as err:
        raise QueueError("queue.bad_message", "the body is not JSON") from err
    if not isinstance(body, dict):
        raise QueueError("queue.bad_message", "the body must be a JSON object")
    return body


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)
