"""The admin API's small part that operators of one machine need; the caller has shown the master key already.

GET  /admin/host/status          state, functions, process, open work against its bounds
GET  /admin/host/ping            200
GET  /admin/functions            names and triggers
POST /admin/functions/{name}     run a timer function now, or put {"input": …} into a queue function's queue → 202
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from aiohttp import web
from azure.functions.meta import Datum

from local_host.durable.admission import Admission
from local_host.durable.clock import Clock
from local_host.invocation import FunctionError, Invoker, TriggerInput
from local_host.queues import OutgoingMessage, QueueBroker, QueueError
from local_host.specs import FunctionSpec, QueueTrigger, TimerTrigger

_log = logging.getLogger("local_host.admin")


class AdminApi:
    """Handles `/admin/…`."""

    def __init__(
        self,
        specs: tuple[FunctionSpec, ...],
        invoker: Invoker,
        broker: QueueBroker,
        clock: Clock,
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._specs: Mapping[str, FunctionSpec] = {spec.name.lower(): spec for spec in specs}
        self._invoker, self._broker, self._clock = invoker, broker, clock
        self._started_at: datetime = clock.now()
        self._runs: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one admin request; 404 for anything unknown."""
        parts = [part for part in request.path.lower().split("/") if part][1:]
        match request.method, parts:
            case "GET", ["host", "status"]:
                return web.json_response(self._status())
            case "GET", ["host", "ping"]:
                return web.Response()
            case "GET", ["functions"]:
                return web.json_response([_summary(spec) for spec in self._specs.values()])
            case "POST", ["functions", name] if name in self._specs:
                return await self._trigger(self._specs[name], request)
        return web.Response(status=404)

    def _status(self) -> dict[str, Any]:
        uptime_ms = int((self._clock.now() - self._started_at).total_seconds() * 1000)
        return {
            "id": "local",
            "state": "Running",
            "version": "4.local",
            "processId": os.getpid(),
            "processUptime": uptime_ms,
            "functions": len(self._specs),
            "load": asdict(self._admission.load) | asdict(self._admission.bounds),
            "errors": [],
        }

    async def _trigger(self, spec: FunctionSpec, request: web.Request) -> web.Response:
        try:
            body = await request.json() if request.body_exists else {}
            given = body.get("input", "")
        except (ValueError, AttributeError):
            return web.Response(status=400)
        match spec.trigger:
            case QueueTrigger(entity=entity):
                text = given if isinstance(given, str) else json.dumps(given)
                try:
                    self._broker.send(entity, OutgoingMessage(text.encode()))
                except QueueError as err:
                    return web.json_response({"code": err.code, "message": err.message}, status=400)
            case TimerTrigger():
                datum = Datum(json.dumps({"Schedule": {}, "ScheduleStatus": {}, "IsPastDue": False}), "json")
                task = asyncio.create_task(self._run(spec, TriggerInput(datum, {})))
                self._runs.add(task)
                task.add_done_callback(self._runs.discard)
            case _:
                return web.Response(status=400)
        return web.Response(status=202)

    async def _run(self, spec: FunctionSpec, trigger: TriggerInput) -> None:
        try:
            await self._invoker.call(spec, trigger)
        except FunctionError as err:
            _log.error("function %s failed\n%s", err.function_name, err.host_text())


def _summary(spec: FunctionSpec) -> dict[str, Any]:
    return {"name": spec.name, "trigger": type(spec.trigger).__name__}
