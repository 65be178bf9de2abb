"""Throughput of the embedded durable host on no-op steps: steps per second and engine CPU per step, warm and cold.

Prints one JSON object. Cold is what a replaying host does (and Azure will do); warm is what one machine can do.
No-op steps flatter every engine: `one_per_episode` shows the case where completions never arrive together.

    python -m bench.durable_host --repeat 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from azure.durable_functions import Orchestrator

from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.storage import Storage


class NoOpApp:
    """One no-op activity and the orchestrators that use it."""

    def __init__(self) -> None:
        self._wrappers = {name: Orchestrator.create(function) for name, function in ORCHESTRATORS.items()}

    def has_orchestrator(self, name: str) -> bool:
        return name in self._wrappers

    def has_activity(self, name: str) -> bool:
        return name == "noop"

    def has_entity(self, name: str) -> bool:
        return False

    def orchestrator(self, name: str) -> Callable[[str], str]:
        return self._wrappers[name]

    def entity(self, name: str) -> Callable[[str], str]:
        raise KeyError(name)

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        return input_json


def fan(context: Any) -> Iterator[Any]:
    """All steps at once."""
    results = yield context.task_all([context.call_activity("noop", n) for n in range(context.get_input())])
    return sum(results)


def chain(context: Any) -> Iterator[Any]:
    """One step after the other."""
    value = 0
    for _ in range(context.get_input()):
        value = (yield context.call_activity("noop", value)) + 1
    return value


ORCHESTRATORS = {"fan": fan, "chain": chain}


async def measure(name: str, size: int, options: EngineOptions) -> dict[str, float]:
    """One run in a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        engine = DurableEngine(NoOpApp(), Storage(Path(folder) / "hub.db"), RealClock(), options)
        await engine.start()
        began, cpu = time.perf_counter(), time.process_time()
        await engine.start_new(name, "run", json.dumps(json.dumps(size)))
        snapshot = await engine.wait_for_end("run", 300)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        await engine.stop()
        if snapshot is None or snapshot.instance.status != "Completed":
            raise RuntimeError(f"{name} did not complete")
        return {
            "steps_per_s": round(size / seconds, 1),
            "cpu_ms_per_step": round(cpu_s * 1000 / size, 3),
            "seconds": round(seconds, 4),
            "episodes": engine.episode_count,
        }


CASES = {
    "fan200": ("fan", 200, None),
    "fan200_one_per_episode": ("fan", 200, 1),
    "chain100": ("chain", 100, None),
    "chain1000": ("chain", 1000, None),
}


async def run(repeat: int, cases: list[str]) -> dict[str, Any]:
    """Best of `repeat` for each case, warm and cold."""
    report: dict[str, Any] = {"python": platform.python_version(), "synchronous": "FULL", "cases": {}}
    for label in cases:
        name, size, max_batch = CASES[label]
        report["cases"][label] = {}
        for warm in (True, False):
            if label == "chain1000" and not warm:
                continue
            options = EngineOptions(warm=warm, max_batch=max_batch)
            runs = [await measure(name, size, options) for _ in range(repeat)]
            report["cases"][label]["warm" if warm else "cold"] = max(runs, key=lambda each: each["steps_per_s"])
    return report


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    json.dump(asyncio.run(run(arguments.repeat, arguments.cases)), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
