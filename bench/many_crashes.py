"""Kill -9 at random moments under many runs at once: is every run finished, rightly, and how much is done twice?

A host with a bare graph orchestrator (`bench.graph_app`) runs fifty layered graphs of twenty steps side by side in a child
process that is killed at moments drawn from a seed and started again on the same store. Every execution of a step appends its
name to a file first, so repetitions are counted outside of the host. Prints one JSON line.

    .venv/bin/python -m bench.many_crashes --runs 50 --kills 25
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.graph_app import GraphApp
from bench.peer_cases import Graph, answer, digest, layered
from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.storage import Storage

SLOTS = 16
STEPS = 20
LIMIT_S = 300.0


def graphs(count: int) -> dict[str, Graph]:
    """The runs, whose steps have names of their own."""
    named = {}
    for run in range(count):
        prefix = f"r{run:02d}"
        named[prefix] = {
            prefix + step: [prefix + parent for parent in parents] for step, parents in layered(STEPS).items()
        }
    return named


def right_answer(graph: Graph) -> int:
    """The digest of a run that honoured every edge."""
    answers: dict[str, int] = {}
    for step, parents in graph.items():
        answers[step] = answer(step, [answers[parent] for parent in parents])
    return digest(graph, answers)


async def child(folder: Path, runs: int, step_s: float) -> None:
    """One life of the host: start what is not started, go on with the rest, end when every run has."""
    log = os.open(folder / "executions", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def act(step: str, of_parents: list[int]) -> int:
        os.write(log, f"{step}\n".encode())
        await asyncio.sleep(step_s)
        return answer(step, of_parents)

    wanted = graphs(runs)
    options = EngineOptions(max_concurrent_activities=SLOTS)
    engine = DurableEngine(GraphApp(wanted, act), Storage(folder / "hub.db"), RealClock(), options)
    await engine.start()
    for name in wanted:
        if await engine.status(name) is None:
            await engine.start_new(name, name, None)
    for name in wanted:
        await engine.wait_for_end(name, LIMIT_S)
    await engine.stop()
    (folder / "result").touch()


def live(folder: Path, arguments: list[str], kill_after_s: float | None) -> bool:
    """One process; True when it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.many_crashes", "--child", str(folder), *arguments],
        cwd=Path(__file__).parent.parent,
    )
    try:
        process.wait(timeout=kill_after_s if kill_after_s is not None else LIMIT_S)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


def measure(runs: int, kills: int, seed: int, step_s: float) -> dict[str, Any]:
    """Kill so many processes at random moments, and say what came of the runs."""
    dice, wanted = random.Random(seed), graphs(runs)
    arguments = ["--runs", str(runs), "--step-s", str(step_s)]
    with tempfile.TemporaryDirectory(prefix="bench-many-crashes-") as name:
        folder, killed, began = Path(name), 0, time.perf_counter()
        while killed < kills and not (folder / "result").exists():
            killed += live(folder, arguments, 0.6 + dice.random() * 1.4)
        while not (folder / "result").exists() and time.perf_counter() - began < LIMIT_S:
            live(folder, arguments, None)
        with closing(sqlite3.connect(folder / "hub.db")) as connection:
            ended = dict(connection.execute("SELECT instance_id, output FROM instances WHERE status = 'Completed'"))
        lines = Counter((folder / "executions").read_text().split())
        right = sum(str(ended.get(run)) == str(right_answer(graph)) for run, graph in wanted.items())
        return {
            "runs": runs,
            "steps": runs * STEPS,
            "kills": killed,
            "seed": seed,
            "seconds": round(time.perf_counter() - began, 1),
            "finished_rightly": right,
            "distinct_steps": len(lines),
            "repeated": lines.total() - len(lines),
            "repeated_at_most": SLOTS * killed,
            "most_of_one_step": max(lines.values()),
            "load1": round(os.getloadavg()[0], 2),
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--step-s", type=float, default=0.3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        asyncio.run(child(options.child, options.runs, options.step_s))
        return
    print(json.dumps(measure(options.runs, options.kills, options.seed, options.step_s)), flush=True)


if __name__ == "__main__":
    main()
