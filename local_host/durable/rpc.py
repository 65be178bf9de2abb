"""HTTP face of the engine: the private RPC endpoints the SDK's client calls, and the public webhooks.

Both speak the same paths. The RPC variant has no key (as in Azure) and therefore answers loopback callers only, refusing
browsers (an `Origin` header or a foreign `Host`); the webhook variant needs the system key. What each operation means is
`client_ops.py`'s business.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from local_host.durable.admission import RETRY_AFTER_S, HostFullError
from local_host.durable.client_ops import (
    ClientError,
    ConflictError,
    InstanceEndedError,
    UnknownFunctionError,
    UnknownInstanceError,
)
from local_host.durable.engine import DurableEngine
from local_host.durable.protocol import from_stamp, to_stamp
from local_host.durable.records import Instance, InstanceFilter
from local_host.durable.status_view import (
    Links,
    client_binding_json,
    error_json,
    history_json,
    json_or_text,
    position_of,
    short_stamp,
    status_json,
    token_of,
)

_LOG = logging.getLogger("local_host.durable")

RPC_PREFIX = "/durabletask"
WITHIN_PREFIX = "/durabletask-within"
"""The same for activities: they are work of this host, so that their starts are not refused while it is full."""
WEBHOOK_PREFIX = "/runtime/webhooks/durabletask"
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_WAIT_S = 230.0
_STATUSES = frozenset(
    {"Running", "Completed", "ContinuedAsNew", "Failed", "Canceled", "Terminated", "Pending", "Suspended"}
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refused(Exception):  # noqa: N818  # control flow inside this module
    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


def _json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)


def _bad_request(message: str) -> web.Response:
    return _json(error_json(message), 400)


class Management:
    """The operations, addressed by path relative to either prefix."""

    def __init__(self, engine: DurableEngine, links: Links, *, from_within: bool = False) -> None:
        self._engine, self._links, self._from_within = engine, links, from_within

    async def handle(self, request: web.Request, tail: str) -> web.Response:
        """Answer one request; `tail` is the raw path behind the prefix. A wrong method or path is 404, as in Azure."""
        segments = [unquote(part) for part in tail.strip("/").split("/")]
        try:
            self._check_hub(request)
            return await self._route(request, request.method, segments)
        except _Refused as refused:
            return refused.response
        except UnknownInstanceError:
            return web.Response(status=404)
        except InstanceEndedError:
            return web.Response(status=410)
        except UnknownFunctionError as err:
            return _bad_request(str(err))
        except ConflictError as err:
            return _json(error_json(str(err), "System.InvalidOperationException"), 409)
        except HostFullError as err:
            busy = error_json(str(err), "System.InvalidOperationException")
            return _json(busy, 503, {"Retry-After": str(RETRY_AFTER_S)})
        except ClientError as err:
            return _bad_request(str(err))

    def _check_hub(self, request: web.Request) -> None:
        hub = request.query.get("taskHub")
        if hub and hub.lower() != self._links.task_hub.lower():
            raise _Refused(_bad_request(f"The task hub '{hub}' is not served by this host."))

    async def _route(self, request: web.Request, method: str, segments: list[str]) -> web.Response:
        match (method, segments[0].lower(), *segments[1:]):
            case ("POST", "orchestrators", name):
                return await self._start(request, name, None)
            case ("POST", "orchestrators", name, instance_id):
                return await self._start(request, name, instance_id)
            case ("GET", "instances") | ("GET", "instances", ""):
                return await self._query(request)
            case ("DELETE", "instances") | ("DELETE", "instances", ""):
                return await self._purge_by(request)
            case ("GET", "instances", instance_id):
                return await self._status(request, instance_id)
            case ("DELETE", "instances", instance_id):
                return await self._purge(instance_id)
            case ("POST", "instances", instance_id, verb):
                return await self._steer(request, instance_id, verb.lower())
            case ("POST", "instances", instance_id, verb, event_name) if verb.lower() == "raiseevent":
                return await self._raise_event(request, instance_id, event_name)
            case ("GET", "entities") | ("GET", "entities", ""):
                return await self._list_entities(request, None)
            case ("GET", "entities", name):
                return await self._list_entities(request, name)
            case ("GET", "entities", name, key):
                return await self._read_entity(name, key)
            case ("POST", "entities", name, key):
                return await self._signal_entity(request, name, key, request.query.get("op", ""))
            case ("DELETE", "entities", name, key):
                return await self._signal_entity(request, name, key, "delete")
            case _:
                return web.Response(status=404)

    async def _start(self, request: web.Request, name: str, instance_id: str | None) -> web.Response:
        body = await _body_text(request)
        version = request.query.get("version")
        wait_s = min(_number(request, "timeout", 0.0), MAX_WAIT_S) if "timeout" in request.query else None
        started = await self._engine.start_new(
            name, instance_id or None, body or None, version, from_within=self._from_within
        )
        if wait_s is not None:
            return await self._wait_for_output(started, wait_s)
        return self._accepted(started, "10")

    def _accepted(self, instance_id: str, retry_after_s: str) -> web.Response:
        body = self._links.management(instance_id)
        return _json(body, 202, {"Location": body["statusQueryGetUri"], "Retry-After": retry_after_s})

    async def _wait_for_output(self, instance_id: str, timeout_s: float) -> web.Response:
        snapshot = await self._engine.wait_for_end(instance_id, timeout_s)
        item = snapshot.instance if snapshot else None
        if item is None or not item.is_terminal:
            return self._accepted(instance_id, "10")
        if item.status == "Completed":
            return _json(json_or_text(item.output))
        return _json(status_json(item, show_input=True), 500 if item.status == "Failed" else 200)

    async def _status(self, request: web.Request, instance_id: str) -> web.Response:
        with_history = _flag(request, "showHistory", default=False)
        show_input = _flag(request, "showInput", default=True)
        snapshot = await self._engine.status(instance_id, with_history=with_history)
        if snapshot is None:
            return web.Response(status=404)
        item = snapshot.instance
        body = status_json(item, show_input=show_input)
        if snapshot.events is not None:
            show_output = _flag(request, "showHistoryOutput", default=False)
            projection = history_json(snapshot.events, show_input=show_input, show_output=show_output)
            body |= {"historyEvents": projection, "history": projection}
        if item.is_terminal:
            fails = item.status == "Failed" and _flag(request, "returnInternalServerErrorOnFailure", default=False)
            return _json(body, 500 if fails else 200)
        location = self._links.management(instance_id)["statusQueryGetUri"]
        return _json(body, 202, {"Location": location, "Retry-After": "5"})

    async def _query(self, request: web.Request) -> web.Response:
        top = int(_number(request, "top", 0))
        token = request.headers.get("x-ms-continuation-token")
        wanted = _filter(request)
        try:
            after = position_of(token) if token else None
        except ValueError as err:
            return _bad_request(str(err))
        limited = InstanceFilter(
            wanted.created_from, wanted.created_to, wanted.statuses, wanted.prefix, after, top + 1 if top > 0 else None
        )
        found: list[Instance] = await self._engine.query(limited)
        # The SDK never follows a continuation token, so without `top` everything is on the first page.
        headers = {}
        if top > 0 and len(found) > top:
            found = found[:top]
            headers["x-ms-continuation-token"] = token_of(found[-1])
        show_input = _flag(request, "showInput", default=True)
        return _json([status_json(item, show_input=show_input) for item in found], headers=headers)

    async def _purge(self, instance_id: str) -> web.Response:
        deleted = await self._engine.purge(instance_id)
        return _json({"instancesDeleted": deleted}) if deleted else web.Response(status=404)

    async def _purge_by(self, request: web.Request) -> web.Response:
        if not request.query.get("createdTimeFrom"):
            return _bad_request("Please provide value for 'createdTimeFrom' parameter.")
        deleted = await self._engine.purge_by(_filter(request))
        return _json({"instancesDeleted": deleted}) if deleted else web.Response(status=404)

    async def _raise_event(self, request: web.Request, instance_id: str, event_name: str) -> web.Response:
        if not _is_json(request):
            return _bad_request("Only application/json request content is supported")
        await self._engine.raise_event(instance_id, event_name, await _body_text(request) or None)
        return web.Response(status=202)

    async def _steer(self, request: web.Request, instance_id: str, verb: str) -> web.Response:
        reason = request.query.get("reason", "")
        engine = self._engine
        match verb:
            case "terminate":
                await engine.terminate(instance_id, reason)
            case "rewind":
                await engine.rewind(instance_id, reason)
            case "suspend" | "resume":
                try:
                    await (engine.suspend if verb == "suspend" else engine.resume)(instance_id, reason)
                except ConflictError as err:
                    # The extension answers a wrong state with 500.
                    return _json(error_json(str(err), "System.InvalidOperationException"), 500)
            case "restart":
                new_id = _flag(request, "restartWithNewInstanceId", default=True)
                try:
                    started = await engine.restart(instance_id, new_id=new_id, from_within=self._from_within)
                    return self._accepted(started, "10")
                except UnknownInstanceError as err:
                    return _bad_request(str(err))
            case _:
                return web.Response(status=404)
        return web.Response(status=202)

    async def _read_entity(self, name: str, key: str) -> web.Response:
        state = await self._engine.read_entity(name, "" if key == "$" else key)
        if not state.exists:
            return web.Response(status=404)
        return web.Response(text=state.state_json or "null", content_type="application/json")

    async def _list_entities(self, request: web.Request, name: str | None) -> web.Response:
        with_state = _flag(request, "fetchState", default=False)
        body = []
        for state, at in await self._engine.list_entities(name):
            entity_name, _, key = state.entity_id[1:].partition("@")
            entry: dict[str, Any] = {
                "entityId": {"name": entity_name, "key": key},
                "lastOperationTime": short_stamp(at),
            }
            if with_state:
                entry["state"] = json_or_text(state.state_json)
            body.append(entry)
        return _json(body)

    async def _signal_entity(self, request: web.Request, name: str, key: str, operation: str) -> web.Response:
        text = await _body_text(request)
        if not text:
            payload = "null"
        elif not _is_json(request):
            payload = json.dumps(text)
        else:
            payload = _entity_input(text)
        await self._engine.signal_entity(name, "" if key == "$" else key, operation, payload)
        return web.Response(status=202)


def _entity_input(text: str) -> str:
    """JSON text of the operation's input: the SDK's client sends it as a string literal, others send plain JSON."""
    try:
        document = json.loads(text)
    except ValueError as err:
        raise ClientError(f"The request body is not valid JSON: {err}") from err
    if isinstance(document, str):
        try:
            json.loads(document)
        except ValueError:
            return text
        return document
    return text


async def _body_text(request: web.Request) -> str:
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError as err:
        raise ClientError("The request body is not UTF-8 text") from err


def _is_json(request: web.Request) -> bool:
    return request.content_type == "application/json" or request.content_type.endswith("+json")


def _flag(request: web.Request, name: str, *, default: bool) -> bool:
    value = request.query.get(name)
    return default if value is None else value.strip().lower() == "true"


def _number(request: web.Request, name: str, default: float) -> float:
    try:
        number = float(request.query.get(name, default))
    except ValueError as err:
        raise ClientError(f"'{name}' is not a number") from err
    if not 0 <= number <= 1_000_000:
        raise ClientError(f"'{name}' is out of range")
    return number


def _filter(request: web.Request) -> InstanceFilter:
    statuses = frozenset(part.strip() for part in request.query.get("runtimeStatus", "").split(",") if part.strip())
    unknown = statuses - _STATUSES
    if unknown:
        raise ClientError(f"Unknown runtime status: {', '.join(sorted(unknown))}")
    return InstanceFilter(
        _stamp(request, "createdTimeFrom"),
        _stamp(request, "createdTimeTo"),
        statuses,
        request.query.get("instanceIdPrefix"),
    )


def _stamp(request: web.Request, name: str) -> str | None:
    text = request.query.get(name)
    if not text:
        return None
    try:
        return to_stamp(from_stamp(text.strip()))
    except ValueError as err:
        raise ClientError(f"'{name}' is not a date") from err


def _is_local_call(request: web.Request) -> bool:
    """A program on this machine, not a web page: loopback peer, loopback Host, no Origin."""
    try:
        peer = ipaddress.ip_address(request.remote or "")
    except ValueError:
        return False
    host = (request.url.host or "").strip("[]")
    return peer.is_loopback and host in ("127.0.0.1", "localhost", "::1") and "Origin" not in request.headers


def rpc_handler(engine: DurableEngine, links: Links, *, from_within: bool = False) -> Handler:
    """Handler for every path below `/durabletask/`, or with `from_within` below its twin, on the private port."""
    management = Management(engine, links, from_within=from_within)
    prefix = WITHIN_PREFIX if from_within else RPC_PREFIX

    async def handle(request: web.Request) -> web.StreamResponse:
        if not _is_local_call(request):
            return web.Response(status=403)
        return await management.handle(request, request.rel_url.raw_path[len(prefix) :])

    return handle


def webhook_handler(engine: DurableEngine, links: Links) -> Handler:
    """Handler for every path below `/runtime/webhooks/durabletask` on the public port; needs the system key.

    The key comes as `code` query parameter or `x-functions-key` header; without a configured key everything is refused.
    """
    management = Management(engine, links)

    async def handle(request: web.Request) -> web.StreamResponse:
        offered = request.query.get("code") or request.headers.get("x-functions-key") or ""
        if not links.key or not hmac.compare_digest(offered.encode(), links.key.encode()):
            return web.Response(status=401)
        if not request.rel_url.raw_path.lower().startswith(WEBHOOK_PREFIX):
            return web.Response(status=404)
        return await management.handle(request, request.rel_url.raw_path[len(WEBHOOK_PREFIX) :])

    return handle


def build_rpc_app(engine: DurableEngine, *, base_url: str, task_hub: str, key: str) -> web.Application:
    """The private application with all RPC endpoints; bind it to a loopback address only."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    add_rpc_routes(app, engine, Links(base_url, task_hub, key))
    return app


def add_rpc_routes(app: web.Application, engine: DurableEngine, links: Links) -> None:
    """Mount the RPC endpoints into an application that serves other private paths too."""
    app.router.add_route("*", RPC_PREFIX + "/{tail:.*}", rpc_handler(engine, links))
    app.router.add_route("*", WITHIN_PREFIX + "/{tail:.*}", rpc_handler(engine, links, from_within=True))


__all__ = ["Links", "add_rpc_routes", "build_rpc_app", "client_binding_json", "rpc_handler", "webhook_handler"]
