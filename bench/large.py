"""The largest runs: a plan of 5,000 steps and a map of 10,000 items through the production orchestrator; activities nap 2 ms.

    .venv/bin/python -m bench.large --steps 5000
    .venv/bin/python -m bench.large --items 10000

Prints one JSON object: rows and size of the largest history of any execution, how many histories the run had, calls and CPU per
step, and the peak memory of this process, which holds engine, app and figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from azure.durable_functions import Orchestrator

from bench.growth import layered_case
from bench.memory import peak_mib
from bench.rollover import INPUTS, App
from engine.domain.names import MAP_ORCHESTRATOR
from engine.domain.skeleton import Skeleton, SkeletonStep, to_wire
from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.records import InstanceFilter
from local_host.durable.storage import Storage
from orchestrators.map_orchestrator import map_orchestrator

NAP_S = 0.002


class LargeApp(App):
    """A layered plan, or with ``items`` one map; notes how often each step or item was performed."""

    def __init__(self, steps: int, items: int) -> None:
        super().__init__(layered_case(max(steps, 1), NAP_S), asyncio.sleep)
        self.items = items
        self.performed: Counter[tuple[str, int | None]] = Counter()
        self.wrappers[MAP_ORCHESTRATOR] = Orchestrator.create(map_orchestrator)

    def has_activity(self, name: str) -> bool:
        return name in ("expand_map", "collect_map") or super().has_activity(name)

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        value = json.loads(input_json or "null")
        if name == "perform_step":
            self.performed[value["step_id"], value.get("item")] += 1
        if not self.items:
            return await super().call_activity(name, input_json, instance_id=instance_id, task_id=task_id)
        match name:
            case "plan_run":
                one = SkeletonStep("m0", kind="map", concurrency=64)
                return json.dumps({"status": "planned", "skeleton": to_wire(Skeleton((one,), 64, ""))})
            case "expand_map":
                return json.dumps({"status": "expanded", "item_count": self.items})
            case "collect_map":
                return json.dumps({"status": "succeeded", "item_count": self.items})
        return await super().call_activity(name, input_json, instance_id=instance_id, task_id=task_id)


async def measure(steps: int, items: int, *, warm: bool = True) -> dict[str, Any]:
    """One run to its end."""
    app = LargeApp(steps, items)
    with tempfile.TemporaryDirectory() as folder:
        options = EngineOptions(warm=warm, max_concurrent_activities=10_000)
        app.engine = engine = DurableEngine(app, Storage(Path(folder) / "hub.db"), RealClock(), options)
        await engine.start()
        cpu_s, began_s = time.process_time(), time.perf_counter()
        await engine.start_new("built", "run", json.dumps(json.dumps(INPUTS["built"])))
        ended = await engine.wait_for_end("run", 1_800)
        cpu_s, seconds = time.process_time() - cpu_s, time.perf_counter() - began_s
        for instance in await engine.query(InstanceFilter()):
            await app.look_at_history(instance.instance_id)
        await engine.stop()
    assert ended is not None
    count = items or steps
    return {
        "steps": steps,
        "items": items,
        "output": json.loads(ended.instance.output or "null"),
        "performed": len(app.performed),
        "performed_twice": sum(times > 1 for times in app.performed.values()),
        "generations": app.generations,
        "history_rows_max": app.history_rows,
        "history_kib_max": round(app.history_bytes / 1024, 1),
        "calls_per_step": round(app.starts / count, 2),
        "cpu_ms_per_step": round(cpu_s * 1000 / count, 2),
        "seconds": round(seconds, 1),
        "maxrss_mib": peak_mib(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--cold", action="store_true", help="replay everything in each episode, as Azure does")
    options = parser.parse_args()
    json.dump(asyncio.run(measure(options.steps, options.items, warm=not options.cold)), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
