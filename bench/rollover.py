"""How a long run may bound its history: designs on real task graphs, on the embedded host with faithful scheduling.

    .venv/bin/python -m bench.rollover --graph epigenomics-chameleon-hep-7seq-50k-001 --clock virtual

Prints one JSON line per design: makespan ÷ critical path and ÷ lower bound (critical path, or work ÷ cap), engine CPU per
step (under the real clock), largest history of one execution. `built` is the production orchestrator, `one` the same with the
start document of a run that stays in one history; the others are in `bench.rollover_designs`.
What follows from the figures is in docs/adr/0001-roll-over.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.durable_functions import Orchestrator

from activities import apart
from bench.rollover_designs import DESIGNS, START_AT, Case, Designs, load_case
from engine.domain.names import INPUT_VERSION, ROLLS_SINCE
from engine.domain.skeleton import to_wire
from local_host.durable.clock import RealClock, VirtualClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.history import to_row
from local_host.durable.records import InstanceFilter
from local_host.durable.storage import Storage
from tests.support.durable_client import EngineClient

RUN_INPUT = {"tenant_id": "bench", "run_id": "run", "deadline_at": "2036-01-01T00:00:00Z"}
INPUTS = {"one": RUN_INPUT | {"v": ROLLS_SINCE - 1}, "built": RUN_INPUT | {"v": INPUT_VERSION}}
"""Start documents of the production orchestrator: of the last version that stays in one history, and of today's."""
BUILT_ACTIVITIES = ("plan_run", "perform_step", "compose_answer", "finish_run", "start_steps", "tell_outcome")


@dataclass
class App:
    """The designs as functions of the embedded host; activities nap."""

    case: Case
    sleep_s: Callable[[float], Any]
    engine: DurableEngine | None = None
    finished: set[int] = field(default_factory=set)
    starts: int = 0
    history_bytes: int = 0
    history_rows: int = 0
    generations: int = 1
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.wrappers = {name: Orchestrator.create(body) for name, body in Designs(self.case).by_name().items()}

    def has_orchestrator(self, name: str) -> bool:
        return name in self.wrappers

    def has_activity(self, name: str) -> bool:
        return name in ("nap", "start_apart", "reconcile", "checkpoint", "checkpoint_run", *BUILT_ACTIVITIES)

    def has_entity(self, name: str) -> bool:
        return False

    def orchestrator(self, name: str) -> Callable[[str], str]:
        return self.wrappers[name]

    def entity(self, name: str) -> Callable[[str], str]:
        raise KeyError(name)

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        value = json.loads(input_json or "null")
        self.starts += 1
        match name:
            case "plan_run":
                return json.dumps(
                    {"status": "planned", "skeleton": to_wire(self.case.skeleton(range(self.case.count)))}
                )
            case "perform_step":
                await self._nap(int(value["step_id"][1:]))
                return json.dumps({"status": "succeeded"})
            case "compose_answer":
                return json.dumps({"status": "composed"})
            case "finish_run":
                return None
            case "nap":
                await self._nap(value)
            case "start_steps":
                return json.dumps(await apart.start_steps(value, EngineClient(self._running)))
            case "tell_outcome":
                return json.dumps(await apart.tell_outcome(value, EngineClient(self._running)))
            case "start_apart":
                for step in value:
                    task = asyncio.get_running_loop().create_task(self._apart(step, instance_id))
                    self.background.add(task)
                    task.add_done_callback(self.background.discard)
            case "reconcile":
                return json.dumps([step for step in value if step in self.finished])
            case _:
                self.generations += 1
                await self.look_at_history(instance_id)
        return None

    @property
    def _running(self) -> DurableEngine:
        assert self.engine is not None
        return self.engine

    async def look_at_history(self, instance_id: str) -> None:
        """Note the size of a history at its largest: just before a roll-over, or at the end."""
        snapshot = await self._running.status(instance_id, with_history=True)
        events = snapshot.events if snapshot is not None and snapshot.events is not None else []
        self.history_rows = max(self.history_rows, len(events))
        self.history_bytes = max(self.history_bytes, sum(len(json.dumps(to_row(event))) for event in events))

    async def _nap(self, step: int) -> None:
        await self.sleep_s(self.case.durations_s[step])
        self.finished.add(step)

    async def _apart(self, step: int, instance_id: str) -> None:
        """A step outside durable history: its outcome is stored before its event is raised."""
        await self._nap(step)
        await self._running.raise_event(instance_id, f"step-finished.{step}.1", json.dumps("null"))


