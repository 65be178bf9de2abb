"""The brain of a run in its place: first a place among the runs of its tenant, then the run, the lease renewed all along.

A layer around ``engine.scheduler.run``, which knows nothing of it: commands and events pass through, only the wake-ups of both
are merged into the one that there is. A run without terms passes through unchanged, so older instances replay as recorded.

Nothing fails open: while the tenant's quota cannot be asked, a new run waits. Nothing is taken away either: a run that has begun
goes on, whatever becomes of its lease.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from engine.domain.status import RunStatus
from engine.scheduler.backoff import RetryPolicy, delay_s
from engine.scheduler.commands import (
    AcquireLease,
    Command,
    Event,
    Issued,
    LeaseAnswered,
    LeaseCall,
    RenewLease,
    Tick,
    WakeAt,
)
from engine.scheduler.report import progress
from engine.scheduler.run import decide, evolve, refuse, wake_up
from engine.scheduler.run_state import MAX_TIMER, RunRef, RunState, new_run

NO_PLACE_CODE = "quota.no_place"
LEASE_ENDED_CODE = "quota.lease_ended"
ASK_AGAIN = RetryPolicy(max_attempts=1, backoff_s=0.5, factor=2.0, max_backoff_s=8.0)
"""How the waiting between two questions grows. Who waits must ask more often than a waiting place lasts (30 s)."""
ANSWER_GRACE = timedelta(seconds=60)
"""How long an answer may take before a run whose waiting is over is refused without one."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """Under which limits a run takes its place: ``limit`` runs at once, a lease of ``lease_ms``, a wait of ``max_wait_s``."""

    limit: int
    lease_ms: int
    max_wait_s: float

    @property
    def renew_after(self) -> timedelta:
        """Half a lease, so that one late renewal loses nothing."""
        return timedelta(milliseconds=self.lease_ms / 2)


@dataclass(frozen=True, slots=True)
class AdmittedState:
    """The run, and where it stands with its place.

    ``stage``: ``asking`` until there is an answer, ``held`` with a lease, ``apart`` when the run needs none (any more). ``look``
    counts the questions; ``call_open`` says that one is under way, ``ask_at`` when the next is due. ``wait_until`` is fixed by
    the first question. ``armed_at`` is when the wake-up that was really asked for rings.
    """

    run: RunState
    terms: LeaseTerms | None
    stage: Literal["asking", "held", "apart"]
    look: int = 0
    call_open: bool = False
    ask_at: datetime | None = None
    wait_until: datetime | None = None
    renew_at: datetime | None = None
    renewals: int = 0
    armed_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """True when nothing more will happen."""
        return self.run.is_over

    @property
    def status(self) -> RunStatus:
        """The public status: a run without its place is only accepted."""
        return RunStatus.ACCEPTED if self.stage == "asking" else self.run.status


def new_admitted(ref: RunRef, terms: LeaseTerms | None) -> AdmittedState:
    """A run that has not begun."""
    return AdmittedState(new_run(ref), terms, "apart" if terms is None else "asking")


def decide_admitted(state: AdmittedState, now: datetime) -> tuple[Command, ...]:
    """What to schedule now, in the order in which it should be listed."""
    if state.terms is None:
        return decide(state.run, now)
    commands: list[Command] = []
    due_ats: list[datetime | None] = []
    if state.stage == "asking":
        if not state.call_open and state.ask_at is None:
            commands.append(AcquireLease(state.look))
        gives_up_at = _gives_up_at(state) or now + max(timedelta(seconds=state.terms.max_wait_s), ANSWER_GRACE)
        # The first wake-up is no later than a renewal would be: mostly the place is granted, and one timer serves both.
        due_ats = [state.ask_at, gives_up_at, state.run.give_up_at, now + state.terms.renew_after]
    else:
        own = decide(state.run, now)
        commands.extend(command for command in own if not isinstance(command, WakeAt))
        run_wakes_at = next((command.at for command in own if isinstance(command, WakeAt)), state.run.armed_at)
        renew_at = state.renew_at
        if renew_at is not None and renew_at <= now:
            commands.append(RenewLease(state.renewals))
            renew_at = now + state.terms.renew_after
        due_ats = [run_wakes_at, renew_at]
    wake_at = min((at for at in due_ats if at is not None), default=None)
    if wake_at is not None and not state.is_over:
        wake_at = min(wake_at, now + MAX_TIMER)
        if state.armed_at is None or wake_at < state.armed_at:
            commands.append(WakeAt(wake_at))
    return tuple(commands)


def evolve_admitted(state: AdmittedState, event: Event) -> AdmittedState:
    """Take in one event. A stale or repeated one gives the same state back."""
    if state.terms is None:
        return replace(state, run=evolve(state.run, event))
    match event:
        case Issued():
            return _issued(state, state.terms, event)
        case LeaseAnswered():
            return _answered(state, state.terms, event)
        case Tick():
            return _ticked(state, event)
        case _:
            state = replace(state, run=evolve(state.run, event))
            # A cancel ends a run that has not begun; what is left of it needs no place.
            return _apart(state, state.run) if state.stage == "asking" and state.run.cancelled else state


def _gives_up_at(state: AdmittedState) -> datetime | None:
    """When waiting ends: an answer under way gets its grace."""
    if state.wait_until is None or not state.call_open:
        return state.wait_until
    return state.wait_until + ANSWER_GRACE


def _issued(state: AdmittedState, terms: LeaseTerms, event: Issued) -> AdmittedState:
    if state.stage != "asking":
        # The run asked for wake-ups of its own that were merged; it is told of those it asked for.
        own = wake_up(state.run, event.at)
        others = (command for command in event.commands if not isinstance(command, WakeAt | LeaseCall))
        state = replace(state, run=evolve(state.run, Issued((*others, *own), event.at)))
    for command in event.commands:
        match command:
            case WakeAt():
                state = replace(state, armed_at=command.at)
            case AcquireLease():
                until = state.wait_until or event.at + timedelta(seconds=terms.max_wait_s)
                state = replace(state, call_open=True, wait_until=until)
            case RenewLease():
                state = replace(state, renew_at=event.at + terms.renew_after, renewals=command.number + 1)
            case _:
                pass
    return state


def _answered(state: AdmittedState, terms: LeaseTerms, event: LeaseAnswered) -> AdmittedState:
    if state.stage != "asking" or not state.call_open or event.call.look != state.look:
        return state
    state = replace(state, call_open=False)
    if event.answer == "granted":
        return replace(state, stage="held", ask_at=None, renew_at=event.at + terms.renew_after)
    if event.answer == "ended":
        return _apart(state, refuse(state.run, RunStatus.FAILED, LEASE_ENDED_CODE))
    if state.wait_until is not None and event.at >= state.wait_until:
        return _apart(state, refuse(state.run, RunStatus.FAILED, NO_PLACE_CODE))
    delay = timedelta(seconds=delay_s(ASK_AGAIN, f"{state.run.ref.run_id}/place", state.look + 1))
    return replace(state, ask_at=event.at + delay)


def _ticked(state: AdmittedState, event: Tick) -> AdmittedState:
    if state.armed_at is not None and state.armed_at <= event.at:
        state = replace(state, armed_at=None)
    if state.stage != "asking":
        return replace(state, run=evolve(state.run, event))
    if state.run.give_up_at is not None and state.run.give_up_at <= event.at:
        return _apart(state, evolve(state.run, event))
    gives_up_at = _gives_up_at(state)
    if gives_up_at is not None and gives_up_at <= event.at:
        return _apart(state, refuse(state.run, RunStatus.FAILED, NO_PLACE_CODE))
    if state.ask_at is not None and state.ask_at <= event.at:
        return replace(state, ask_at=None, look=state.look + 1)
    return state


def _apart(state: AdmittedState, run: RunState) -> AdmittedState:
    """The run ends without having had a place."""
    return replace(state, run=run, stage="apart", ask_at=None, call_open=False)


def progress_admitted(state: AdmittedState) -> dict[str, Any]:
    """``progress`` of the run; while it waits for its place, that and why."""
    shown = progress(state.run)
    return shown | {"status": str(state.status), "waiting_for": "quota"} if state.stage == "asking" else shown
