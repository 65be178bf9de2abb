"""The brain of one part of a map: up to a hundred items of one step, each an independent call with the step's retries.

A part is a board without edges, so attempts, backoff, waits and caps are the run's own. It deliberately neither counts nor
collects items: that happens in activities before the first part and after the last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from engine.domain.outcomes import Cancelled, Denied, Failed, StepOutcome, Succeeded
from engine.domain.skeleton import OnFailure, Skeleton, SkeletonStep
from engine.domain.status import StepStatus
from engine.scheduler import steps
from engine.scheduler.backoff import RetryPolicy
from engine.scheduler.board import Board, Draft, new_board
from engine.scheduler.commands import (
    Announced,
    AwaitResume,
    CancelRequested,
    Command,
    Event,
    Issued,
    LeaseAnswered,
    Listen,
    PerformStep,
    Resumed,
    RunAnswered,
    StepAnswered,
    Tick,
    WakeAt,
)
from engine.scheduler.graph import compile_graph
from engine.scheduler.run_state import MAX_TIMER, RunRef
from engine.scheduler.steps import CANCELLED_CODE, DEADLINE_CODE


@dataclass(frozen=True, slots=True)
class PartRef:
    """Which items of which step, and by which rules: ``retry`` and ``on_failure`` are those of the step."""

    run: RunRef
    step_id: str
    first: int
    count: int
    concurrency: int
    retry: RetryPolicy
    on_failure: OnFailure


@dataclass(frozen=True, slots=True)
class PartState:
    """Everything the brain remembers of one part. Step ``i`` of ``board`` is item ``ref.first + i``."""

    ref: PartRef
    board: Board
    armed_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """True when every item is final."""
        return self.board.unfinished == 0

    @property
    def outcome(self) -> StepOutcome:
        """What the part means for its step, once it is over: a denial weighs most, then a failure."""
        records = tuple(self.board.records())
        for status in (StepStatus.DENIED, StepStatus.FAILED, StepStatus.CANCELLED):
            code = next((record.code for record in records if record.status is status), None)
            if code is not None and status is StepStatus.DENIED:
                return Denied(code=code)
            if code is not None:
                return Failed(code=code) if status is StepStatus.FAILED else Cancelled(code=code)
        return Succeeded(item_count=len(records))


def new_part(ref: PartRef) -> PartState:
    """A part none of whose items has started. Raises ``ValueError`` when a cap or count is below one."""
    if ref.count < 1:
        raise ValueError("a part of a map has at least one item")
    items = tuple(
        SkeletonStep(
            id=f"{ref.step_id}/{item}",
            on_failure=ref.on_failure,
            max_attempts=ref.retry.max_attempts,
            backoff_s=ref.retry.backoff_s,
            factor=ref.retry.factor,
            max_backoff_s=ref.retry.max_backoff_s,
        )
        for item in range(ref.first, ref.first + ref.count)
    )
    graph = compile_graph(Skeleton(steps=items, max_parallel=ref.concurrency, plan_hash=""))
    return PartState(ref=ref, board=new_board(graph))


def decide_part(state: PartState, now: datetime) -> tuple[Command, ...]:
    """What to schedule now: items, and the wake-up for the earliest of them or the deadline."""
    commands: list[Command] = []
    if now < state.ref.run.deadline_at:
        commands.extend(
            replace(call, item=state.ref.first + call.step) if isinstance(call, PerformStep) else call
            for call in steps.starts(state.board)
        )
        commands.extend(steps.listens(state.board))
        if state.board.pause.must_listen:
            commands.append(AwaitResume(state.board.pause.number))
    due_ats = [at for at in (state.board.next_due_at, state.ref.run.deadline_at) if at is not None]
    wake_at = min(*due_ats, now + MAX_TIMER)
    if not state.is_over and (state.armed_at is None or wake_at < state.armed_at):
        commands.append(WakeAt(wake_at))
    return tuple(commands)


def evolve_part(state: PartState, event: Event) -> PartState:
    """Take in one event. A stale or repeated one gives the same state back; calls of a run do not concern a part."""
    draft = Draft(state.board)
    armed_at = state.armed_at
    match event:
        case Issued():
            armed_at = _issued(draft, event, armed_at)
        case StepAnswered():
            _answered(draft, event, state.ref.run)
        case CancelRequested():
            draft.stop(CANCELLED_CODE)
        case Announced():
            draft.announce(event.event)
        case Resumed():
            draft.pause = draft.pause.ended(event.number)
        case Tick():
            armed_at = None if armed_at is not None and armed_at <= event.at else armed_at
            if state.ref.run.deadline_at <= event.at:
                draft.give_up(DEADLINE_CODE)
            draft.wake(event.at)
        case RunAnswered() | LeaseAnswered():
            return state
        case _:
            assert_never(event)
    return replace(state, board=draft.frozen(), armed_at=armed_at)


def _issued(draft: Draft, event: Issued, armed_at: datetime | None) -> datetime | None:
    for command in event.commands:
        if isinstance(command, WakeAt):
            armed_at = command.at
        elif isinstance(command, PerformStep):
            steps.issue(draft, command)
        elif isinstance(command, Listen):
            draft.listen(command.event)
        elif isinstance(command, AwaitResume):
            draft.pause = draft.pause.listened(command.number)
    return armed_at


def _answered(draft: Draft, event: StepAnswered, run: RunRef) -> None:
    if not steps.is_open(draft, event.call):
        return
    steps.answer(draft, event.call, event.outcome, event.at, steps.Frame(run.run_id, run.deadline_at))
    if draft.record(event.call.step).status in (StepStatus.FAILED, StepStatus.DENIED):
        # One bad item decides the step; what has begun may finish, so that nothing finished is lost.
        draft.stop("map.item_failed")
