"""Waiting for people as the scheduler decides it: when to look, when to listen, and what an announcement is worth."""

from __future__ import annotations

from datetime import datetime, timedelta

from engine.domain.outcomes import AwaitingApproval, Failed, Succeeded
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.domain.status import RunStatus
from engine.scheduler import RunState, compile_graph, decide, evolve, new_run
from engine.scheduler.commands import (
    Announced,
    AwaitResume,
    Call,
    Command,
    Event,
    Held,
    Issued,
    Listen,
    PerformStep,
    Planned,
    PlanRun,
    RunAnswered,
    StepAnswered,
    Tick,
    WakeAt,
)
from engine.scheduler.pausing import WATCHDOG
from engine.scheduler.steps import MAX_LISTENED
from tests.unit.scheduler.simulate import REF, START_AT

UNTIL = (START_AT + timedelta(minutes=50)).isoformat()


class Drive:
    """A run that is driven by hand; ``commands`` is what was decided last."""

    def __init__(self, *steps: SkeletonStep, max_parallel: int = 64) -> None:
        self.now: datetime = START_AT
        self.skeleton = Skeleton(steps, max_parallel=max_parallel, plan_hash="0" * 64)
        self.state: RunState = new_run(REF)
        self.commands: tuple[Command, ...] = ()
        self._decide()

    def _decide(self) -> None:
        self.commands = decide(self.state, self.now)
        self.state = evolve(self.state, Issued(self.commands, self.now))

    def on(self, event: Event) -> None:
        self.now = max(self.now, event.at)
        self.state = evolve(self.state, event)
        self._decide()

    def planned(self) -> None:
        self.on(RunAnswered(PlanRun(1), Planned(compile_graph(self.skeleton)), self.now))

    def awaits(self, call: PerformStep) -> None:
        outcome = AwaitingApproval(approval_id=f"ap-{call.step}", expires_at=UNTIL)
        self.on(StepAnswered(call, outcome, self.now))

    @property
    def calls(self) -> list[Call]:
        return [command for command in self.commands if not isinstance(command, WakeAt | Listen | AwaitResume)]


def test_a_step_that_waits_is_listened_to_once_and_looks_when_it_is_told() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    drive.awaits(PerformStep(0, 1))
    assert Listen("approval.ap-0") in drive.commands
    assert drive.calls == []
    assert drive.state.status is RunStatus.AWAITING_APPROVAL
    drive.on(Announced("approval.ap-0", drive.now))
    assert drive.calls == [PerformStep(0, 1, look=1)]
    assert not [command for command in drive.commands if isinstance(command, Listen)]


def test_an_announcement_during_a_look_leads_to_one_more() -> None:
    """The look may have read the store a moment before the answer was written."""
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    drive.awaits(PerformStep(0, 1))
    drive.on(Tick(START_AT + WATCHDOG))
    assert drive.calls == [PerformStep(0, 1, look=1)]
    drive.on(Announced("approval.ap-0", drive.now))
    assert drive.calls == []
    drive.awaits(PerformStep(0, 1, look=1))
    assert drive.calls == [PerformStep(0, 1, look=2)]
    drive.awaits(PerformStep(0, 1, look=2))
    assert drive.calls == []


def test_an_announcement_during_the_look_of_a_plan_leads_to_one_more() -> None:
    drive = Drive(SkeletonStep("a"))
    held = Held("ap-plan", UNTIL)
    drive.on(RunAnswered(PlanRun(1), held, drive.now))
    drive.on(Tick(START_AT + WATCHDOG))
    assert drive.calls == [PlanRun(1, look=1)]
    drive.on(Announced("approval.ap-plan", drive.now))
    drive.on(RunAnswered(PlanRun(1, look=1), held, drive.now))
    assert drive.calls == [PlanRun(1, look=2)]
    drive.on(RunAnswered(PlanRun(1, look=2), held, drive.now))
    assert drive.calls == []


def test_when_everything_else_is_done_one_of_those_who_wait_looks_so_that_the_store_learns_it() -> None:
    drive = Drive(SkeletonStep("a"), SkeletonStep("b"), SkeletonStep("c"))
    drive.planned()
    drive.awaits(PerformStep(0, 1))
    drive.awaits(PerformStep(1, 1))
    assert drive.calls == []
    drive.on(StepAnswered(PerformStep(2, 1), Succeeded(), drive.now))
    assert drive.calls == [PerformStep(0, 1, look=1)]
    drive.awaits(PerformStep(0, 1, look=1))
    assert drive.calls == []
    assert drive.state.status is RunStatus.AWAITING_APPROVAL


def test_no_more_than_so_many_answers_are_listened_to_and_the_next_takes_a_free_place() -> None:
    count = MAX_LISTENED + 5
    drive = Drive(*(SkeletonStep(f"s{n}") for n in range(count)))
    drive.planned()
    listened: list[Listen] = []
    waiting = list(drive.calls)
    while waiting:
        call = waiting.pop(0)
        assert isinstance(call, PerformStep)
        drive.awaits(call)
        listened += [command for command in drive.commands if isinstance(command, Listen)]
        waiting += drive.calls
    assert len(listened) == len(set(listened)) == MAX_LISTENED
    assert drive.state.board is not None
    assert drive.state.board.used == 0
    drive.on(Announced("approval.ap-0", drive.now))
    drive.on(StepAnswered(PerformStep(0, 1, look=1), Succeeded(), drive.now))
    assert len([command for command in drive.commands if isinstance(command, Listen)]) == 1


def test_a_call_that_fails_after_the_yes_is_in_backoff_and_waits_for_nobody() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    drive.awaits(PerformStep(0, 1))
    drive.on(Announced("approval.ap-0", drive.now))
    drive.on(StepAnswered(PerformStep(0, 1, look=1), Failed(code="agent.busy", retryable=True), drive.now))
    assert drive.state.status is RunStatus.RUNNING
    assert drive.state.board is not None
    assert drive.state.board.awaited == ()
    drive.on(Announced("approval.ap-0", drive.now))
    assert drive.calls == [], "a late announcement cut the pause short"
