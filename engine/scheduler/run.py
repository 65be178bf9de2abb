"""The brain of one run: `decide` says what to do next, `evolve` takes in what happened. Pure, total, without a clock.

Plan, run steps as soon as their needs are met, compose, record. It deliberately knows nothing of durable tasks, stores or
agents; the orchestrator turns commands into calls and answers into events.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from engine.domain.names import approval_event
from engine.domain.status import RunStatus
from engine.scheduler import steps
from engine.scheduler.backoff import RetryPolicy, delay_s
from engine.scheduler.board import Draft, new_board
from engine.scheduler.commands import (
    AcquireLease,
    Announced,
    AwaitResume,
    Broken,
    CancelRequested,
    Command,
    ComposeAnswer,
    Done,
    Event,
    FinishRun,
    Held,
    Issued,
    LeaseAnswered,
    Listen,
    More,
    Paused,
    Planned,
    PlanRun,
    Refused,
    RenewLease,
    RepairPlan,
    Resumed,
    RunAnswered,
    RunCall,
    RunOutcome,
    StepAnswered,
    Tick,
    UndoStep,
    WakeAt,
)
from engine.scheduler.ending import (
    cancel_requested,
    composing_over,
    finish,
    give_up,
    settled,
    undoing_over,
    with_cancel,
)
from engine.scheduler.pausing import Pause, watchdog
from engine.scheduler.repairing import may_repair, repair_over, with_repair
from engine.scheduler.run_state import CALL_RETRIES, MAX_TIMER, RECORDING_RETRIES, UNDO_RETRIES, RunState
from engine.scheduler.steps import CANCELLED_CODE
from engine.scheduler.transitions import RUN_TABLE, RunPhase, RunTrigger


def decide(state: RunState, now: datetime) -> tuple[Command, ...]:
    """What to schedule now, in the order in which it should be listed. Empty when there is only waiting to do."""
    commands: list[Command] = []
    if state.give_up_at is None or now < state.give_up_at:
        if state.phase is RunPhase.RUNNING and state.board is not None:
            commands.extend(steps.starts(state.board))
            commands.extend(steps.listens(state.board))
        if (call := _due_call(state)) is not None:
            commands.append(call)
        elif state.held_by is not None and state.held_by != state.listening_to:
            commands.append(Listen(state.held_by))
        if (pause := _pause(state)).must_listen:
            commands.append(AwaitResume(pause.number))
    return (*commands, *wake_up(state, now))


def wake_up(state: RunState, now: datetime) -> tuple[WakeAt, ...]:
    """The wake-up to ask for now, if another is needed than the one that is armed."""
    due_at = _next_due_at(state)
    if due_at is None:
        return ()
    wake_at = min(due_at, now + MAX_TIMER)
    return (WakeAt(wake_at),) if state.armed_at is None or wake_at < state.armed_at else ()


def evolve(state: RunState, event: Event) -> RunState:
    """Take in one event. A stale or repeated one gives the same state back."""
    match event:
        case Issued():
            return _issued(state, event)
        case StepAnswered():
            return _step_answered(state, event)
        case RunAnswered():
            return _run_answered(state, event)
        case CancelRequested():
            return cancel_requested(state, event.at)
        case Announced():
            return _announced(state, event)
        case Resumed():
            return _resumed(state, event)
        case Tick():
            return _ticked(state, event.at)
        case LeaseAnswered():
            return state
        case _:
            assert_never(event)


def refuse(state: RunState, status: RunStatus, code: str) -> RunState:
    """End a run that has not begun; what remains is to record it."""
    return finish(state, status, code)


def _own_call(state: RunState) -> RunCall | None:
    """The call of the run itself that the current phase is about."""
    match state.phase:
        case RunPhase.PLANNING:
            return PlanRun(state.attempt, state.look)
        case RunPhase.COMPOSING:
            return ComposeAnswer(state.attempt, state.look)
        case RunPhase.UNDOING if state.undoing:
            return UndoStep(state.undoing[0], state.attempt, state.look)
        case RunPhase.FINISHING if state.ending is not None:
            return FinishRun(state.attempt, *state.ending)
        case RunPhase.RUNNING if state.repairing is not None:
            return RepairPlan(state.repairs, state.repairing, state.attempt, state.look)
        case RunPhase.FINISHING | RunPhase.UNDOING | RunPhase.RUNNING | RunPhase.OVER:
            return None
        case _:
            assert_never(state.phase)


def _due_call(state: RunState) -> RunCall | None:
    """The call of the run itself that may be issued now."""
    held = state.call_open or state.retry_at is not None or _pause(state).holds
    return None if held else _own_call(state)


def _pause(state: RunState) -> Pause:
    """What may hold the run now: that of the board while steps run, its own otherwise."""
    return state.board.pause if state.board is not None and state.phase is RunPhase.RUNNING else state.pause


def _with_pause(state: RunState, pause: Pause) -> RunState:
    if state.board is not None and state.phase is RunPhase.RUNNING:
        return replace(state, board=replace(state.board, pause=pause))
    return replace(state, pause=pause)


def _next_due_at(state: RunState) -> datetime | None:
    sleepers_due_at = state.board.next_due_at if state.board and state.phase is RunPhase.RUNNING else None
    due_ats = (state.give_up_at, state.retry_at, sleepers_due_at, state.pause.look_at)
    return min((at for at in due_ats if at is not None), default=None)


def _issued(state: RunState, event: Issued) -> RunState:
    draft = Draft(state.board) if state.board is not None else None
    for command in event.commands:
        match command:
            case WakeAt():
                state = replace(state, armed_at=command.at)
            case PlanRun() | RepairPlan() | ComposeAnswer() | UndoStep() | FinishRun():
                if command == _due_call(state):
                    state = replace(state, call_open=True)
            case Listen():
                if command.event == state.held_by:
                    state = replace(state, listening_to=command.event)
                if draft is not None:
                    draft.listen(command.event)
            case AwaitResume():
                state = replace(state, pause=state.pause.listened(command.number))
                if draft is not None:
                    draft.pause = draft.pause.listened(command.number)
            case AcquireLease() | RenewLease():
                pass
            case _:
                if draft is not None and state.phase is RunPhase.RUNNING:
                    steps.issue(draft, command)
    return replace(state, board=draft.frozen()) if draft is not None else state


def _step_answered(state: RunState, event: StepAnswered) -> RunState:
    board, give_up_at = state.board, state.give_up_at
    if state.phase is not RunPhase.RUNNING or board is None or give_up_at is None:
        return state
    if not steps.is_open(board, event.call):
        return state
    draft = Draft(board)
    frame = steps.Frame(state.ref.run_id, give_up_at, may_repair=may_repair(state, board))
    steps.answer(draft, event.call, event.outcome, event.at, frame)
    if draft.stopped is not None and not state.cancelled:
        state = with_cancel(state, event.at)
    return settled(with_repair(replace(state, board=draft.frozen())), event.at)


def _run_answered(state: RunState, event: RunAnswered) -> RunState:
    if not state.call_open or event.call != _own_call(state):
        return state
    outcome = event.outcome
    if isinstance(outcome, Held) and isinstance(event.call, PlanRun | RepairPlan) and not state.cancelled:
        return _held(state, outcome, event.at)
    if isinstance(outcome, Paused) and not state.cancelled and state.look < steps.MAX_LOOKS:
        # Whatever the plan waits for is asked anew: its answer is in the store.
        state = replace(state, call_open=False, retry_at=None, held_by=None, announced=False, look=state.look + 1)
        return _with_pause(state, _pause(state).told(outcome.number, event.at))
    state = replace(state, call_open=False, held_by=None, listening_to=None, announced=False)
    closing = state.phase in (RunPhase.UNDOING, RunPhase.FINISHING)
    if isinstance(outcome, Broken) and outcome.retryable and (closing or not state.cancelled):
        retries = _retries(state)
        delay = timedelta(seconds=delay_s(retries, f"{state.ref.run_id}/{state.phase}", state.attempt))
        in_time = state.give_up_at is None or event.at + delay < state.give_up_at
        if state.attempt < retries.max_attempts and in_time:
            return replace(state, retry_at=event.at + delay)
    match state.phase:
        case RunPhase.PLANNING:
            return _planning_over(state, outcome, event.at)
        case RunPhase.COMPOSING:
            return composing_over(state, outcome)
        case RunPhase.UNDOING:
            return undoing_over(state, outcome)
        case RunPhase.FINISHING:
            recorded = isinstance(outcome, Done)
            return replace(state, phase=RUN_TABLE[state.phase, RunTrigger.RECORDED], recorded=recorded)
        case RunPhase.RUNNING:
            return repair_over(state, outcome, event.at)
        case RunPhase.OVER:
            return state
        case _:
            assert_never(state.phase)


def _retries(state: RunState) -> RetryPolicy:
    """How the run's own call is repeated that is open now."""
    if state.phase is RunPhase.UNDOING:
        return UNDO_RETRIES
    is_late = state.phase is RunPhase.FINISHING and state.attempt >= CALL_RETRIES.max_attempts
    return RECORDING_RETRIES if is_late else CALL_RETRIES


