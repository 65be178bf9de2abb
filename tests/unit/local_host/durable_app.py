"""Helpers of the durable tests: an app made of plain functions, and an engine under a virtual clock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azure.durable_functions import Entity, Orchestrator

from local_host.durable.clock import VirtualClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.functions import ActivityError
from local_host.durable.storage import Storage

START_AT = datetime(2026, 1, 1, tzinfo=UTC)


class PlainApp:
    """DurableFunctions over plain Python callables; records what activities were called with."""

    def __init__(self) -> None:
        self.orchestrators: dict[str, Callable[[str], str]] = {}
        self.activities: dict[str, Callable[..., Any]] = {}
        self.entities: dict[str, Callable[[str], str]] = {}
        self.calls: list[tuple[str, Any]] = []
        self.ended: list[tuple[str, Any]] = []
        self.responses: list[tuple[str, str]] = []

    def orchestration(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self.orchestrators[function.__name__.lower()] = self._recorded("orchestrator", Orchestrator.create(function))
        return function

    def activity(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self.activities[function.__name__.lower()] = function
        return function

    def entity_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        self.entities[function.__name__.lower()] = self._recorded("entity", Entity.create(function))
        return function

    def _recorded(self, kind: str, wrapper: Callable[[str], str]) -> Callable[[str], str]:
        def run(request: str) -> str:
            try:
                response = wrapper(request)
            except Exception as err:
                _, marker, state = str(err).rpartition("$OutOfProcData$:")
                if marker:
                    self.responses.append((kind, state))
                raise
            self.responses.append((kind, response))
            return response

        if hasattr(wrapper, "orchestrator_function"):
            run.orchestrator_function = wrapper.orchestrator_function  # type: ignore[attr-defined]
        return run

    def has_orchestrator(self, name: str) -> bool:
        return name.lower() in self.orchestrators

    def has_activity(self, name: str) -> bool:
        return name.lower() in self.activities

    def has_entity(self, name: str) -> bool:
        return name.lower() in self.entities

    def orchestrator(self, name: str) -> Callable[[str], str]:
        return self.orchestrators[name.lower()]

    def entity(self, name: str) -> Callable[[str], str]:
        return self.entities[name.lower()]

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        function = self.activities[name.lower()]
        value = json.loads(input_json) if input_json is not None else None
        self.calls.append((name, value))
        try:
            result = function(value)
            if isinstance(result, Awaitable):
                result = await result
        except Exception as err:
            raise ActivityError(type(err).__name__, str(err), "Traceback …") from err
        self.ended.append((name, value))
        return json.dumps(result) if result is not None else None


class Bench:
    """An engine under virtual time. `settle` runs until only time or a message could change anything."""

    def __init__(self, app: PlainApp, path: Path, options: EngineOptions, clock: VirtualClock | None = None) -> None:
        self.app, self.path, self.options = app, path, options
        self.clock = clock or VirtualClock(START_AT)
        self.storage = Storage(path, synchronous="NORMAL")
        self.engine = DurableEngine(app, self.storage, self.clock, options)

    async def settle(self) -> None:
        idle_rounds = 0
        async with asyncio.timeout(30):
            while idle_rounds < 4:
                await asyncio.sleep(0)
                busy = self.engine.active_jobs - self.clock.sleeping
                if busy > 0:
                    idle_rounds = 0
                    await asyncio.sleep(0.0005)
                else:
                    idle_rounds += 1

    async def run_to_end(self, instance_id: str, max_alarms: int = 500) -> Any:
        """Let time fly until the instance has ended; returns its row."""
        for _ in range(max_alarms):
            await self.settle()
            snapshot = await self.engine.status(instance_id)
            assert snapshot is not None
            if snapshot.instance.is_terminal or not self.clock.advance_to_next():
                return snapshot.instance
        raise AssertionError("too many alarms")

    async def start(self, name: str, value: Any = None, instance_id: str = "run") -> str:
        """Start as the SDK does: a JSON string that holds JSON."""
        document = json.dumps(json.dumps(value)) if value is not None else None
        return await self.engine.start_new(name, instance_id, document)

    async def run(self, name: str, value: Any = None, instance_id: str = "run") -> Any:
        """Start and run to the end; the output as a Python value, AssertionError when not Completed."""
        await self.start(name, value, instance_id)
        item = await self.run_to_end(instance_id)
        assert item.status == "Completed", (item.status, item.output)
        return json.loads(item.output) if item.output is not None else None


@asynccontextmanager
async def running(app: PlainApp, path: Path, clock: VirtualClock | None = None, **options: Any) -> AsyncIterator[Bench]:
    """An engine that is started and stopped around the block."""
    bench = Bench(app, path / "hub.db", EngineOptions(**options), clock)
    await bench.engine.start()
    try:
        yield bench
    finally:
        await bench.engine.stop()
