"""Probes of a worker: ``GET /health/live`` while its loop turns, ``GET /health/ready`` while it can reach all its queues."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from bus_worker.receiving import Service

if TYPE_CHECKING:
    from aiohttp import web


class Health:
    """A small HTTP server. Says counts and names of queues, nothing about steps."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self._service, self._host, self._port = service, host, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen, and say at which address. ``OSError`` when the port is taken."""
        from aiohttp import web

        app = web.Application(client_max_size=1024)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None)
        await self._runner.setup()
        listener = socket.create_server((self._host, self._port))
        await web.SockSite(self._runner, listener).start()
        return f"http://{self._host}:{listener.getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"}, 200)

    async def _ready(self, _: web.Request) -> web.Response:
        service = self._service
        lost = [queue for queue in service.queues if queue not in service.connected]
        state = "draining" if service.stopping.is_set() else "disconnected" if lost else "ok"
        body = {"status": state, "running": len(service.running), "not_connected": lost}
        return _json(body, 200 if state == "ok" else 503)


def _json(body: object, status: int) -> web.Response:
    from aiohttp import web

    return web.Response(text=json.dumps(body), status=status, content_type="application/json")
