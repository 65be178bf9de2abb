"""Composition of the embedded host: one app, one data directory, one process.

Start order is inside out (storage, private RPC port, durable engine, listeners, public port), stop order the reverse,
so that nothing is asked of a part that is not there. It deliberately holds no behaviour of its own.
"""

from __future__ import annotations

import json
import logging
import secrets
import socket
from collections.abc import MutableMapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from aiohttp import web

from local_host.app_index import index_app
from local_host.app_loader import LoadedApp, end_lifespan, load_app
from local_host.durable.clock import Clock, RealClock
from local_host.durable_part import DurablePart
from local_host.errors import HostError
from local_host.http.admin import AdminApi
from local_host.http.keys import KeyStore, write_private
from local_host.http.routing import RouteTable
from local_host.http.server import DEFAULT_BODY_LIMIT, HttpFront, HttpLimits
from local_host.instance_lock import instance_lock
from local_host.invocation import Invoker
from local_host.queue_commits import Turns
from local_host.queue_extras import ServiceBusBroker
from local_host.queue_http import build_queue_app
from local_host.queue_listener import QueueListener
from local_host.queues import OutgoingMessage
from local_host.service_bus.entities import declare_entities
from local_host.service_bus.server import CONNECTION_FILE, ServiceBusServer, shared_secret
from local_host.settings import HostConfig, environment_of, read_host_config, read_local_settings
from local_host.specs import FunctionSpec, HttpTrigger, QueueTrigger, TimerTrigger
from local_host.store_report import BOUNDS_FILE
from local_host.timers import TimerListener, TimerStatusStore, refuse_time_zone

_log = logging.getLogger("local_host")
ENDPOINT_FILE = "queue-endpoint.json"


@dataclass(frozen=True, slots=True)
class HostOptions:
    """`port` 0 takes a free one; `response_limit_s` stands for the Azure load balancer; `drain_s` bounds a stop;
    `keep_ended_s` is how long ended durable instances are kept, None for ever; on `amqp_port` Service Bus clients are served."""

    host: str = "127.0.0.1"
    port: int = 0
    response_limit_s: float = 230.0
    drain_s: float = 10.0
    keep_ended_s: float | None = None
    amqp_port: int | None = None
    clock: Clock = field(default_factory=RealClock)


