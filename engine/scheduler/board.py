"""Where every step stands, and which could start now: immutable boards, changed through short-lived drafts.

A completion costs O(its edges): records live in chunks of which only the touched ones are copied, and the ready set is one
integer with a bit per rank, so its lowest bit is the step that matters most. What outcomes mean is decided in `steps`.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

from engine.domain.skeleton import SkeletonStep
from engine.domain.status import StepStatus
from engine.scheduler.graph import Graph
from engine.scheduler.pausing import NO_PAUSE, Pause
from engine.scheduler.transitions import STEP_TABLE, StepTrigger

CHUNK = 64


class Stage(StrEnum):
    """Which kind of call a step is at; only maps pass through more than one."""

    PERFORM = "perform"
    EXPAND = "expand"
    PARTS = "parts"
    COLLECT = "collect"


@dataclass(frozen=True, slots=True)
class MapProgress:
    """How far a map is. ``open_parts`` holds (first item, granted concurrency) of running parts; ``verdict`` is set once a
    part ended badly: no further part starts, and the step ends so when the open ones are back."""

    item_count: int
    next_item: int = 0
    open_parts: tuple[tuple[int, int], ...] = ()
    verdict: tuple[StepTrigger, str] | None = None


class Awaited(NamedTuple):
    """What a step waits for: an external event, which a person's answer or (``at_work``) a worker's result raises. ``listening``:
    it will be announced; ``announced``: it was, while the step had a look open that may have come too early to see it.

    A step that is at work keeps its place among those that run side by side until it ends, however often it is looked at."""

    event: str
    step: int
    listening: bool = False
    announced: bool = False
    at_work: bool = False


class StepState(NamedTuple):
    """One step; a named tuple, because it is copied several times per completion.

    ``attempt`` (from 1) and ``look`` name the call that is open or comes next; ``unmet`` counts needs that are not final.
    """

    status: StepStatus = StepStatus.PENDING
    attempt: int = 1
    look: int = 0
    stage: Stage = Stage.PERFORM
    unmet: int = 0
    code: str | None = None
    progress: MapProgress | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """All steps of one graph at one moment.

    ``ready`` has bit ``rank`` set for each step whose next call may be issued; ``used`` is the capacity taken by open calls
    and by steps at work; ``sleepers`` are (due time, step) of waiting steps, earliest first; ``awaited`` is what steps wait
    for, oldest first; ``unfinished`` counts steps that are not final; ``stopped`` is the code under which the board stopped
    starting anything; ``begun`` are the steps with an undoing that had begun, in the order in which they ended; ``failing`` are
    (step, code) of those that failed for good and whose plan may be repaired before that counts, oldest first; while ``pause``
    holds nothing starts either, but everything keeps its place. ``used_of[c]`` is the part of ``used`` that counts towards the
    cap ``c``.
    """

    graph: Graph
    chunks: tuple[tuple[StepState, ...], ...]
    ready: int
    used: int
    sleepers: tuple[tuple[datetime, int], ...]
    unfinished: int
    stopped: str | None = None
    awaited: tuple[Awaited, ...] = ()
    begun: tuple[int, ...] = ()
    pause: Pause = NO_PAUSE
    used_of: tuple[int, ...] = ()
    failing: tuple[tuple[int, str], ...] = ()

    def record(self, step: int) -> StepState:
        """The state of one step."""
        return self.chunks[step // CHUNK][step % CHUNK]

    def records(self) -> Iterator[StepState]:
        """All states in plan order."""
        return chain.from_iterable(self.chunks)

    def is_ready(self, step: int) -> bool:
        """True when the step's next call may be issued."""
        return bool(self.ready >> self.graph.rank_of[step] & 1)

    @property
    def capacity_left(self) -> int:
        """How much more may be open at once."""
        return self.graph.capacity - self.used

    @property
    def is_quiet(self) -> bool:
        """True when no step can move before somebody answers."""
        return not self.used and not self.ready and len(self.sleepers) == len(self.awaited)

    @property
    def waits_for_people(self) -> bool:
        """True when nothing can move before somebody answers."""
        return bool(self.awaited) and not self.failing and self.is_quiet

    def at_work(self) -> tuple[int, ...]:
        """The steps that keep their place while a worker has them."""
        return tuple(entry.step for entry in self.awaited if entry.at_work)

    @property
    def next_due_at(self) -> datetime | None:
        """When the first waiting step is due, or a suspension is to be looked at."""
        due_ats = (self.sleepers[0][0] if self.sleepers else None, self.pause.look_at)
        return min((at for at in due_ats if at is not None), default=None)


