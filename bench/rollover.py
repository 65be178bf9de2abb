"""How a long run may bound its history: five designs on real task graphs, on the embedded host with faithful scheduling.

    .venv/bin/python -m bench.rollover --graph epigenomics-chameleon-hep-7seq-50k-001 --clock virtual

Prints one JSON line per design: makespan ÷ critical path and ÷ lower bound (critical path, or work ÷ cap), engine CPU per
step, largest history as sent to a cold replay. The designs are throw-away
orchestrators around the production scheduler's board; what is built, and why, is in docs/adr/0001-roll-over.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from azure.durable_functions import Orchestrator

from engine.domain.outcomes import Succeeded
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.scheduler import RunRef, RunState, compile_graph, dumps, loads
from engine.scheduler import steps as brain
from engine.scheduler.board import Board, Draft, new_board
from engine.scheduler.commands import PerformStep
from engine.scheduler.transitions import RunPhase
from local_host.durable.clock import RealClock, VirtualClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.storage import Storage

START_AT = datetime(2026, 1, 1, tzinfo=UTC)
FAR_AT = START_AT + timedelta(days=3650)
REF = RunRef("bench", "run", FAR_AT)
DESIGNS = ("naive", "none", "wave", "drain", "parts", "hybrid")


@dataclass(frozen=True)
class Case:
    """One graph with durations scaled so that its critical path lasts ``path_s``."""

    name: str
    needs: tuple[tuple[int, ...], ...]
    durations_s: tuple[float, ...]
    path_s: float
    limit: int
    cap: int

    @property
    def count(self) -> int:
        return len(self.needs)

    @property
    def bound_s(self) -> float:
        """What no schedule can beat: the critical path, or all work spread over the cap."""
        return max(self.path_s, sum(self.durations_s) / self.cap)

    def is_long(self, step: int) -> bool:
        """Steps that the hybrid never runs as activities, because a roll-over would have to wait for them."""
        return self.durations_s[step] > 0.01 * self.path_s

    def board(self, only: range | None = None) -> Board:
        chosen = only if only is not None else range(self.count)
        steps = tuple(
            SkeletonStep(
                f"s{index}",
                needs=tuple(need - chosen.start for need in self.needs[index] if need in chosen),
                expected_s=self.durations_s[index],
            )
            for index in chosen
        )
        return new_board(compile_graph(Skeleton(steps, self.cap, "")))


def load_case(path: Path, path_s: float, limit: int, cap: int) -> Case:
    document = json.loads(path.read_text())
    tasks = document["tasks"]
    raw = [max(float(task[2]), 0.001) for task in tasks]
    order = chain_order([tuple(task[3]) for task in tasks])
    place = {old: new for new, old in enumerate(order)}
    needs = tuple(tuple(sorted(place[need] for need in tasks[old][3])) for old in order)
    durations = [raw[old] for old in order]
    scale = path_s / critical_path(needs, durations)
    return Case(document["id"], needs, tuple(d * scale for d in durations), path_s, limit, cap)


def chain_order(needs: list[tuple[int, ...]]) -> list[int]:
    """A topological order that follows chains, so that cutting it into pieces cuts few edges."""
    dependants: list[list[int]] = [[] for _ in needs]
    for index, parents in enumerate(needs):
        for parent in parents:
            dependants[parent].append(index)
    left = [len(parents) for parents in needs]
    stack, order = [index for index in range(len(needs) - 1, -1, -1) if not left[index]], []
    while stack:
        index = stack.pop()
        order.append(index)
        for dependant in reversed(dependants[index]):
            left[dependant] -= 1
            if not left[dependant]:
                stack.append(dependant)
    return order


def critical_path(needs: tuple[tuple[int, ...], ...], durations: list[float]) -> float:
    ends: list[float] = []
    for parents, duration in zip(needs, durations, strict=True):
        ends.append(duration + max((ends[parent] for parent in parents), default=0.0))
    return max(ends)


class Desk:
    """The scheduler's board with the two moves the designs need."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def start(self) -> list[PerformStep]:
        calls = [call for call in brain.starts(self.board) if isinstance(call, PerformStep)]
        draft = Draft(self.board)
        for call in calls:
            brain.issue(draft, call)
        self.board = draft.frozen()
        return calls

    def finish(self, call: PerformStep) -> None:
        if brain.is_open(self.board, call):
            draft = Draft(self.board)
            brain.answer(draft, call, Succeeded(), START_AT, brain.Frame("run", FAR_AT))
            self.board = draft.frozen()

    @property
    def is_over(self) -> bool:
        return self.board.unfinished == 0