def _held(state: RunState, outcome: Held, at: datetime) -> RunState:
    """The plan waits for a person: look again when there is an answer, when its time is over, or when the watchdog rings."""
    expires_at = steps.agreed_instant(outcome.expires_at, outcome.left_s, at)
    if expires_at is None or state.look >= steps.MAX_LOOKS:
        if state.phase is RunPhase.RUNNING:
            return repair_over(replace(state, call_open=False), Broken("plan.malformed_outcome", False), at)
        return finish(state, RunStatus.FAILED, "plan.malformed_outcome")
    look_at = max(min(expires_at, at + watchdog(state.look + 1)), at + steps.MIN_WAIT)
    answer = approval_event(outcome.approval_id)
    held = replace(state, call_open=False, held_by=answer, retry_at=look_at, announced=False)
    if state.announced and state.held_by == answer:
        return replace(held, retry_at=None, look=state.look + 1)
    return held


def _announced(state: RunState, event: Announced) -> RunState:
    if state.held_by == event.event and not state.cancelled:
        if state.retry_at is None:
            return replace(state, announced=state.call_open)
        return replace(state, retry_at=None, look=state.look + 1)
    if state.phase is not RunPhase.RUNNING or state.board is None:
        return state
    draft = Draft(state.board)
    draft.announce(event.event)
    return replace(state, board=draft.frozen())


