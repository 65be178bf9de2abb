"""Steps per second of the embedded host on the three graphs of the side-by-side measurements (`bench.peer_cases`).

A bare graph orchestrator and no-op activities, one process, every episode synced to disk: cold (a full replay per episode,
what a replaying host does) and warm (live generators), each with the SDK's own timestamp parser and with the faster one, and
the case in which completions never arrive together (`one_by_one`). Prints one JSON object; a run whose digest is wrong is an
error. `ENGINES` are the figures of other engines on the same graphs, measured on this kind of machine when it was idle;
`--others` measures them again, in turn with ours, case by case (`bench.other_engines` says what their scripts must do).
`--governed` puts the whole app beside (policy, audit, event log, stores, HTTP to an agent; `bench/engine.py`), as CPU per
step and as ratios. `machine` says how fast one synced commit and a fixed loop of Python were in this run, because nothing else
makes a figure from a busy machine comparable with one from an idle machine.

    .venv/bin/python -m bench.peers --repeat 3 --others A_VENV/bin/python:PEERS/bench_a.py B_VENV/bin/python:PEERS/bench_b.py
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.graph_app import GraphApp
from bench.other_engines import OtherEngine, figures
from bench.peer_cases import CASES, DIGESTS, Graph
from local_host.durable.clock import RealClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.executor import patch_timestamp_parser
from local_host.durable.storage import Storage

ENGINES = {
    "LangGraph + SQLite": {"chain100": 595, "fan200": 990, "layered500": 1237},
    "DBOS on SQLite": {"chain100": 387, "fan200": 504, "layered500": 352},
}
GOALS = {
    "cold": {"layered500": 350},
    "warm": {"chain100": 600, "fan200": 1000, "layered500": 1250},
}


@contextmanager
def timestamp_parser(*, fast: bool) -> Iterator[None]:
    """The SDK with its own parser of timestamps, or with the host's, which every engine puts in place when it starts."""
    module = importlib.import_module("azure.durable_functions.models.history.HistoryEvent").__dict__
    stock = importlib.import_module("dateutil.parser").parse

    def marked(text: str) -> Any:
        return stock(text)

    marked._livoa_fast = True  # type: ignore[attr-defined]  # looks patched, so that the engine leaves it alone
    module["dt_parse"] = stock if fast else marked
    if fast:
        patch_timestamp_parser()
    try:
        yield
    finally:
        module["dt_parse"] = stock


def machine() -> dict[str, Any]:
    """How fast this machine is now: medians of a synced commit and of a fixed loop, load average."""
    commits, loops = [], []
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "probe.db", isolation_level=None)
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE probe (at INTEGER)"):
            connection.execute(statement)
        for at in range(200):
            began = time.perf_counter()
            connection.execute("INSERT INTO probe VALUES (?)", (at,))
            commits.append(time.perf_counter() - began)
            began, total = time.perf_counter(), 0
            for number in range(10_000):
                total += number
            loops.append(time.perf_counter() - began)
        connection.close()
    return {
        "python": platform.python_version(),
        "load1": round(os.getloadavg()[0], 2),
        "synchronous": "FULL",
        "commit_ms": round(statistics.median(commits) * 1000, 3),
        "loop_of_10000_ms": round(statistics.median(loops) * 1000, 3),
    }


async def measure(name: str, graph: Graph, options: EngineOptions) -> dict[str, Any]:
    """One run in a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        engine = DurableEngine(GraphApp({name: graph}), Storage(Path(folder) / "hub.db"), RealClock(), options)
        await engine.start()
        began, cpu = time.perf_counter(), time.process_time()
        await engine.start_new(name, "run", None)
        snapshot = await engine.wait_for_end("run", 600)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        episodes = engine.episode_count
        await engine.stop()
    if snapshot is None or snapshot.instance.output != str(DIGESTS[name]):
        raise RuntimeError(f"{name} did not end with the digest of its graph: {snapshot}")
    return {
        "steps_per_s": round(len(graph) / seconds, 1),
        "cpu_ms_per_step": round(cpu_s * 1000 / len(graph), 3),
        "seconds": round(seconds, 4),
        "episodes": episodes,
    }


def best_of(repeat: int, name: str, options: EngineOptions, *, fast: bool) -> dict[str, Any]:
    """The fastest of some runs: what disturbs a run on a shared machine only ever slows it down."""
    graph = CASES[name]()
    with timestamp_parser(fast=fast):
        runs = [asyncio.run(measure(name, graph, options)) for _ in range(repeat)]
    return max(runs, key=lambda run: run["steps_per_s"])


def bare(repeat: int, names: list[str], others: list[OtherEngine], *, one_by_one: bool) -> dict[str, Any]:
    """All variants of the named graphs, and beside each the other engines on the same graph."""
    report: dict[str, Any] = {}
    for name in names:
        report[name] = {
            mode: {
                "stock_parser": best_of(repeat, name, EngineOptions(warm=mode == "warm"), fast=False),
                "fast_parser": best_of(repeat, name, EngineOptions(warm=mode == "warm"), fast=True),
            }
            for mode in ("cold", "warm")
        }
        if one_by_one:
            options = EngineOptions(warm=True, max_batch=1)
            report[name]["warm"]["one_by_one"] = best_of(1, name, options, fast=True)
        beside: dict[str, Any] = {}
        for other in others:
            beside |= figures(other, name, repeat)
        report[name]["others"] = beside or {engine: known[name] for engine, known in ENGINES.items()}
    return report


def governed(report: dict[str, Any]) -> dict[str, Any]:
    """The whole app on the three graphs, and its cost beside the bare host replaying cold."""
    from bench import engine as whole_app

    measured = asyncio.run(whole_app.main(200, 500))
    answer = {}
    for shape, name in (("chain", "chain100"), ("fan", "fan200"), ("layered", "layered500")):
        cold, whole = report[name]["cold"]["fast_parser"], measured[shape]
        answer[name] = whole | {
            "time_per_step_to_bare_cold": round(cold["steps_per_s"] / whole["steps_per_s"], 2),
            "cpu_per_step_to_bare_cold": round(whole["host_cpu_ms_per_step"] / cold["cpu_ms_per_step"], 2),
        }
    return answer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--one-by-one", action="store_true", help="also with one completion per episode")
    parser.add_argument("--others", nargs="*", default=[], type=OtherEngine.named, metavar="PYTHON:SCRIPT")
    parser.add_argument("--governed", action="store_true", help="also the whole app, with its ratio (needs all cases)")
    options = parser.parse_args()
    for other in options.others:
        other.check_graphs(options.cases)
    report = bare(options.repeat, options.cases, options.others, one_by_one=options.one_by_one)
    answer: dict[str, Any] = {
        "machine": machine(),
        "goals_steps_per_s": GOALS,
        "bare": report,
    }
    if options.governed:
        answer["governed"] = governed(report)
    json.dump(answer, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
