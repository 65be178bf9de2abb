"""Real workflow graphs under the production orchestrator on the embedded host: how close the makespan comes to what is possible.

Two questions per graph, each beside the same graph run wave by wave with a barrier:
`wide`: critical path scaled to `--path-s`, at most 64 calls open, as many as one run may have: makespan ÷ critical path, and
÷ bound (a graph wider than 64 cannot reach its critical path).
`slots`: 16 slots, durations scaled so that max(critical path, work ÷ 16) is `--path-s`: makespan ÷ that of a first-in-first-out
schedule with 16 slots. Below 1 is what critical-path priority gains; `fifo16_s` of the recorded statistics, scaled alike, is
beside it.

The virtual clock measures scheduling alone and is quick; the real clock adds what the host costs. Prints one JSON line per graph.

    .venv/bin/python -m bench.dags --data ../shared/data --most 60 --clock virtual
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import heapq
import json
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.memory import peak_mib
from bench.rollover import measure
from bench.rollover_designs import Case, load_case

SLOTS = 16
WIDEST = 64
"""Calls that one run may have open."""


def fifo_s(needs: Sequence[Sequence[int]], durations_s: Sequence[float], slots: int) -> float:
    """Makespan of a schedule that starts ready steps in the order in which they became ready."""
    children: list[list[int]] = [[] for _ in needs]
    for step, parents in enumerate(needs):
        for parent in parents:
            children[parent].append(step)
    missing = [len(parents) for parents in needs]
    ready = deque(step for step, count in enumerate(missing) if not count)
    open_steps: list[tuple[float, int]] = []
    now_s = 0.0
    while ready or open_steps:
        while ready and len(open_steps) < slots:
            step = ready.popleft()
            heapq.heappush(open_steps, (now_s + durations_s[step], step))
        now_s, step = heapq.heappop(open_steps)
        for child in children[step]:
            missing[child] -= 1
            if not missing[child]:
                ready.append(child)
    return now_s


def scaled(path: Path, bound_s: float, cap: int) -> Case:
    """The graph with durations so that no schedule with so many slots is shorter than `bound_s`."""
    plain = load_case(path, bound_s, 100, cap)
    return load_case(path, bound_s * bound_s / plain.bound_s, 100, cap)


def recorded_fifo_s(statistics: Path, case: Case) -> float | None:
    """`fifo16_s` of the statistics beside the data, scaled as the case is; None when the graph is not in them."""
    if not statistics.is_file():
        return None
    with statistics.open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    row = rows.get(case.name)
    return float(row["fifo16_s"]) * case.path_s / float(row["cp_s"]) if row and float(row["cp_s"]) else None


async def run(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one graph."""
    virtual = options.clock == "virtual"
    began = time.perf_counter()
    wide = load_case(path, options.path_s, 100, WIDEST)
    slots = scaled(path, options.path_s, SLOTS)
    built, wave = [await measure(wide, design, virtual=virtual, warm=True) for design in ("built", "wave")]
    narrow, narrow_wave = [await measure(slots, design, virtual=virtual, warm=True) for design in ("built", "wave")]
    fifo = fifo_s(slots.needs, slots.durations_s, SLOTS)
    recorded = recorded_fifo_s(path.parent.parent / "wf_stats.csv", slots)
    makespan_s = narrow["makespan_ratio"] * slots.path_s
    return {
        "graph": wide.name,
        "steps": wide.count,
        "clock": options.clock,
        "wide": {
            "to_critical_path": built["makespan_ratio"],
            "to_bound": built["bound_ratio"],
            "wave_to_critical_path": wave["makespan_ratio"],
            "cpu_ms_per_step": built["cpu_ms_per_step"],
        },
        "slots": {
            "to_bound": narrow["bound_ratio"],
            "to_fifo": round(makespan_s / fifo, 3),
            "to_recorded_fifo16": round(makespan_s / recorded, 3) if recorded else None,
            "wave_to_fifo": round(narrow_wave["makespan_ratio"] * slots.path_s / fifo, 3),
        },
        "seconds": round(time.perf_counter() - began, 1),
        "maxrss_mib": peak_mib(),
        "load1": round(os.getloadavg()[0], 2),
    }


def chosen(folder: Path, names: Sequence[str], most: int) -> list[Path]:
    """The named graphs, or up to `most` of all, evenly over their sizes, small ones first."""
    if names:
        return [folder / f"{name}.json" for name in names]
    every = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_size)
    step = max(1.0, len(every) / most)
    return [every[int(index * step)] for index in range(min(most, len(every)))]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds dags/wf")
    parser.add_argument("--graphs", nargs="*", default=[])
    parser.add_argument("--most", type=int, default=6, help="how many graphs, when none is named")
    parser.add_argument("--clock", choices=("virtual", "real"), default="virtual")
    parser.add_argument("--path-s", type=float, default=10.0)
    options = parser.parse_args()
    folder = options.data / "dags" / "wf"
    if not folder.is_dir():
        print(f"skipped: {folder} is absent", file=sys.stderr)
        return 0
    for path in chosen(folder, options.graphs, options.most):
        print(json.dumps(asyncio.run(run(path, options))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