def new_board(graph: Graph) -> Board:
    """A board on which nothing has started."""
    records = [
        StepState(unmet=unmet, stage=Stage.EXPAND if step.kind == "map" else Stage.PERFORM)
        for step, unmet in zip(graph.steps, graph.need_counts, strict=True)
    ]
    ready = 0
    for index, record in enumerate(records):
        if record.unmet == 0:
            ready |= 1 << graph.rank_of[index]
    return Board(
        graph=graph,
        chunks=chunked(records),
        ready=ready,
        used=0,
        sleepers=(),
        unfinished=len(records),
        used_of=(0,) * len(graph.skeleton.caps),
    )


def chunked(records: list[StepState]) -> tuple[tuple[StepState, ...], ...]:
    """Cut a list of records into the chunks of a board."""
    return tuple(tuple(records[start : start + CHUNK]) for start in range(0, len(records), CHUNK))


class Draft:
    """A board being changed. Lives within one call of ``evolve``; the board it came from stays as it was."""

    def __init__(self, board: Board) -> None:
        self.graph = board.graph
        self.ready = board.ready
        self.used = board.used
        self.used_of = board.used_of
        self.unfinished = board.unfinished
        self.stopped = board.stopped
        self.awaited = board.awaited
        self.begun = board.begun
        self.pause = board.pause
        self.failing = board.failing
        self._sleepers = board.sleepers
        self._chunks = board.chunks
        self._touched: dict[int, list[StepState]] = {}

    def frozen(self) -> Board:
        """The changed board."""
        chunks = list(self._chunks)
        for place, records in self._touched.items():
            chunks[place] = tuple(records)
        return Board(
            self.graph,
            tuple(chunks),
            self.ready,
            self.used,
            self._sleepers,
            self.unfinished,
            self.stopped,
            self.awaited,
            self.begun,
            self.pause,
            self.used_of,
            self.failing,
        )

    def spec(self, step: int) -> SkeletonStep:
        """The step's entry in the skeleton."""
        return self.graph.steps[step]

    def record(self, step: int) -> StepState:
        """The step's state as changed so far."""
        place = step // CHUNK
        return (self._touched.get(place) or self._chunks[place])[step % CHUNK]

    def put(self, step: int, record: StepState) -> None:
        """Replace a step's state."""
        place = step // CHUNK
        if place not in self._touched:
            self._touched[place] = list(self._chunks[place])
        self._touched[place][step % CHUNK] = record

    def is_ready(self, step: int) -> bool:
        """True when the step's next call may be issued."""
        return bool(self.ready >> self.graph.rank_of[step] & 1)

    def set_ready(self, step: int, ready: bool) -> None:
        """Put the step into the ready set, or take it out."""
        bit = 1 << self.graph.rank_of[step]
        self.ready = self.ready | bit if ready else self.ready & ~bit

    def take(self, step: int, width: int) -> None:
        """Count ``width`` more calls of the step as open; a negative number gives places back."""
        self.used += width
        if cap := self.spec(step).cap:
            used = self.used_of[cap - 1] + width
            self.used_of = (*self.used_of[: cap - 1], used, *self.used_of[cap:])

    def start(self, step: int) -> None:
        """Mark the step's call as issued; its stage and attempt stay."""
        record = self.record(step)
        if record.status is not StepStatus.RUNNING:
            self.put(step, record._replace(status=STEP_TABLE[record.status, StepTrigger.START]))
        self.set_ready(step, False)

    def sleep(self, step: int, due_at: datetime, record: StepState) -> None:
        """Let the step wait until ``due_at`` and then make the call that ``record`` names."""
        self.put(step, record._replace(status=STEP_TABLE[record.status, StepTrigger.WAIT]))
        place = bisect(self._sleepers, (due_at, step))
        self._sleepers = (*self._sleepers[:place], (due_at, step), *self._sleepers[place:])

    def put_back(self, step: int, record: StepState) -> None:
        """Let the step be ready for the call that ``record`` names, as if the last one had not been made."""
        self.put(step, record._replace(status=STEP_TABLE[record.status, StepTrigger.WAIT]))
        self.set_ready(step, True)

    def hold_failed(self, step: int, code: str) -> None:
        """The step has failed, but nothing behind it moves before it is known whether the plan is repaired."""
        self.put(step, self.record(step)._replace(status=STEP_TABLE[self.record(step).status, StepTrigger.WAIT]))
        self.failing = (*self.failing, (step, code))

    def let_fail(self, step: int) -> None:
        """No repair for this step: it has failed, with all that this means."""
        for held, code in self.failing:
            if held == step:
                self.failing = tuple(entry for entry in self.failing if entry[0] != step)
                self.settle(step, StepTrigger.FAIL, code)

    def wake(self, now: datetime) -> None:
        """Make every waiting step that is due ready, and look at a suspension when it is time."""
        self.pause = self.pause.rung(now)
        due = bisect(self._sleepers, now, key=lambda sleeper: sleeper[0])
        for _, step in self._sleepers[:due]:
            self.set_ready(step, True)
        self._sleepers = self._sleepers[due:]

    def is_at_work(self, step: int) -> bool:
        """True when the step has a place of its own, which its calls do not add to."""
        return any(entry.step == step and entry.at_work for entry in self.awaited)

    def await_event(self, step: int, event: str, due_at: datetime, record: StepState, *, at_work: bool) -> None:
        """Let the step wait for an event, but make the call that ``record`` names at ``due_at`` at the latest."""
        self.sleep(step, due_at, record)
        known = next((e for e in self.awaited if (e.event, e.step, e.at_work) == (event, step, at_work)), None)
        if known is None:
            self.forget_awaited(step)
            self.awaited = (*self.awaited, Awaited(event, step, at_work=at_work))
            if at_work:
                self.take(step, 1)
        elif known.announced:
            self._replace(known, known._replace(announced=False))
            self.rouse(step)

    def listen(self, event: str) -> None:
        """Note that this event will be announced."""
        for entry in self.awaited:
            if entry.event == event:
                self._replace(entry, entry._replace(listening=True))

    def announce(self, event: str) -> None:
        """Make the step that waits for this event look now, or once more when a look is open."""
        for entry in self.awaited:
            if entry.event == event:
                self._replace(entry, entry._replace(announced=self.has_open_call(entry.step)))
                self.rouse(entry.step)

    def _replace(self, old: Awaited, new: Awaited) -> None:
        if old != new:
            self.awaited = tuple(new if entry is old else entry for entry in self.awaited)

    def rouse(self, step: int) -> None:
        """Make a waiting step ready before it is due."""
        if self.record(step).status is StepStatus.WAITING:
            self._sleepers = tuple(sleeper for sleeper in self._sleepers if sleeper[1] != step)
            self.set_ready(step, True)

    def forget_awaited(self, step: int) -> None:
        """The step waits for nobody any more, and gives up the place it kept."""
        if self.awaited:
            if self.is_at_work(step):
                self.take(step, -1)
            self.awaited = tuple(entry for entry in self.awaited if entry.step != step)

    def look_when_quiet(self) -> None:
        """When only people can move the board on, let one of those that wait for them look: the store learns it so."""
        if self.failing:
            return
        if self.awaited and not self.used and not self.ready and len(self._sleepers) == len(self.awaited):
            self.rouse(self.awaited[0].step)

    def settle(self, step: int, trigger: StepTrigger, code: str | None = None) -> None:
        """End a step, and skip those behind it that cannot do without it, transitively."""
        ending = [(step, trigger, code)]
        while ending:
            index, trigger, code = ending.pop()
            record = self.record(index)
            if record.status.is_final:  # several of its needs were lost; it was skipped for the first
                continue
            status = STEP_TABLE[record.status, trigger]
            if self.spec(index).undo and record.status is not StepStatus.PENDING:
                # Whatever its end: a failed map has items that succeeded, and a call that was written off may have been made.
                self.begun = (*self.begun, index)
            self.put(index, record._replace(status=status, code=code, progress=None))
            self.set_ready(index, False)
            self.forget_awaited(index)
            self.unfinished -= 1
            for dependant, tolerated in self.graph.dependants[index]:
                if self._need_is_final(dependant, usable=tolerated or status is StepStatus.SUCCEEDED):
                    ending.append((dependant, StepTrigger.SKIP, f"step.needs_{status}"))

    def _need_is_final(self, step: int, *, usable: bool) -> bool:
        """Count one need as final; True when the step must be skipped for it."""
        record = self.record(step)
        self.put(step, record._replace(unmet=record.unmet - 1))
        if record.status is not StepStatus.PENDING or self.stopped is not None:
            return False
        if usable and record.unmet == 1:
            self.set_ready(step, True)
        return not usable

    def stop(self, code: str) -> None:
        """Start nothing any more: whatever has no open call is cancelled, open calls may finish. O(steps), once."""
        if self.stopped is None:
            self.stopped = code
            self._cancel(code, open_too=False)

    def give_up(self, code: str) -> None:
        """Cancel everything that is not final, open calls included; their answers will be stale. O(steps), once."""
        self.stopped = self.stopped or code
        self._cancel(code, open_too=True)
        self.used = 0
        self.used_of = (0,) * len(self.used_of)

    def _cancel(self, code: str, *, open_too: bool) -> None:
        for step, _ in self.failing:
            self.let_fail(step)
        for index in range(len(self.graph.steps)):
            record = self.record(index)
            if record.status.is_final or (not open_too and self.has_open_call(index)):
                continue
            self.settle(index, StepTrigger.CANCEL, code)
        self.ready = 0
        self._sleepers = ()
        self.pause = self.pause.lifted()

    def has_open_call(self, step: int) -> bool:
        """True when a call for this step was issued and has not returned."""
        record = self.record(step)
        if record.status is not StepStatus.RUNNING:
            return False
        if record.progress is not None and record.stage is Stage.PARTS:
            return bool(record.progress.open_parts)
        return not self.is_ready(step)
