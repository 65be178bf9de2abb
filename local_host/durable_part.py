"""The durable engine inside the host: built from the app's functions, mounted on both ports.

The private port carries the calls of `DurableOrchestrationClient` (no key, loopback only), the public port the same
calls as webhooks behind the system key. One host serves one task hub: a client binding that names another is refused
at load.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from local_host.durable.admission import Admission
from local_host.durable.clock import Clock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.rpc import (
    RPC_PREFIX,
    WITHIN_PREFIX,
    Handler,
    Links,
    add_rpc_routes,
    client_binding_json,
    webhook_handler,
)
from local_host.durable.storage import Storage
from local_host.durable_functions import AppDurableFunctions
from local_host.errors import HostError
from local_host.invocation import Invoker
from local_host.settings import HostConfig
from local_host.specs import FunctionSpec

STORAGE_FILE = "durable.sqlite"


class DurablePart:
    """Engine, storage and addresses of one task hub; `start` before use.

    Raises HostError `host.unsupported_binding` for a client of another hub, `host.bad_host_json` for bad limits.
    """

    def __init__(
        self,
        specs: tuple[FunctionSpec, ...],
        invoker: Invoker,
        data_dir: Path,
        clock: Clock,
        config: HostConfig,
        *,
        public_url: str,
        rpc_url: str,
        key: str,
        keep_ended_s: float | None = None,
    ) -> None:
        for spec in specs:
            for client in spec.clients:
                if client.task_hub is not None and client.task_hub.lower() != config.hub_name.lower():
                    message = f"its durable client is for hub {client.task_hub!r}; this host serves {config.hub_name!r}"
                    raise HostError("host.unsupported_binding", message, spec.name)
        functions = AppDurableFunctions(specs, invoker)
        options = replace(engine_options(config.durable_task), keep_ended_s=keep_ended_s, bounds=config.bounds)
        self.engine = DurableEngine(functions, Storage(data_dir / STORAGE_FILE), clock, options)
        self._links = Links(public_url, config.hub_name, key)
        self._client_json, self._client_json_within = (
            client_binding_json(public_url, f"{rpc_url}{prefix}/", config.hub_name, key)
            for prefix in (RPC_PREFIX, WITHIN_PREFIX)
        )
        self.webhooks: Handler = webhook_handler(self.engine, self._links)

    def mount(self, private: web.Application) -> None:
        """Add the RPC endpoints to the private port."""
        add_rpc_routes(private, self.engine, self._links)

    async def start(self) -> None:
        """Open the storage and resume what an earlier process left."""
        await self.engine.start()

    async def stop(self, drain_s: float) -> None:
        """Let running activities end for up to `drain_s`, then close the storage."""
        await self.engine.stop(drain_s)
        await _close_client_session()

    @property
    def admission(self) -> Admission:
        """What is open, against the bounds."""
        return self.engine.admission

    def client_json(self, task_hub: str | None, from_within: bool) -> str:
        """The durable client binding's JSON; `task_hub` was checked at load. `from_within`: for work of this host."""
        return self._client_json_within if from_within else self._client_json


def engine_options(durable_task: Mapping[str, Any]) -> EngineOptions:
    """The engine's options from host.json `extensions.durableTask`; what is absent keeps the engine's default."""
    defaults = EngineOptions()
    limit = durable_task.get("maxConcurrentActivityFunctions", defaults.max_concurrent_activities)
    if isinstance(limit, str) and limit.isdecimal():
        limit = int(limit)
    version = durable_task.get("defaultVersion")
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1 or not isinstance(version, str | None):
        raise HostError(
            "host.bad_host_json",
            "maxConcurrentActivityFunctions must be a number of at least 1 and defaultVersion a string",
            "host.json extensions.durableTask",
        )
    return EngineOptions(max_concurrent_activities=limit, default_version=version)


async def _close_client_session() -> None:
    """Close the SDK client's module-wide HTTP session and renew its lock.

    Both belong to the event loop of their first use and the SDK has no shutdown hook, so the next host of this process
    (tests) would otherwise get a session of a closed loop.
    """
    module = sys.modules.get("azure.durable_functions.models.utils.http_utils")
    if module is not None:
        await module._close_session()
        vars(module)["_session_lock"] = asyncio.Lock()