class Pool:
    """Open tasks in order of creation, listed with the nudge unless ``nudged`` is off."""

    def __init__(self, context: Any, *, nudged: bool = True) -> None:
        self.context, self.nudged = context, nudged
        self.open: dict[Any, Any] = {}
        self.listed = 0

    def first(self) -> Any:
        tasks = list(self.open)
        if self.nudged and 0 < self.listed < len(tasks):
            timer = self.context.create_timer(self.context.current_utc_datetime + timedelta(days=5))
            timer.cancel()
            tasks.append(timer)
        self.listed = len(self.open)
        return self.context.task_any(tasks)

    def take(self, winner: Any) -> Any:
        if winner not in self.open:
            return None
        self.listed -= 1
        return self.open.pop(winner)


def pack(board: Board) -> str:
    return dumps(RunState(REF, RunPhase.RUNNING, FAR_AT, board=board))


@lru_cache(maxsize=8)
def unpack(text: str) -> Board:
    """Remembered by text: without it every replay decodes the whole state again."""
    board = loads(text).board
    assert board is not None
    return board


def designs(case: Case) -> dict[str, Callable[[Any], Any]]:
    def pooled(context: Any, *, nudged: bool) -> Any:
        desk, pool = Desk(case.board()), Pool(context, nudged=nudged)
        while not desk.is_over:
            for call in desk.start():
                pool.open[context.call_activity("nap", call.step)] = call
            winner = yield pool.first()
            if (call := pool.take(winner)) is not None:
                desk.finish(call)

    def naive(context: Any) -> Any:
        return (yield from pooled(context, nudged=False))

    def none(context: Any) -> Any:
        return (yield from pooled(context, nudged=True))

    def wave(context: Any) -> Any:
        desk = Desk(case.board())
        while not desk.is_over:
            calls = desk.start()
            yield context.task_all([context.call_activity("nap", call.step) for call in calls])
            for call in calls:
                desk.finish(call)

    def drain(context: Any) -> Any:
        desk = Desk(unpack(context.get_input()) if context.get_input() else case.board())
        pool, done = Pool(context), 0
        while not desk.is_over:
            for call in desk.start() if done < case.limit else ():
                pool.open[context.call_activity("nap", call.step)] = call
            if not pool.open:
                yield context.call_activity("checkpoint", done)
                context.continue_as_new(pack(desk.board))
                return
            winner = yield pool.first()
            if (call := pool.take(winner)) is not None:
                desk.finish(call)
                done += 1

    def hybrid(context: Any) -> Any:
        given = context.get_input()
        desk = Desk(unpack(given["board"]) if given else case.board())
        waits: dict[int, PerformStep] = {step: PerformStep(step, 1) for step in given["waits"]} if given else {}
        pool, done, short = Pool(context), 0, 0
        for call in waits.values():
            pool.open[context.wait_for_external_event(f"step-finished.{call.step}.1")] = call
        if waits:
            pool.open[context.call_activity("reconcile", sorted(waits))] = "reconcile"
        while not desk.is_over:
            calls = desk.start()
            apart = [call for call in calls if done >= case.limit or case.is_long(call.step)]
            for call in calls:
                if call not in apart:
                    short += 1
                    pool.open[context.call_activity("nap", call.step)] = call
            if apart:
                short += 1
                pool.open[context.call_activity("start_steps", [call.step for call in apart])] = "started"
                for call in apart:
                    waits[call.step] = call
                    pool.open[context.wait_for_external_event(f"step-finished.{call.step}.1")] = call
            if done >= case.limit and not short:
                yield context.call_activity("checkpoint", done)
                for task, call in pool.open.items():
                    if task.is_completed and isinstance(call, PerformStep):
                        desk.finish(call)
                        waits.pop(call.step, None)
                context.continue_as_new({"board": pack(desk.board), "waits": sorted(waits)})
                return
            winner = yield pool.first()
            what = pool.take(winner)
            if what == "reconcile":
                for step in winner.result:
                    desk.finish(waits.pop(step, PerformStep(step, 1)))
            elif what == "started":
                short -= 1
            elif what is not None:
                desk.finish(what)
                done += 1
                if waits.pop(what.step, None) is None:
                    short -= 1

    def piece(context: Any) -> Any:
        first = context.get_input()
        only = range(first, min(first + case.limit, case.count))
        desk, pool = Desk(case.board(only)), Pool(context)
        while not desk.is_over:
            for call in desk.start():
                pool.open[context.call_activity("nap", first + call.step)] = call
            winner = yield pool.first()
            if (call := pool.take(winner)) is not None:
                desk.finish(call)

    def parts(context: Any) -> Any:
        pieces = range(0, case.count, case.limit)
        needs = {
            first: {
                need // case.limit * case.limit
                for index in range(first, min(first + case.limit, case.count))
                for need in case.needs[index]
            }
            - {first}
            for first in pieces
        }
        pool, done, begun = Pool(context), set(), set()
        while len(done) < len(pieces):
            for first in pieces:
                if first not in begun and needs[first] <= done:
                    begun.add(first)
                    pool.open[context.call_sub_orchestrator("piece", first, f"run.{first}")] = first
            winner = yield pool.first()
            if (first := pool.take(winner)) is not None:
                done.add(first)

    return {body.__name__: body for body in (naive, none, wave, drain, hybrid, parts, piece)}


