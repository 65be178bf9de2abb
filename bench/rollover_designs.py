"""The designs that `bench.rollover` compares: throw-away orchestrators around the production scheduler's board."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.domain.names import STEP_ORCHESTRATOR
from engine.domain.outcomes import Succeeded
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.scheduler import RunRef, RunState, compile_graph, dumps, loads
from engine.scheduler import steps as brain
from engine.scheduler.board import Board, Draft, new_board
from engine.scheduler.commands import PerformStep
from engine.scheduler.transitions import RunPhase
from orchestrators.run_orchestrator import run_orchestrator
from orchestrators.step_orchestrator import step_orchestrator

START_AT = datetime(2026, 1, 1, tzinfo=UTC)
FAR_AT = START_AT + timedelta(days=3650)
REF = RunRef("bench", "run", FAR_AT)
DESIGNS = ("naive", "one", "built", "none", "wave", "drain", "parts", "hybrid")


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
        return new_board(compile_graph(self.skeleton(only if only is not None else range(self.count))))

    def skeleton(self, chosen: range) -> Skeleton:
        steps = tuple(
            SkeletonStep(
                f"s{index}",
                needs=tuple(need - chosen.start for need in self.needs[index] if need in chosen),
                expected_s=self.durations_s[index],
            )
            for index in chosen
        )
        return Skeleton(steps, self.cap, "")


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


class Generation:
    """One history of the hybrid: activities and, for steps that run apart, waits for the event of their end."""

    def __init__(self, context: Any, desk: Desk) -> None:
        self.context, self.desk, self.pool, self.done = context, desk, Pool(context), 0

    def wait_for(self, calls: list[PerformStep]) -> None:
        for call in calls:
            self.pool.open[self.context.wait_for_external_event(f"step-finished.{call.step}.1")] = ("wait", call)

    @property
    def is_free(self) -> bool:
        """True when nothing is open whose result a roll-over would lose."""
        return all(kind == "wait" for kind, _ in self.pool.open.values())

    @property
    def waiting(self) -> list[int]:
        """Steps that run apart and have not ended."""
        calls = [call for kind, call in self.pool.open.values() if kind == "wait"]
        return sorted(call.step for call in calls if brain.is_open(self.desk.board, call))

    def take(self, winner: Any) -> None:
        kind, call = self.pool.take(winner) or (None, None)
        if kind == "reconcile":
            for step in winner.result:
                self.desk.finish(PerformStep(step, 1))
        elif call is not None:
            self.desk.finish(call)
            self.done += 1

    def fold_in(self) -> None:
        """Events that came during the checkpoint were consumed by this generation's waits; the next one would miss them."""
        for task in [task for task in self.pool.open if task.is_completed]:
            self.take(task)


def pack(board: Board) -> str:
    return dumps(RunState(REF, RunPhase.RUNNING, FAR_AT, board=board))


@lru_cache(maxsize=8)
def unpack(text: str) -> Board:
    """Remembered by text: without it every replay decodes the whole state again."""
    board = loads(text).board
    assert board is not None
    return board


class Designs:
    """The designs as orchestrators over one case."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def by_name(self) -> dict[str, Callable[[Any], Any]]:
        """The orchestrator of each design, and that of the pieces of ``parts``."""
        bodies = (self.naive, self.built, self.none, self.wave, self.drain, self.hybrid, self.parts, self.piece)
        return {body.__name__: body for body in bodies} | {"one": self.built, STEP_ORCHESTRATOR: step_orchestrator}

    def _pooled(self, context: Any, *, nudged: bool) -> Any:
        desk, pool = Desk(self.case.board()), Pool(context, nudged=nudged)
        while not desk.is_over:
            for call in desk.start():
                pool.open[context.call_activity("nap", call.step)] = call
            winner = yield pool.first()
            if (call := pool.take(winner)) is not None:
                desk.finish(call)

    def naive(self, context: Any) -> Any:
        return (yield from self._pooled(context, nudged=False))

    def none(self, context: Any) -> Any:
        return (yield from self._pooled(context, nudged=True))

    def wave(self, context: Any) -> Any:
        desk = Desk(self.case.board())
        while not desk.is_over:
            calls = desk.start()
            yield context.task_all([context.call_activity("nap", call.step) for call in calls])
            for call in calls:
                desk.finish(call)

    def drain(self, context: Any) -> Any:
        desk = Desk(unpack(context.get_input()) if context.get_input() else self.case.board())
        pool, done = Pool(context), 0
        while not desk.is_over:
            for call in desk.start() if done < self.case.limit else ():
                pool.open[context.call_activity("nap", call.step)] = call
            if not pool.open:
                yield context.call_activity("checkpoint", done)
                context.continue_as_new(pack(desk.board))
                return
            winner = yield pool.first()
            if (call := pool.take(winner)) is not None:
                desk.finish(call)
                done += 1

    def hybrid(self, context: Any) -> Any:
        given = context.get_input()
        now = Generation(context, Desk(unpack(given["board"]) if given else self.case.board()))
        if given and given["waits"]:
            now.wait_for([PerformStep(step, 1) for step in given["waits"]])
            now.pool.open[context.call_activity("reconcile", given["waits"])] = ("reconcile", None)
        while not now.desk.is_over:
            calls = now.desk.start()
            apart = [call for call in calls if now.done >= self.case.limit or self.case.is_long(call.step)]
            for call in calls:
                if call not in apart:
                    now.pool.open[context.call_activity("nap", call.step)] = ("nap", call)
            if apart:
                now.wait_for(apart)
                now.pool.open[context.call_activity("start_apart", [call.step for call in apart])] = ("started", None)
            if now.done >= self.case.limit and now.is_free:
                yield context.call_activity("checkpoint", now.done)
                now.fold_in()
                context.continue_as_new({"board": pack(now.desk.board), "waits": now.waiting})
                return
            winner = yield now.pool.first()
            now.take(winner)

    def piece(self, context: Any) -> Any:
        first = context.get_input()
        only = range(first, min(first + self.case.limit, self.case.count))
        desk, pool = Desk(self.case.board(only)), Pool(context)
        while not desk.is_over:
            for call in desk.start():
                pool.open[context.call_activity("nap", first + call.step)] = call
            winner = yield pool.first()
            if (call := pool.take(winner)) is not None:
                desk.finish(call)

    def parts(self, context: Any) -> Any:
        pieces = range(0, self.case.count, self.case.limit)
        needs = {
            first: {
                need // self.case.limit * self.case.limit
                for index in range(first, min(first + self.case.limit, self.case.count))
                for need in self.case.needs[index]
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

    def built(self, context: Any) -> Any:
        return (yield from run_orchestrator(context))
