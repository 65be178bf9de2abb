"""What the brain of a run remembers, and the terms it works under. Moves that only forget something are here too; what
happens to a run is in `run`, how it ends in `ending`, how its plan is repaired in `repairing`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engine.domain.skeleton import UNDO_ATTEMPTS
from engine.domain.status import RunStatus
from engine.scheduler.backoff import RetryPolicy
from engine.scheduler.board import Board
from engine.scheduler.pausing import NO_PAUSE, Pause
from engine.scheduler.transitions import RunPhase

CANCEL_GRACE = timedelta(seconds=30)
"""How long calls that are open when a run is cancelled may take to finish before they are written off."""
CLOSING_GRACE = timedelta(seconds=120)
"""How long composing may take beyond the deadline: finished work still deserves its answer."""
MAX_TIMER = timedelta(days=5)
"""Longest durable timer (the Azure Storage backend ends at six days); a longer sleep takes several."""
CALL_RETRIES = RetryPolicy(max_attempts=10, backoff_s=1.0, factor=2.0, max_backoff_s=60.0)
"""How calls of the run itself (plan, compose, finish) are repeated when they may be."""
RECORDING_RETRIES = RetryPolicy(max_attempts=90, backoff_s=60.0, factor=1.2, max_backoff_s=1_800.0)
"""How recording the end goes on after as many attempts as other calls have: after some minutes, ever later, in the end every 15
to 30 minutes, for a day or more. Nobody else would record it, and a run that nobody closes is shown as running for ever; a
store may be away for longer than minutes."""

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


def without_repair(state: RunState) -> RunState:
    """No repair is under way (any more); an answer that still comes is stale."""
    if state.repairing is None:
        return state
    rest = replace(state, repairing=None, attempt=1, look=0, call_open=False, retry_at=None)
    return replace(rest, held_by=None, listening_to=None, announced=False)
