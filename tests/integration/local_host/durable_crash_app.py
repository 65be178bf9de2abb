"""A process to be killed: `python -m tests.integration.local_host.durable_crash_app start|resume DB LOG`.

Runs a fan-out followed by a chain over a sub-orchestration and an entity; every activity notes its start and end in LOG.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import azure.durable_functions as df

from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.storage import Storage
from tests.unit.local_host.durable_app import PlainApp

STEPS = 60


def build(log: Path) -> PlainApp:
    app = PlainApp()

    def note(line: str) -> None:
        descriptor = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    @app.activity
    async def step(value: str) -> str:
        note(f"start {value}")
        await asyncio.sleep(0.03)
        note(f"end {value}")
        return value

    @app.entity_function
    def counter(context: Any) -> None:
        context.set_state(context.get_state(lambda: 0) + 1)
        context.set_result(context.get_state())

    @app.orchestration
    def child(context: Any) -> Any:
        return (yield context.call_activity("step", f"child-{context.get_input()}"))

    @app.orchestration
    def main(context: Any) -> Any:
        results = yield context.task_all([context.call_activity("step", f"fan-{n}") for n in range(STEPS)])
        for n in range(5):
            results.append((yield context.call_sub_orchestrator("child", n)))
            yield context.call_entity(df.EntityId("counter", "k"), "add")
        return len(results)

    return app


async def run(mode: str, database: Path, log: Path) -> None:
    options = EngineOptions(max_concurrent_activities=4, max_batch=3)
    engine = DurableEngine(build(log), Storage(database), RealClock(), options)
    await engine.start()
    if mode == "start":
        await engine.start_new("main", "run", json.dumps("null"))
    snapshot = await engine.wait_for_end("run", 60)
    assert snapshot is not None
    print(json.dumps({"status": snapshot.instance.status, "output": snapshot.instance.output}), flush=True)
    entity = await engine.read_entity("counter", "k")
    print(entity.state_json, flush=True)
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
