"""What a step costs as plans and their number grow: the production orchestrator on the embedded host, activities that nap.

`growth`: engine CPU per step of one run of 2,000 steps and of as many runs of 100 as make 2,000 (layered graphs as in
`bench.peer_cases`), in turn, and the ratio. Both take equally long, so that a busy machine hits both alike: the least of many
short runs would be that of a quiet moment which no long run fits into.
`crowd`: 50 runs of 20 steps of 100 ms submitted at once: seconds until all have ended, and the delay between the end of the last
step that a step needs and its start. Prints one JSON object. Memory is that of this process, which holds every graph, history
and figure.

    .venv/bin/python -m bench.growth
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.memory import peak_mib
from bench.peer_cases import layered
from bench.rollover import INPUTS, App, measure
from bench.rollover_designs import Case, critical_path
from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.storage import Storage

CAP = 64


def layered_case(steps: int, step_s: float) -> Case:
    """A layered graph whose steps all last the same."""
    graph = layered(steps)
    place = {step: index for index, step in enumerate(graph)}
    needs = tuple(tuple(sorted(place[parent] for parent in parents)) for parents in graph.values())
    durations_s = [step_s] * steps
    return Case(f"layered{steps}", needs, tuple(durations_s), critical_path(needs, durations_s), 100, CAP)


async def cpu_per_step_ms(steps: int, runs: int) -> float:
    """CPU per step of some runs one after the other, in ms, on the whole."""
    case = layered_case(steps, 0.002)
    each = [(await measure(case, "built", virtual=False, warm=True))["cpu_ms_per_step"] for _ in range(runs)]
    return statistics.fmean(each)


async def one_round(small: int, large: int) -> tuple[float, float]:
    """CPU per step of both sizes in ms.

    Half of the small runs come before the large one and half after it, for a machine that gets busier or quieter meanwhile.
    """
    half = max(1, large // small // 2)
    before, of_large = await cpu_per_step_ms(small, half), await cpu_per_step_ms(large, 1)
    return (before + await cpu_per_step_ms(small, half)) / 2, of_large


async def growth(sizes: tuple[int, int], repeat: int) -> dict[str, Any]:
    """Both sizes in turn, after one of each that does not count: the ratio of the least figures, and that of each round."""
    small, large = sizes
    for size in sizes:
        await cpu_per_step_ms(size, 1)
    rounds = [await one_round(small, large) for _ in range(repeat)]
    least_small, least_large = (min(figures) for figures in zip(*rounds, strict=True))
    return {
        f"cpu_ms_per_step_{small}": round(least_small, 3),
        f"cpu_ms_per_step_{large}": round(least_large, 3),
        "ratio": round(least_large / least_small, 2),
        "ratio_of_each_round": [round(of_large / of_small, 2) for of_small, of_large in rounds],
    }


class TimedApp(App):
    """Notes when each step of each run started and ended."""

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        if name != "perform_step":
            return await super().call_activity(name, input_json, instance_id=instance_id, task_id=task_id)
        key = (instance_id, int(json.loads(input_json or "null")["step_id"][1:]))
        began = time.perf_counter()
        answer = await super().call_activity(name, input_json, instance_id=instance_id, task_id=task_id)
        TIMES[key] = (began, time.perf_counter())
        return answer


TIMES: dict[tuple[str, int], tuple[float, float]] = {}
"""(instance, step) → start and end, in seconds of the performance counter."""


async def crowd(runs: int, steps: int, step_s: float) -> dict[str, Any]:
    """Many runs at once."""
    case = layered_case(steps, step_s)
    app = TimedApp(case, asyncio.sleep)
    TIMES.clear()
    with tempfile.TemporaryDirectory() as folder:
        options = EngineOptions(max_concurrent_activities=10_000)
        app.engine = engine = DurableEngine(app, Storage(Path(folder) / "hub.db"), RealClock(), options)
        await engine.start()
        began, names = time.perf_counter(), [f"run-{number}" for number in range(runs)]
        for name in names:
            document = json.dumps(json.dumps(INPUTS["built"] | {"run_id": name}))
            await engine.start_new("built", name, document)
        ended = await asyncio.gather(*[engine.wait_for_end(name, 300) for name in names])
        seconds = time.perf_counter() - began
        await engine.stop()
    statuses = [snapshot.instance.status if snapshot else "lost" for snapshot in ended]
    delays_s = sorted(
        TIMES[name, step][0] - max(TIMES[name, need][1] for need in case.needs[step])
        for name in names
        for step in range(steps)
        if case.needs[step]
    )
    return {
        "runs": runs,
        "completed": statuses.count("Completed"),
        "steps_done": len(TIMES),
        "seconds": round(seconds, 2),
        "critical_path_s": round(case.path_s, 2),
        "step_delay_p50_ms": round(delays_s[len(delays_s) // 2] * 1000, 1),
        "step_delay_p95_ms": round(delays_s[int(len(delays_s) * 0.95)] * 1000, 1),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=4, help="rounds of growth")
    parser.add_argument("--large", type=int, default=2_000, help="steps of the larger graph")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    answer = {
        "crowd": asyncio.run(crowd(options.runs, 20, 0.1)),
        "growth": asyncio.run(growth((100, options.large), options.repeat)),
        "maxrss_mib": peak_mib(),
        "load1": round(os.getloadavg()[0], 2),
    }
    json.dump(answer, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
