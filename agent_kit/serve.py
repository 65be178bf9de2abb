"""Run agents as a process: bind before announcing, print one line, drain on SIGTERM, leave with the parent.

Several web apps can share the process; they stop in the order given, so that an app which others call goes last.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI

_PARENT_POLL_S = 0.5
_LOG_FIELDS = (
    "http_status", "code", "duration_ms", "traceparent", "run_id", "step_id", "item", "attempt", "capability",
    "error_type", "error_place", "problem", "reason", "place", "subject_sha256", "subject_verified", "left_out",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """A web app and the socket it listens on."""

    app: FastAPI
    socket: socket.socket

    @property
    def url(self) -> str:
        """Where it can be reached."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{host}:{port}"


def listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A bound socket on ``port``, or on a free port for 0. ``OSError`` when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.set_inheritable(False)
    return listener


class JsonLines(logging.Formatter):
    """Log lines as JSON with a fixed set of fields: what is not listed cannot slip in."""

    def format(self, record: logging.LogRecord) -> str:
        """One line. Exceptions are named by type only, because their messages may hold data."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _LOG_FIELDS if hasattr(record, name)}
        if record.exc_info is not None and record.exc_info[0] is not None:
            line["error_type"] = record.exc_info[0].__name__
        return json.dumps(line)


def log_to_stderr(level: str = "INFO") -> None:
    """Send the process's logs to stderr as JSON lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class _Server(uvicorn.Server):
    """A server that leaves signals to us: several run in one loop."""

    def capture_signals(self) -> Any:
        """Overrides uvicorn's context manager, which takes over the process's signal handlers."""
        from contextlib import nullcontext

        return nullcontext()


async def serve(
    services: Sequence[Service],
    *,
    announce: Callable[[], None],
    drain_s: float = 20.0,
    parent_pid: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until ``parent_pid`` is no longer the parent; then drain and return.

    ``announce`` is called once every service answers. The first service that cannot start ends all of them.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    servers = [_Server(_config(service.app, drain_s)) for service in services]
    tasks = [
        asyncio.create_task(server.serve(sockets=[service.socket]))
        for server, service in zip(servers, services, strict=True)
    ]
    watcher = asyncio.create_task(_watch_parent(parent_pid, stop)) if parent_pid is not None else None
    try:
        if await _started(servers, tasks):
            announce()
            stopped = asyncio.create_task(stop.wait())
            await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
    finally:
        if watcher is not None:
            watcher.cancel()
        await _stop_in_order(services, servers, tasks)


def _config(app: FastAPI, drain_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(drain_s)),
        h11_max_incomplete_event_size=64 * 1024,
        limit_concurrency=256,
    )


async def _started(servers: Sequence[uvicorn.Server], tasks: Sequence[asyncio.Task[None]]) -> bool:
    while not all(server.started for server in servers):
        if any(task.done() for task in tasks):
            return False
        await asyncio.sleep(0.01)
    return True


async def _stop_in_order(
    services: Sequence[Service], servers: Sequence[uvicorn.Server], tasks: Sequence[asyncio.Task[None]]
) -> None:
    for service, server, task in zip(services, servers, tasks, strict=True):
        drain = getattr(service.app.state, "drain", None)
        if drain is not None:
            drain()
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


async def _watch_parent(parent_pid: int, stop: asyncio.Event) -> None:
    while os.getppid() == parent_pid:  # noqa: ASYNC110 - no event tells that a parent has died
        await asyncio.sleep(_PARENT_POLL_S)
    stop.set()
