"""The brain of one run: `decide` says what to do next, `evolve` takes in what happened. Pure, total, without a clock.

Plan, run steps as soon as their needs are met, compose, record. It deliberately knows nothing of durable tasks, stores or
agents; the orchestrator turns commands into calls and answers into events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from engine.domain.names import REPAIRS_SINCE, approval_event
from engine.domain.skeleton import UNDO_ATTEMPTS
from engine.domain.status import RunStatus, StepStatus
from engine.scheduler import steps
from engine.scheduler.backoff import RetryPolicy, delay_s
from engine.scheduler.board import Board, Draft, new_board
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
from engine.scheduler.pausing import NO_PAUSE, Pause, watchdog
from engine.scheduler.replanning import replanned
from engine.scheduler.steps import CANCELLED_CODE, DEADLINE_CODE
from engine.scheduler.transitions import RUN_TABLE, RunPhase, RunTrigger

CANCEL_GRACE = timedelta(seconds=30)
"""How long calls that are open when a run is cancelled may take to finish before they are written off."""
CLOSING_GRACE = timedelta(seconds=120)
"""How long composing may take beyond the deadline: finished work still deserves its answer."""
MAX_TIMER = timedelta(days=5)
"""Longest durable timer (the Azure Storage backend ends at six days); a longer sleep takes several."""
CALL_RETRIES = RetryPolicy(max_attempts=10, backoff_s=1.0, factor=2.0, max_backoff_s=60.0)
"""How calls of the run itself (plan, compose, finish) are repeated when they may be."""

UNDO_RETRIES = RetryPolicy(max_attempts=UNDO_ATTEMPTS, backoff_s=1.0, factor=3.0, max_backoff_s=60.0)
"""How the undoing of a step is repeated when it may be."""
MAX_UNDO_LOOKS = 1_000
"""How often there may be more of one step to undo: twice what the largest map takes."""
COMES_TO_NOTHING = frozenset({RunStatus.FAILED, RunStatus.DENIED, RunStatus.CANCELLED})
"""Ends after which no effect is meant to stand. A partial run has an answer that tells of what it did, and keeps it."""


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run this is and when it must be over.

    ``version`` is that of the orchestration's input: what an instance schedules may depend on it, never on the code's age.
    """

    tenant_id: str
    run_id: str
    deadline_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything the brain remembers of one run.

    ``attempt``, ``look`` and ``call_open`` belong to the current call of the run itself, which is repeated at ``retry_at``. From
    ``give_up_at`` on nothing of this phase is waited for. ``armed_at`` is when the wake-up asked for last will ring.
    ``held_by`` is the event of the approval that the plan waits for, ``listening_to`` the one that will be announced;
    ``announced`` says that it was while a look was open.
    ``ending`` is the final status and code, once known; ``recorded`` says that a store knows it too. ``undoing`` are the steps
    still to be undone, the next one first; ``not_undone`` those that could not be, with why. ``pause`` is about calls of the run
    itself; steps have that of their board. ``repairs`` counts the repairs of the plan that were begun; ``repairing`` is the
    failed step that the current one is for: while steps run, that is what the run's own call is about.
    """

    ref: RunRef
    phase: RunPhase
    give_up_at: datetime | None
    board: Board | None = None
    attempt: int = 1
    look: int = 0
    held_by: str | None = None
    listening_to: str | None = None
    announced: bool = False
    call_open: bool = False
    retry_at: datetime | None = None
    armed_at: datetime | None = None
    cancelled: bool = False
    overdue: bool = False
    ending: tuple[RunStatus, str | None] | None = None
    recorded: bool = False
    undoing: tuple[int, ...] = ()
    not_undone: tuple[tuple[int, str], ...] = ()
    pause: Pause = NO_PAUSE
    repairs: int = 0
    repairing: int | None = None

    @property
    def is_over(self) -> bool:
        """True when nothing more will happen."""
        return self.phase is RunPhase.OVER

    @property
    def is_held(self) -> bool:
        """True while the run is suspended and has noticed it."""
        return self.pause.holds or (self.board is not None and self.board.pause.holds)

    @property
    def status(self) -> RunStatus:
        """The public status."""
        if self.is_held and not self.cancelled:
            return RunStatus.SUSPENDED
        match self.phase:
            case RunPhase.OVER if self.ending is not None:
                return self.ending[0]
            case RunPhase.PLANNING if not self.cancelled:
                return RunStatus.AWAITING_APPROVAL if self.held_by is not None else RunStatus.PLANNING
            case RunPhase.RUNNING if not self.cancelled and self._waits_for_people:
                return RunStatus.AWAITING_APPROVAL
            case _:
                return RunStatus.CANCELLING if self.cancelled else RunStatus.RUNNING

    @property
    def _waits_for_people(self) -> bool:
        if self.board is None:
            return False
        return self.board.is_quiet if self.held_by is not None else self.board.waits_for_people


def new_run(ref: RunRef) -> RunState:
    """A run that has not begun."""
    return RunState(ref=ref, phase=RunPhase.PLANNING, give_up_at=ref.deadline_at)


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
    if (wake_at := _next_due_at(state)) is not None:
        wake_at = min(wake_at, now + MAX_TIMER)
        if state.armed_at is None or wake_at < state.armed_at:
            commands.append(WakeAt(wake_at))
    return tuple(commands)


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
            return _cancel_requested(state, event.at)
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
    return _finish(state, status, code)


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
    frame = steps.Frame(state.ref.run_id, give_up_at, may_repair=_may_repair(state, board))
    steps.answer(draft, event.call, event.outcome, event.at, frame)
    if draft.stopped is not None and not state.cancelled:
        state = _with_cancel(state, event.at)
    return _settled(_with_repair(replace(state, board=draft.frozen())), event.at)


def _may_repair(state: RunState, board: Board) -> bool:
    return state.ref.version >= REPAIRS_SINCE and state.repairs < board.graph.skeleton.repairs


def _with_repair(state: RunState) -> RunState:
    """Begin the next repair, when none is under way. Without any left, what failed has failed."""
    board = state.board
    if board is None or state.phase is not RunPhase.RUNNING or state.cancelled:
        return state
    if state.repairing is None and board.failing:
        if _may_repair(state, board):
            return replace(state, repairs=state.repairs + 1, repairing=board.failing[0][0], attempt=1, look=0)
        draft = Draft(board)
        for step, _ in board.failing:
            draft.let_fail(step)
        draft.look_when_quiet()
        return replace(state, board=draft.frozen())
    if state.held_by is not None and state.retry_at is not None and board.is_quiet:
        # Only people can move the run on now; the store learns it from a look.
        return replace(state, retry_at=None, look=state.look + 1)
    return state


def _settled(state: RunState, at: datetime) -> RunState:
    """Move on when every step is final."""
    board = state.board
    if board is None or board.unfinished or state.phase is not RunPhase.RUNNING or state.call_open:
        return state
    if state.cancelled:
        return _finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    loss = worst_loss(board)
    if loss is None or any(record.status is StepStatus.SUCCEEDED for record in board.records()):
        give_up_at = max(state.ref.deadline_at, at + CLOSING_GRACE)
        phase = RUN_TABLE[state.phase, RunTrigger.SETTLED]
        return replace(state, phase=phase, give_up_at=give_up_at, pause=board.pause.lifted())
    status, code = loss
    if state.overdue:
        return _finish(state, RunStatus.FAILED, DEADLINE_CODE)
    return _finish(state, RunStatus.DENIED if status is StepStatus.DENIED else RunStatus.FAILED, code)


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
        retries = UNDO_RETRIES if state.phase is RunPhase.UNDOING else CALL_RETRIES
        delay = timedelta(seconds=delay_s(retries, f"{state.ref.run_id}/{state.phase}", state.attempt))
        in_time = state.give_up_at is None or event.at + delay < state.give_up_at
        if state.attempt < retries.max_attempts and in_time:
            return replace(state, retry_at=event.at + delay)
    match state.phase:
        case RunPhase.PLANNING:
            return _planning_over(state, outcome, event.at)
        case RunPhase.COMPOSING:
            return _composing_over(state, outcome)
        case RunPhase.UNDOING:
            return _undoing_over(state, outcome)
        case RunPhase.FINISHING:
            recorded = isinstance(outcome, Done)
            return replace(state, phase=RUN_TABLE[state.phase, RunTrigger.RECORDED], recorded=recorded)
        case RunPhase.RUNNING:
            return _repair_over(state, outcome, event.at)
        case RunPhase.OVER:
            return state
        case _:
            assert_never(state.phase)


def _held(state: RunState, outcome: Held, at: datetime) -> RunState:
    """The plan waits for a person: look again when there is an answer, when its time is over, or when the watchdog rings."""
    expires_at = steps.agreed_instant(outcome.expires_at, outcome.left_s, at)
    if expires_at is None or state.look >= steps.MAX_LOOKS:
        if state.phase is RunPhase.RUNNING:
            return _repair_over(replace(state, call_open=False), Broken("plan.malformed_outcome", False), at)
        return _finish(state, RunStatus.FAILED, "plan.malformed_outcome")
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
        return _finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    match outcome:
        case Planned():
            phase = RUN_TABLE[state.phase, RunTrigger.PLANNED]
            board = replace(new_board(outcome.graph), pause=state.pause.lifted())
            state = replace(state, phase=phase, board=board, attempt=1, look=0)
            return _settled(state, at)
        case Refused():
            return _finish(state, outcome.status, outcome.code)
        case Broken():
            return _finish(state, RunStatus.FAILED, outcome.code)
        case Done() | More() | Held() | Paused():
            return _finish(state, RunStatus.FAILED, "plan.malformed_outcome")
        case _:
            assert_never(outcome)


def _repair_over(state: RunState, outcome: RunOutcome, at: datetime) -> RunState:
    """Go on with the new version of the plan; without one the step has failed, and the run goes on as it can."""
    board, step = state.board, state.repairing
    state = _without_repair(state)
    if board is None or step is None:
        return state
    version = replanned(board, outcome.graph, step) if isinstance(outcome, Planned) and not state.cancelled else None
    draft = Draft(version or board)
    draft.let_fail(step)
    if isinstance(outcome, Refused) and outcome.status is RunStatus.CANCELLED and not state.cancelled:
        # The store knows of a cancel whose event has not arrived, or never will.
        draft.stop(outcome.code)
        state = _with_cancel(state, at)
    draft.look_when_quiet()
    return _settled(_with_repair(replace(state, board=draft.frozen())), at)


def _without_repair(state: RunState) -> RunState:
    """No repair is under way (any more); an answer that still comes is stale."""
    if state.repairing is None:
        return state
    rest = replace(state, repairing=None, attempt=1, look=0, call_open=False, retry_at=None)
    return replace(rest, held_by=None, listening_to=None, announced=False)


def _composing_over(state: RunState, outcome: RunOutcome) -> RunState:
    if state.cancelled or state.board is None:
        return _finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    match outcome:
        case Done():
            loss = worst_loss(state.board)
            return _finish(state, *((RunStatus.PARTIAL, loss[1]) if loss else (RunStatus.SUCCEEDED, None)))
        case Broken():
            return _finish(state, RunStatus.FAILED, outcome.code)
        case Planned() | More() | Held() | Refused() | Paused():
            return _finish(state, RunStatus.FAILED, "answer.malformed_outcome")
        case _:
            assert_never(outcome)


def _finish(state: RunState, status: RunStatus, code: str | None) -> RunState:
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


def _undoing_over(state: RunState, outcome: RunOutcome) -> RunState:
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


def _cancel_requested(state: RunState, at: datetime) -> RunState:
    if state.cancelled or state.give_up_at is None:
        return state
    state = _with_cancel(state, at)
    if state.phase is not RunPhase.RUNNING or state.board is None:
        return state if state.call_open else _finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    draft = Draft(state.board)
    draft.stop(CANCELLED_CODE)
    return _settled(replace(state, board=draft.frozen()), at)


def _with_cancel(state: RunState, at: datetime) -> RunState:
    give_up_at = min(state.give_up_at or at, at + CANCEL_GRACE)
    if not state.call_open:
        state = _without_repair(state)
    return replace(state, cancelled=True, retry_at=None, give_up_at=give_up_at)


def _ticked(state: RunState, at: datetime) -> RunState:
    if state.armed_at is not None and state.armed_at <= at:
        state = replace(state, armed_at=None)
    if state.give_up_at is not None and state.give_up_at <= at:
        return _give_up(state, at)
    state = replace(state, pause=state.pause.rung(at))
    if state.retry_at is not None and state.retry_at <= at:
        held = state.held_by is not None
        state = replace(state, retry_at=None, look=state.look + held, attempt=state.attempt + (not held))
    if state.phase is RunPhase.RUNNING and state.board is not None:
        draft = Draft(state.board)
        draft.wake(at)
        state = replace(state, board=draft.frozen())
    return state


def _give_up(state: RunState, at: datetime) -> RunState:
    """Time is up: write off what is open. The answers of those calls will be stale."""
    if state.phase is RunPhase.RUNNING and state.board is not None:
        draft = Draft(state.board)
        draft.give_up(CANCELLED_CODE if state.cancelled else DEADLINE_CODE)
        state = _without_repair(state)
        return _settled(replace(state, board=draft.frozen(), overdue=not state.cancelled), at)
    if state.cancelled:
        return _finish(state, RunStatus.CANCELLED, CANCELLED_CODE)
    return _finish(state, RunStatus.FAILED, DEADLINE_CODE)
