"""What the bus costs: N no-op steps handed on over the emulator, carried out by a worker process and completed, and the same
steps called from activities, in turn on one host with the whole app around them (policy, audit, budgets, stores, HTTP).

``path`` is the way over the bus by itself, without the app: a command sent, received, leased, answered, its result sent, received
and held against the assignment, all with the real SDK against the emulator, which is a process of its own as a namespace is; the
rest is one process with stores in memory. Prints one JSON object.

    .venv/bin/python -m bench.bus --steps 200 --workers 1
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from azure.servicebus.aio import ServiceBusClient

from bench.engine import CAPABILITY, ROOT, TENANT, Stack, _cpu_s, fan
from bus_worker.receiving import Service
from bus_worker.step import StepWorker
from engine.adapters.bus_settings import BusSettings, WorkerSettings
from engine.adapters.service_bus import BusConnection, ServiceBusResults, ServiceBusStepQueue
from engine.domain.execute import ExecuteRequest
from engine.domain.outcomes import Succeeded
from engine.step_runner import StepTask, parse_result, perform_step, take_back
from local_host.queues import EntityOptions
from tests.support.bus_emulator import Emulator
from tests.support.world import World, plan_of, step

GOAL_STEPS_PER_S = 60
OVER_THE_BUS = CAPABILITY.replace("bench.sleep", "bench.bus").replace(
    "delivery: http", "delivery: service_bus\ntimeout_s: 600"
)
BOTH = TENANT.replace("[bench.sleep]", "[bench.sleep, bench.bus]")
AT_ONCE = 16
"""Steps dispatched side by side."""
WARM_UP = 40
"""Steps before those that are measured: opening a link takes half a second."""
RESULTS_AT_ONCE = 8
"""Results taken side by side; a Functions host takes 16."""
RECEIVERS = 16
"""As many as a tenant has sessions: with fewer, the ones in line wait for their turn."""


class BusStack(Stack):
    """The same stack with its bus open and workers beside it."""

    pages = (
        ("capabilities/bench.sleep", CAPABILITY),
        ("capabilities/bench.bus", OVER_THE_BUS),
        ("tenants/bench", BOTH),
    )
    options = ("--amqp-port", "0")

    def __init__(self, folder: Path, workers: int) -> None:
        super().__init__(folder)
        self._count, self._workers = workers, list[subprocess.Popen[bytes]]()
        self.settings = {
            "LIVOA_BUS_CONNECTION_FILE": str(folder / "host" / "service-bus.connection"),
            "LIVOA_WORKER_CONCURRENCY": "64",
            "LIVOA_WORKER_RECEIVERS": str(RECEIVERS),
            "LIVOA_WORKER_DRAIN_S": "2",
        }

    async def __aenter__(self) -> BusStack:
        await super().__aenter__()
        command = [sys.executable, "-m", "bus_worker", "--json"]
        for _ in range(self._count):
            worker = subprocess.Popen(  # noqa: ASYNC220 - starting is no part of what is measured
                command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._workers.append(worker)
            assert worker.stdout is not None
            await asyncio.to_thread(worker.stdout.readline)
        return self

    async def __aexit__(self, *about: object) -> None:
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
            await asyncio.to_thread(worker.wait, 60)
        await super().__aexit__(*about)

    async def measured(self, plan: dict[str, Any]) -> dict[str, float]:
        """A run, and what its steps cost the workers."""
        before = sum(_cpu_s(worker.pid) for worker in self._workers)
        found = await self.run(plan)
        spent = sum(_cpu_s(worker.pid) for worker in self._workers) - before
        return found | {"worker_cpu_ms_per_step": round(spent * 1000 / found["steps"], 2)}


async def whole_app(steps: int, workers: int) -> dict[str, Any]:
    """A fan over the bus and the same fan in activities, twice each in turn; the better of both."""
    with tempfile.TemporaryDirectory() as folder:
        async with BusStack(Path(folder), workers) as stack:
            await stack.run(fan(20, "bench.bus"))
            await stack.run(fan(20))
            bus, activities = [], []
            for _ in range(2):
                bus.append(await stack.measured(fan(steps, "bench.bus")))
                activities.append(await stack.measured(fan(steps)))
    best = [max(found, key=lambda one: one["steps_per_s"]) for found in (bus, activities)]
    return {"bus": best[0], "activities": best[1], "ratio": round(best[0]["steps_per_s"] / best[1]["steps_per_s"], 3)}


class _NoOp:
    """An agent that is done at once."""

    async def invoke(self, _: Any, request: ExecuteRequest, **__: Any) -> Any:
        from engine.domain.execute import ExecuteSucceeded

        return ExecuteSucceeded(output={"n": request.inputs["n"]})


async def path(steps: int) -> dict[str, Any]:
    """The bus alone, with sessions and without."""
    return {"sessions": await _path(steps, sessions=True), "no_sessions": await _path(steps, sessions=False)}


class _Namespace:
    """The emulator as a process of its own, with the two queues."""

    def __init__(self, folder: str, *, sessions: bool) -> None:
        command = [sys.executable, "-m", "bench.bus", "--serve", folder, *(("--sessions",) if sessions else ())]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.connection_string = self._process.stdout.readline().decode().strip()

    @property
    def cpu_s(self) -> float:
        """What it has used."""
        return _cpu_s(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def serve(folder: str, *, sessions: bool) -> None:
    """Serve the two queues until stdin ends."""
    queues = {
        "step-commands": EntityOptions(sessions=sessions, duplicate_window_s=600),
        "step-results": EntityOptions(duplicate_window_s=600),
    }
    emulator = Emulator(Path(folder), queues)
    sys.stdout.write(emulator.connection_string + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    emulator.close()


async def _path(steps: int, *, sessions: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        emulator = _Namespace(folder, sessions=sessions)
        connection = BusConnection(BusSettings(connection=emulator.connection_string, sessions=sessions))
        world = World()
        world.deps = dataclasses.replace(
            world.deps, step_queue=ServiceBusStepQueue(connection), invoker=_NoOp(), settings=world.deps.settings
        )  # fmt: skip
        worker = StepWorker(world.deps, ServiceBusResults(connection), "bench")
        service = Service(connection, worker, WorkerSettings(concurrency=64, receivers=RECEIVERS))
        serving = asyncio.create_task(service.run())
        try:
            return await _through(world, emulator, steps)
        finally:
            service.stopping.set()
            await serving
            await connection.close()
            emulator.close()


async def _through(world: World, emulator: _Namespace, steps: int) -> dict[str, float]:
    ids = [f"s{number}" for number in range(WARM_UP + steps)]
    world.tenant.__dict__["bounds"] = world.tenant.bounds.model_copy(update={"max_steps": 5_000})
    await world.submit(plan_of(*(step(one, "calc.fit_fast", n=1) for one in ids), uses=ids[-1:]))

    at_once = asyncio.Semaphore(AT_ONCE)

    async def perform(step_id: str) -> Any:
        return await perform_step(StepTask(tenant_id="contoso", run_id="run-1", step_id=step_id), world.deps)

    async def dispatch(step_id: str) -> Any:
        async with at_once:  # not for results: they would stand in line behind everything that is to be dispatched
            return await perform(step_id)

    left = 0
    client = ServiceBusClient.from_connection_string(emulator.connection_string)

    async def take_results(receiver: Any) -> None:
        nonlocal left
        while left > 0:
            for message in await receiver.receive_messages(1, max_wait_time=0.5):
                assignment = await take_back(parse_result(b"".join(message.body)), world.deps)
                assert assignment is not None
                assert isinstance(await perform(assignment.step_id), Succeeded)
                await receiver.complete_message(message)
                left -= 1

    async with client, AsyncExitStack() as stack:
        receivers = [
            await stack.enter_async_context(client.get_queue_receiver("step-results")) for _ in range(RESULTS_AT_ONCE)
        ]
        await receivers[0].receive_messages(1, max_wait_time=2)  # links are open, and the workers' too
        left = WARM_UP  # and senders
        await asyncio.gather(*map(dispatch, ids[:WARM_UP]), *map(take_results, receivers))
        left = steps
        cpu, emulator_cpu, began = time.process_time(), emulator.cpu_s, time.perf_counter()
        await asyncio.gather(*map(dispatch, ids[WARM_UP:]), *map(take_results, receivers))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        emulator_s = emulator.cpu_s - emulator_cpu
    return {
        "steps_per_s": round(steps / wall_s, 1),
        "cpu_ms_per_step": round(cpu_s * 1000 / steps, 2),
        "emulator_cpu_ms_per_step": round(emulator_s * 1000 / steps, 2),
    }


async def main(steps: int, workers: int, only: str | None) -> dict[str, Any]:
    """Everything that was asked for."""
    found: dict[str, Any] = {"at": datetime.now(UTC).isoformat(), "load": os.getloadavg()[0], "workers": workers}
    if only in (None, "path"):
        found["path"] = await path(steps)
    if only in (None, "app"):
        found["app"] = await whole_app(steps, workers)
    return found | {"goal_steps_per_s": GOAL_STEPS_PER_S, "load_after": os.getloadavg()[0]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", choices=["path", "app"])
    parser.add_argument("--serve", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--sessions", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, sessions=options.sessions)
        sys.exit()
    print(json.dumps(asyncio.run(main(options.steps, options.workers, options.only))))