def _resumed(state: RunState, event: Resumed) -> RunState:
    state = replace(state, pause=state.pause.ended(event.number))
    if state.board is None:
        return state
    return replace(state, board=replace(state.board, pause=state.board.pause.ended(event.number)))


def _planning_over(state: RunState, outcome: RunOutcome, at: datetime) -> RunState:
    if state.cancelled:
        return finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    match outcome:
        case Planned():
            phase = RUN_TABLE[state.phase, RunTrigger.PLANNED]
            board = replace(new_board(outcome.graph), pause=state.pause.lifted())
            state = replace(state, phase=phase, board=board, attempt=1, look=0)
            return settled(state, at)
        case Refused():
            return finish(state, outcome.status, outcome.code)
        case Broken():
            return finish(state, RunStatus.FAILED, outcome.code)
        case Done() | More() | Held() | Paused():
            return finish(state, RunStatus.FAILED, "plan.malformed_outcome")
        case _:
            assert_never(outcome)


def _ticked(state: RunState, at: datetime) -> RunState:
    if state.armed_at is not None and state.armed_at <= at:
        state = replace(state, armed_at=None)
    if state.give_up_at is not None and state.give_up_at <= at:
        return give_up(state, at)
    state = replace(state, pause=state.pause.rung(at))
    if state.retry_at is not None and state.retry_at <= at:
        held = state.held_by is not None
        state = replace(state, retry_at=None, look=state.look + held, attempt=state.attempt + (not held))
    if state.phase is RunPhase.RUNNING and state.board is not None:
        draft = Draft(state.board)
        draft.wake(at)
        state = replace(state, board=draft.frozen())
    return state
