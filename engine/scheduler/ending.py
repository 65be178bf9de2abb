"""How a run comes to its end: every step final, cancelled, out of time, composed, its effects undone."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from engine.domain.status import RunStatus, StepStatus
from engine.scheduler.board import Board, Draft
from engine.scheduler.commands import Broken, Done, Held, More, Paused, Planned, Refused, RunOutcome
from engine.scheduler.run_state import (
    CANCEL_GRACE,
    CLOSING_GRACE,
    COMES_TO_NOTHING,
    MAX_UNDO_LOOKS,
    RunState,
    without_repair,
)
from engine.scheduler.steps import CANCELLED_CODE, DEADLINE_CODE
from engine.scheduler.transitions import RUN_TABLE, RunPhase, RunTrigger


def settled(state: RunState, at: datetime) -> RunState:
    """Move on when every step is final."""
    board = state.board
    if board is None or board.unfinished or state.phase is not RunPhase.RUNNING or state.call_open:
        return state
    if state.cancelled:
        return finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    loss = worst_loss(board)
    if loss is None or any(record.status is StepStatus.SUCCEEDED for record in board.records()):
        give_up_at = max(state.ref.deadline_at, at + CLOSING_GRACE)
        phase = RUN_TABLE[state.phase, RunTrigger.SETTLED]
        return replace(state, phase=phase, give_up_at=give_up_at, pause=board.pause.lifted())
    status, code = loss
    if state.overdue:
        return finish(state, RunStatus.FAILED, DEADLINE_CODE)
    return finish(state, RunStatus.DENIED if status is StepStatus.DENIED else RunStatus.FAILED, code)


def worst_loss(board: Board) -> tuple[StepStatus, str | None] | None:
    """The first step that keeps the run from having succeeded, failures before denials; None when there is none.

    An optional step may fail or be denied, and so may one in whose place a repair put others. No step, optional or not, may
    have been cut off.
    """
    losses = [
        (record.status, record.code)
        for spec, record in zip(board.graph.steps, board.records(), strict=True)
        if record.status is StepStatus.CANCELLED
        or (not spec.optional and not spec.retired and record.status in (StepStatus.FAILED, StepStatus.DENIED))
    ]
    return min(losses, key=lambda loss: loss[0] is StepStatus.DENIED, default=None)


def composing_over(state: RunState, outcome: RunOutcome) -> RunState:
    """There is an answer, or there will be none."""
    if state.cancelled or state.board is None:
        return finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    match outcome:
        case Done():
            loss = worst_loss(state.board)
            return finish(state, *((RunStatus.PARTIAL, loss[1]) if loss else (RunStatus.SUCCEEDED, None)))
        case Broken():
            return finish(state, RunStatus.FAILED, outcome.code)
        case Planned() | More() | Held() | Refused() | Paused():
            return finish(state, RunStatus.FAILED, "answer.malformed_outcome")
        case _:
            assert_never(outcome)


def undoing_over(state: RunState, outcome: RunOutcome) -> RunState:
    """Go on with the next step, or with more of this one. What cannot be undone is told, and keeps nothing from being undone."""
    match outcome:
        case More() if state.look < MAX_UNDO_LOOKS:
            return replace(state, attempt=1, look=state.look + 1)
        case Done():
            failed = state.not_undone
        case Broken():
            failed = (*state.not_undone, (state.undoing[0], outcome.code))
        case Planned() | More() | Held() | Refused() | Paused():
            failed = (*state.not_undone, (state.undoing[0], "undo.malformed_outcome"))
        case _:
            assert_never(outcome)
    rest = state.undoing[1:]
    phase = state.phase if rest else RUN_TABLE[state.phase, RunTrigger.UNDONE]
    return replace(state, phase=phase, undoing=rest, not_undone=failed, attempt=1, look=0)


def finish(state: RunState, status: RunStatus, code: str | None) -> RunState:
    """The end is known; what remains is to record it, after undoing what was done when the run comes to nothing."""
    undoing = state.board.begun[::-1] if state.board is not None and status in COMES_TO_NOTHING else ()
    phase = RUN_TABLE[state.phase, RunTrigger.LOST if undoing else RunTrigger.DECIDED]
    return replace(
        state,
        phase=phase,
        undoing=undoing,
        ending=(status, code),
        attempt=1,
        look=0,
        held_by=None,
        listening_to=None,
        announced=False,
        call_open=False,
        retry_at=None,
        give_up_at=None,
        pause=state.pause.lifted(),
    )


def cancel_requested(state: RunState, at: datetime) -> RunState:
    """Start nothing any more; what is open gets its grace, and a run that is not busy ends at once."""
    if state.cancelled or state.give_up_at is None:
        return state
    state = with_cancel(state, at)
    if state.phase is not RunPhase.RUNNING or state.board is None:
        return state if state.call_open else finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    draft = Draft(state.board)
    draft.stop(CANCELLED_CODE)
    return settled(replace(state, board=draft.frozen()), at)


def with_cancel(state: RunState, at: datetime) -> RunState:
    """Note the cancel, and when the patience with open calls ends."""
    give_up_at = min(state.give_up_at or at, at + CANCEL_GRACE)
    if not state.call_open:
        state = without_repair(state)
    return replace(state, cancelled=True, retry_at=None, give_up_at=give_up_at)


def give_up(state: RunState, at: datetime) -> RunState:
    """Time is up: write off what is open. The answers of those calls will be stale."""
    if state.phase is RunPhase.RUNNING and state.board is not None:
        draft = Draft(state.board)
        draft.give_up(CANCELLED_CODE if state.cancelled else DEADLINE_CODE)
        state = without_repair(state)
        return settled(replace(state, board=draft.frozen(), overdue=not state.cancelled), at)
    if state.cancelled:
        return finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    return finish(state, RunStatus.FAILED, DEADLINE_CODE)