async def measure(case: Case, design: str, *, virtual: bool, warm: bool) -> dict[str, Any]:
    clock: Any = VirtualClock(START_AT) if virtual else RealClock()
    app = App(case, clock.sleep_s if virtual else asyncio.sleep)
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder) / "hub.db", synchronous="FULL")
        options = EngineOptions(warm=warm, max_concurrent_activities=10_000)
        app.engine = engine = DurableEngine(app, storage, clock, options)
        await engine.start()
        begun_at, cpu_s, wall_s = clock.now(), time.process_time(), time.perf_counter()
        given = INPUTS[design] | {"roll_after": case.limit} if design in INPUTS else None
        await engine.start_new(design, "run", json.dumps(json.dumps(given)) if given is not None else None)
        if virtual:
            await fly(engine, clock, app)
        snapshot = await engine.wait_for_end("run")
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        makespan_s = (clock.now() - begun_at).total_seconds()
        for instance in await engine.query(InstanceFilter()):
            await app.look_at_history(instance.instance_id)
        await engine.stop()
    assert snapshot is not None
    assert snapshot.instance.status == "Completed", snapshot.instance.output
    assert len(app.finished) == case.count, "not every step ran"
    return {
        "graph": case.name,
        "steps": case.count,
        "design": design,
        "clock": "virtual" if virtual else "real",
        "mode": "warm" if warm else "cold",
        "critical_path_s": case.path_s,
        "makespan_ratio": round(makespan_s / case.path_s, 3),
        "bound_ratio": round(makespan_s / case.bound_s, 3),
        # Under a virtual clock the process also busies itself with moving time; its CPU figure would mean nothing.
        "cpu_ms_per_step": None if virtual else round(cpu_s * 1000 / case.count, 3),
        "calls_per_step": round(app.starts / case.count, 2),
        "episodes": engine.episode_count,
        "generations": app.generations,
        "history_rows_max": app.history_rows,
        "history_kib_max": round(app.history_bytes / 1024, 1),
        "wall_s": round(wall_s, 2),
    }


async def fly(engine: DurableEngine, clock: VirtualClock, app: App) -> None:
    """Move time on whenever nothing else can happen."""
    idle = 0
    while True:
        await asyncio.sleep(0)
        busy = engine.active_jobs + len(app.background) - clock.sleeping
        if busy > 0:
            idle = 0
            await asyncio.sleep(0.0002)
            continue
        idle += 1
        if idle < 4:
            continue
        idle = 0
        snapshot = await engine.status("run")
        assert snapshot is not None
        if snapshot.instance.is_terminal or not clock.advance_to_next():
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder that holds dags/wf and dags/wfgen"
    )
    parser.add_argument("--graph", default="epigenomics-chameleon-hep-7seq-50k-001")
    parser.add_argument("--designs", default=",".join(DESIGNS))
    parser.add_argument("--clock", choices=("virtual", "real"), default="virtual")
    parser.add_argument("--mode", choices=("warm", "cold"), default="warm")
    parser.add_argument("--path-s", type=float, default=10.0, help="length of the critical path in seconds")
    parser.add_argument("--limit", type=int, default=100, help="completions per generation, steps per part")
    parser.add_argument("--cap", type=int, default=64, help="calls open at once, at most 64")
    options = parser.parse_args()
    folder = "wfgen" if options.graph.startswith("wfgen") else "wf"
    path = options.data / "dags" / folder / f"{options.graph}.json"
    if not path.is_file():
        print(f"skipped: {path} is absent", file=sys.stderr)
        return 0
    case = load_case(path, options.path_s, options.limit, options.cap)
    for design in options.designs.split(","):
        figures = asyncio.run(measure(case, design, virtual=options.clock == "virtual", warm=options.mode == "warm"))
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
