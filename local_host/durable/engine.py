"""The durable engine's public door: lifecycle plus every client operation.

Start it with the app's functions, an open file and a clock; it finds and continues whatever an earlier process left. It knows
nothing about HTTP (`rpc.py`) and nothing about how activities are invoked (`functions.py`).
"""

from __future__ import annotations

from local_host.durable.admission import Admission
from local_host.durable.client_ops import ClientOperations
from local_host.durable.clock import Clock
from local_host.durable.executor import patch_timestamp_parser
from local_host.durable.functions import DurableFunctions
from local_host.durable.http_calls import DurableHttp, HttpLimits
from local_host.durable.retention import Retention
from local_host.durable.runtime import EngineOptions, Runtime
from local_host.durable.storage import Storage


class DurableEngine(ClientOperations):
    """One task hub in one process. Use `await start()`, the operations of `ClientOperations`, then `await stop(drain_s)`."""

    def __init__(
        self,
        functions: DurableFunctions,
        storage: Storage,
        clock: Clock,
        options: EngineOptions | None = None,
        http_limits: HttpLimits | None = None,
    ) -> None:
        self._storage = storage
        self._http = DurableHttp(clock, http_limits)
        options = options or EngineOptions()
        self._runtime = Runtime(functions, storage, clock, options, self._http.call)
        keep_s = options.keep_ended_s
        self._retention = Retention(storage, clock, self.purge, keep_s) if keep_s is not None else None

    async def start(self) -> None:
        """Open the storage and resume: pending instances, messages, work in flight, timers, entity queues."""
        patch_timestamp_parser()
        await self._storage.open()
        await self._runtime.recover()
        if self._retention is not None:
            self._retention.start()

    async def stop(self, drain_s: float = 0.0) -> None:
        """Stop after giving running activities `drain_s` seconds. Nothing is lost; unfinished activities run again."""
        if self._retention is not None:
            await self._retention.stop()
        await self._runtime.stop(drain_s)
        await self._http.close()
        await self._storage.close()

    @property
    def functions(self) -> DurableFunctions:
        """The app's durable functions."""
        return self._runtime.functions

    @property
    def admission(self) -> Admission:
        """What is open, against the bounds."""
        return self._runtime.admission

    @property
    def active_jobs(self) -> int:
        """Episodes, entity operations and activities under way; 0 means only time or a message can change anything."""
        return self._runtime.active_jobs

    @property
    def episode_count(self) -> int:
        """Episodes run by this process."""
        return self._runtime.episodes


__all__ = ["DurableEngine", "EngineOptions"]
