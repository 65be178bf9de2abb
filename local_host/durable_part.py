"""The durable engine inside the host: built from the app's functions, mounted on both ports.

The private port carries the calls of `DurableOrchestrationClient` (no key, loopback only), the public port the same
calls as webhooks behind the system key. An app without durable functions gets neither.
"""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from local_host.durable.clock import Clock
from local_host.durable_functions import AppDurableFunctions
from local_host.invocation import Invoker
from local_host.settings import HostConfig
from local_host.specs import ActivityTrigger, EntityTrigger, FunctionSpec, OrchestrationTrigger

_DURABLE = (OrchestrationTrigger, ActivityTrigger, EntityTrigger)


class DurablePart:
    """Engine, storage and addresses; `start` before use."""

    def __init__(self, specs: tuple[FunctionSpec, ...], invoker: Invoker, data_dir: Path, clock: Clock,
                 config: HostConfig, *, public_url: str, rpc_url: str, key: str) -> None:
        self.used = any(isinstance(spec.trigger, _DURABLE) or spec.clients for spec in specs)
        self.functions = AppDurableFunctions(specs, invoker)
        self._data_dir, self._clock, self._config = data_dir, clock, config
        self._public_url, self._rpc_url, self._key = public_url, rpc_url, key
        self.webhooks = None

    def mount(self, private: web.Application) -> None:
        """Add the RPC endpoints to the private port."""

    async def start(self) -> None:
        """Open the storage and resume what was running."""

    async def stop(self, drain_s: float) -> None:
        """Let running activities end for up to `drain_s`, then close the storage."""

    def client_json(self, task_hub: str | None) -> str:
        """The durable client binding's JSON."""
        return ""
