"""Kill -9 in the middle of a run: what is repeated, how long the next process takes to go on, and whether the result is right.

A host with a bare graph orchestrator (`bench.graph_app`) runs layered 500 at 2 ms a step in a child process that is killed at
seeded moments and started again on the same store. Every execution of a step appends its name to a file first, so repetitions are
counted outside of the host. Prints one JSON line for no kill and one for `--kills`.

    .venv/bin/python -m bench.crash --kills 5
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
from bench.peer_cases import CASES, DIGESTS, answer
from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.storage import Storage

SLOTS = 16
_NAME_LENGTH = 6
"""Bytes of a line of the log: `s0000` and the end of the line."""


async def child(name: str, folder: Path, step_s: float) -> None:
    """One life of the host: start or go on, and leave the result in a file."""
    log = os.open(folder / "executions", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def act(step: str, of_parents: list[int]) -> int:
        os.write(log, f"{step}\n".encode())
        await asyncio.sleep(step_s)
        return answer(step, of_parents)

    app = GraphApp({name: CASES[name]()}, act)
    options = EngineOptions(max_concurrent_activities=SLOTS)
    engine = DurableEngine(app, Storage(folder / "hub.db"), RealClock(), options)
    await engine.start()
    if await engine.status("run") is None:
        await engine.start_new(name, "run", None)
    snapshot = await engine.wait_for_end("run", 120)
    await engine.stop()
    assert snapshot is not None
    (folder / "result.tmp").write_text(str(snapshot.instance.output))
    (folder / "result.tmp").rename(folder / "result")


class Lives:
    """The child processes of one measurement, one after the other."""

    def __init__(self, name: str, folder: Path, step_s: float) -> None:
        self.name, self.folder, self.step_s = name, folder, step_s
        self.log, self.result = folder / "executions", folder / "result"
        self.kills, self.restarts_s = 0, list[float]()

    @property
    def lines(self) -> int:
        return self.log.stat().st_size // _NAME_LENGTH if self.log.exists() else 0

    def live(self, until_lines: int | None, pause_s: float, limit_s: float = 120) -> None:
        """Start a process; kill it when so many steps have been executed, or let it end."""
        before, began = self.lines, time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.crash", "--child", str(self.folder), "--case", self.name,
             "--step-s", str(self.step_s)],
            cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        first_s: float | None = None
        while process.poll() is None and time.perf_counter() - began < limit_s:
            if first_s is None and self.lines > before:
                first_s = time.perf_counter() - began
            if until_lines is not None and self.lines >= until_lines:
                time.sleep(pause_s)
                process.kill()
                self.kills += 1
                break
            time.sleep(0.001)
        if process.poll() is None:
            process.kill()
        process.wait()
        if before and first_s is not None:
            self.restarts_s.append(round(first_s, 3))

    def figures(self) -> dict[str, Any]:
        runs = Counter(self.log.read_text().split())
        with closing(sqlite3.connect(self.folder / "hub.db")) as connection:
            running = connection.execute("SELECT count(*) FROM instances WHERE status IN ('Pending', 'Running')")
            still_running = running.fetchone()[0]
        return {
            "case": self.name,
            "kills": self.kills,
            "slots": SLOTS,
            "ok": self.result.exists() and self.result.read_text() == str(DIGESTS[self.name]),
            "executions": runs.total(),
            "repeated": runs.total() - len(runs),
            "distinct": len(runs),
            "most_of_one_step": max(runs.values()),
            "restart_to_first_step_s": self.restarts_s,
            "still_running": still_running,
            "load1": round(os.getloadavg()[0], 2),
        }


async def measure(name: str, *, kills: int, seed: int, step_s: float) -> dict[str, Any]:
    """Kill a run so many times at moments drawn from the seed, and say what came of it."""
    dice, steps = random.Random(seed), len(CASES[name]())
    with tempfile.TemporaryDirectory(prefix="bench-crash-") as folder:
        lives, began = Lives(name, Path(folder), step_s), time.perf_counter()
        for _ in range(kills):
            goal = lives.lines + int(steps / (kills + 1) * (0.6 + 0.6 * dice.random()))
            await asyncio.to_thread(lives.live, min(goal, steps - 1), dice.random() * 0.004)
        while not lives.result.exists() and time.perf_counter() - began < 240:
            await asyncio.to_thread(lives.live, None, 0.0)
        return {"seconds": round(time.perf_counter() - began, 2), "seed": seed} | lives.figures()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--case", choices=list(CASES), default="layered500")
    parser.add_argument("--step-s", type=float, default=0.002)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        asyncio.run(child(options.case, options.child, options.step_s))
        return
    for kills in (0, options.kills):
        figures = asyncio.run(measure(options.case, kills=kills, seed=options.seed, step_s=options.step_s))
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