@dataclass
class App:
    """The designs as functions of the embedded host; activities nap."""

    case: Case
    sleep_s: Callable[[float], Any]
    engine: DurableEngine | None = None
    finished: set[int] = field(default_factory=set)
    starts: int = 0
    replays: int = 0
    history_bytes: int = 0
    history_events: int = 0
    generations: int = 1
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.wrappers = {name: self._measured(Orchestrator.create(body)) for name, body in designs(self.case).items()}

    def _measured(self, wrapper: Callable[[str], str]) -> Callable[[str], str]:
        def run(request: str) -> str:
            self.replays += 1
            self.history_bytes = max(self.history_bytes, len(request))
            self.history_events = max(self.history_events, request.count('"EventType"'))
            return wrapper(request)

        run.orchestrator_function = wrapper.orchestrator_function  # type: ignore[attr-defined]
        return run

    def has_orchestrator(self, name: str) -> bool:
        return name in self.wrappers

    def has_activity(self, name: str) -> bool:
        return name in ("nap", "start_steps", "reconcile", "checkpoint")

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
            case "nap":
                await self._nap(value)
            case "start_steps":
                for step in value:
                    task = asyncio.get_running_loop().create_task(self._apart(step, instance_id))
                    self.background.add(task)
                    task.add_done_callback(self.background.discard)
            case "reconcile":
                return json.dumps([step for step in value if step in self.finished])
            case _:
                self.generations += 1
        return None

    async def _nap(self, step: int) -> None:
        await self.sleep_s(self.case.durations_s[step])
        self.finished.add(step)

    async def _apart(self, step: int, instance_id: str) -> None:
        """A step outside durable history: its outcome is stored before its event is raised."""
        await self._nap(step)
        assert self.engine is not None
        await self.engine.raise_event(instance_id, f"step-finished.{step}.1", json.dumps("null"))


async def measure(case: Case, design: str, *, virtual: bool, warm: bool) -> dict[str, Any]:
    clock: Any = VirtualClock(START_AT) if virtual else RealClock()
    app = App(case, clock.sleep_s if virtual else asyncio.sleep)
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage(Path(folder) / "hub.db", synchronous="FULL")
        options = EngineOptions(warm=warm, max_concurrent_activities=10_000)
        app.engine = engine = DurableEngine(app, storage, clock, options)
        await engine.start()
        begun_at, cpu_s, wall_s = clock.now(), time.process_time(), time.perf_counter()
        await engine.start_new(design, "run", None)
        if virtual:
            await fly(engine, clock, app)
        snapshot = await finished(engine)
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        makespan_s = (clock.now() - begun_at).total_seconds()
        await engine.stop()
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
        "history_events_max": app.history_events if not warm else None,
        "history_kib_max": round(app.history_bytes / 1024, 1) if not warm else None,
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


async def finished(engine: DurableEngine) -> Any:
    while True:
        snapshot = await engine.status("run")
        assert snapshot is not None
        if snapshot.instance.is_terminal:
            return snapshot
        await asyncio.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds dags/wf")
    parser.add_argument("--graph", default="epigenomics-chameleon-hep-7seq-50k-001")
    parser.add_argument("--designs", default=",".join(DESIGNS))
    parser.add_argument("--clock", choices=("virtual", "real"), default="virtual")
    parser.add_argument("--mode", choices=("warm", "cold"), default="cold")
    parser.add_argument("--path-s", type=float, default=10.0, help="length of the critical path in seconds")
    parser.add_argument("--limit", type=int, default=100, help="completions per generation, steps per part")
    parser.add_argument("--cap", type=int, default=64, help="calls open at once, at most 64")
    options = parser.parse_args()
    path = options.data / "dags" / "wf" / f"{options.graph}.json"
    if not path.is_file():
        print(f"skipped: {path} is absent", file=sys.stderr)
        return 0
    case = load_case(path, options.path_s, options.limit, options.cap)
    for design in options.designs.split(","):
        figures = asyncio.run(
            measure(replace(case), design, virtual=options.clock == "virtual", warm=options.mode == "warm")
        )
        print(json.dumps(figures), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