class EmbeddedHost:
    """Runs one Functions app: `async with EmbeddedHost(app_dir, data_dir) as host: … host.url`.

    Raises HostError from `start` (see `app_loader`, `app_index`, `settings`; also `host.already_running`,
    `host.port_unavailable`). Everything it changed in the process is undone by `stop`.
    """

    def __init__(self, app_dir: Path, data_dir: Path, options: HostOptions | None = None) -> None:
        self._app_dir, self._data_dir = Path(app_dir).resolve(), Path(data_dir).resolve()
        self._options = options or HostOptions()
        self._stack = AsyncExitStack()
        self.specs: tuple[FunctionSpec, ...] = ()
        self.config = HostConfig()
        self.url = ""
        self.rpc_url = ""
        self.amqp_port: int | None = None

    async def __aenter__(self) -> EmbeddedHost:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def keys(self) -> KeyStore:
        """The access keys, for callers on this machine (tests, the launcher)."""
        return self._keys

    @property
    def broker(self) -> ServiceBusBroker:
        """The queues of this host."""
        return self._broker

    @property
    def durable(self) -> DurablePart:
        """The durable engine and its address."""
        return self._durable

    async def start(self) -> None:
        """Load the app and serve it; on failure everything already started is taken down again."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Take nothing new, let running work end within the drain time, release everything."""
        await self._stack.aclose()

    async def _start(self) -> None:
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stack.enter_context(instance_lock(self._data_dir))
        environment = self._stack.enter_context(environment_of(read_local_settings(self._app_dir)))
        refuse_time_zone(environment)
        self.config = read_host_config(self._app_dir, environment)
        app = self._stack.enter_context(load_app(self._app_dir, environment))
        self._stack.push_async_callback(end_lifespan, app)
        self.specs = index_app(app, environment)
        table = RouteTable(self.specs, self.config.route_prefix)
        self._warn(table)
        self._keys = KeyStore.open(self._data_dir)
        self._broker = ServiceBusBroker(self._data_dir / "queues.sqlite", self._options.clock.now)
        self._stack.callback(self._broker.close)
        public, private = self._listen(self._options.host, self._options.port), self._listen("127.0.0.1", 0)
        self.url, self.rpc_url = _url(public), _url(private)
        self._invoker = Invoker(
            self._app_dir,
            environment,
            queue_send=self._send,
            client_json=self._client_json,
            timeout_s=self.config.function_timeout_s,
        )
        self._stack.callback(self._invoker.close)
        await self._start_durable(private)
        self._declare_outputs()
        declare_entities(self._app_dir, self._broker)
        self._start_queues()
        await self._start_service_bus()
        self._start_timers()
        await self._start_http(public, table, app, environment)

    def _listen(self, host: str, port: int) -> socket.socket:
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self._stack.callback(listener.close)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)  # at once: of two hosts starting on one port the second learns it here
        except OSError as err:
            message = f"cannot listen: {err.strerror}; choose another --port (0 takes a free one)"
            raise HostError("host.port_unavailable", message, f"{host}:{port}") from err
        return listener

    async def _start_durable(self, private: socket.socket) -> None:
        self._durable = DurablePart(
            self.specs,
            self._invoker,
            self._data_dir,
            self._options.clock,
            self.config,
            public_url=self.url,
            rpc_url=self.rpc_url,
            key=self._keys.durable,
            keep_ended_s=self._options.keep_ended_s,
        )
        token = secrets.token_urlsafe(40)
        rpc = web.Application(client_max_size=1 << 40)  # the extension's own port has no body limit either
        self._durable.mount(rpc)
        rpc.add_subapp("/mq/", build_queue_app(self._broker, token))
        await self._serve(rpc, private)
        endpoint = self._data_dir / ENDPOINT_FILE
        write_private(endpoint, json.dumps({"url": f"{self.rpc_url}/mq", "token": token}) + "\n")
        self._stack.callback(endpoint.unlink, missing_ok=True)
        bounds = self._data_dir / BOUNDS_FILE
        write_private(bounds, json.dumps(asdict(self.config.bounds)) + "\n")
        self._stack.callback(bounds.unlink, missing_ok=True)
        await self._durable.start()
        self._stack.push_async_callback(self._durable.stop, self._options.drain_s)

    def _declare_outputs(self) -> None:
        for output in (output for spec in self.specs for output in spec.outputs):
            if output.is_topic:
                self._broker.declare_topic(output.entity)
            elif not any(isinstance(s.trigger, QueueTrigger) and s.trigger.entity == output.entity for s in self.specs):
                self._broker.declare(output.entity)  # a triggered queue is declared by its listener, with its options

    def _start_queues(self) -> None:
        turns = Turns(self._broker.transactions)
        for spec in self.specs:
            if isinstance(spec.trigger, QueueTrigger):
                listener = QueueListener(
                    spec,
                    self._broker,
                    self._invoker,
                    self._options.clock,
                    self.config.service_bus,
                    self._durable.admission,
                    turns,
                )
                listener.start()
                self._stack.push_async_callback(listener.stop, self._options.drain_s)

    async def _start_service_bus(self) -> None:
        if self._options.amqp_port is None:
            return
        server = ServiceBusServer(self._broker, self._options.clock, secret=shared_secret(self._data_dir))
        try:
            await server.start(self._options.amqp_port)
        except OSError as err:
            place = f"127.0.0.1:{self._options.amqp_port}"
            raise HostError(
                "host.port_unavailable", "cannot listen for AMQP; choose another --amqp-port", place
            ) from err
        self._stack.push_async_callback(server.stop)
        self.amqp_port = server.port
        file = self._data_dir / CONNECTION_FILE
        write_private(file, server.connection_string + "\n")
        self._stack.callback(file.unlink, missing_ok=True)

    def _start_timers(self) -> None:
        specs = [spec for spec in self.specs if isinstance(spec.trigger, TimerTrigger)]
        if not specs:
            return
        store = TimerStatusStore(self._data_dir / "timers.sqlite")
        self._stack.callback(store.close)
        for spec in specs:
            listener = TimerListener(spec, self._invoker, self._options.clock, store)
            listener.start()
            self._stack.push_async_callback(listener.stop, self._options.drain_s)

    async def _start_http(
        self, public: socket.socket, table: RouteTable, app: LoadedApp, environment: MutableMapping[str, str]
    ) -> None:
        limits = HttpLimits(
            _body_limit(environment),
            self._options.response_limit_s,
            self.config.max_outstanding_requests,
            self.config.max_concurrent_requests,
        )
        front = HttpFront(table, self._invoker, self._keys, limits, app.http_extension)
        admin = AdminApi(self.specs, self._invoker, self._broker, self._options.clock, self._durable.admission)
        front.admin = admin.handle
        front.webhooks = self._durable.webhooks
        self._stack.push_async_callback(front.drain, self._options.drain_s)
        await self._serve(front.build_app(), public)

    async def _serve(self, app: web.Application, listener: socket.socket) -> None:
        runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=self._options.drain_s,
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()

    def _send(self, entity: str, body: bytes) -> None:
        self._broker.send(entity, OutgoingMessage(body))

    def _client_json(self, task_hub: str | None, from_within: bool) -> str:
        return self._durable.client_json(task_hub, from_within)

    def _warn(self, table: RouteTable) -> None:
        for pair in table.ambiguities():
            _log.warning("routes overlap; the Azure host may choose the other one: %s", pair)
        for spec in self.specs:
            if spec.retry_configured:
                _log.warning("function %s: its retry policy is not applied by this host", spec.name)


def describe(host: EmbeddedHost) -> str:
    """A readable list of the functions, as the Azure tools print it."""
    lines = ["Functions:", ""]
    for spec in sorted(host.specs, key=lambda spec: spec.name.lower()):
        match spec.trigger:
            case HttpTrigger(route=route, methods=methods):
                path = "/".join(part for part in (host.config.route_prefix, route) if part)
                lines.append(f"    {spec.name}: [{','.join(sorted(methods or {'*'}))}] {host.url}/{path}")
            case TimerTrigger(schedule=schedule):
                lines.append(f"    {spec.name}: timerTrigger ({schedule})")
            case QueueTrigger(entity=entity):
                lines.append(f"    {spec.name}: serviceBusTrigger ({entity})")
            case trigger:
                kind = type(trigger).__name__
                lines.append(f"    {spec.name}: {kind[0].lower()}{kind[1:]}")
    if host.amqp_port is not None:
        lines += [
            "",
            f"Service Bus (AMQP) on 127.0.0.1:{host.amqp_port}; its connection string is in {CONNECTION_FILE}",
        ]
    return "\n".join([*lines, "", f"Listening on {host.url}"])


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    name = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host  # noqa: S104  # comparing, not binding
    return f"http://{name}:{port}"


def _body_limit(environment: MutableMapping[str, str]) -> int:
    text = environment.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", "")
    if not text:
        return DEFAULT_BODY_LIMIT
    if not text.isdecimal() or int(text) < 1:
        raise HostError(
            "host.unsupported_setting", "must be a whole number of bytes", "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT"
        )
    return int(text)
