"""A suspended run as the scheduler decides it: what holds it, what lets it go on, and what an announcement is worth."""

from __future__ import annotations

from datetime import timedelta

from engine.domain.outcomes import Cancelled, Succeeded, Suspended
from engine.domain.skeleton import SkeletonStep
from engine.domain.status import RunStatus
from engine.scheduler.commands import (
    AwaitResume,
    CancelRequested,
    ComposeAnswer,
    Done,
    FinishRun,
    Paused,
    PerformStep,
    PlanRun,
    Resumed,
    RunAnswered,
    StepAnswered,
    Tick,
)
from engine.scheduler.pausing import EARLY_LOOKS, LATER_WATCHDOG, NO_PAUSE, WATCHDOG
from tests.unit.scheduler.simulate import START_AT
from tests.unit.scheduler.test_approvals import Drive

SUSPENDED = Suspended(number=1)


def two_steps() -> Drive:
    drive = Drive(SkeletonStep("a"), SkeletonStep("b"), SkeletonStep("c", needs=(0,)))
    drive.planned()
    return drive


def test_a_suspended_run_starts_nothing_lets_open_calls_end_and_goes_on_where_it_was() -> None:
    drive = two_steps()
    drive.on(StepAnswered(PerformStep(0, 1), SUSPENDED, drive.now))
    assert drive.state.status is RunStatus.SUSPENDED
    assert AwaitResume(1) in drive.commands
    drive.on(StepAnswered(PerformStep(1, 1), Succeeded(), drive.now))
    assert drive.calls == []
    drive.on(Resumed(1, drive.now))
    assert drive.calls == [PerformStep(0, 1, look=1)], "the attempt is not used up"
    assert drive.state.status is RunStatus.RUNNING


def test_a_call_that_came_too_early_to_see_the_resumption_is_made_again_at_once() -> None:
    drive = two_steps()
    drive.on(StepAnswered(PerformStep(0, 1), SUSPENDED, drive.now))
    drive.on(Resumed(1, drive.now))
    drive.on(StepAnswered(PerformStep(1, 1), SUSPENDED, drive.now))
    assert drive.calls == [PerformStep(1, 1, look=1)]


def test_an_earlier_announcement_ends_no_later_suspension() -> None:
    drive = two_steps()
    drive.on(Resumed(1, drive.now))
    drive.on(StepAnswered(PerformStep(0, 1), Suspended(number=2), drive.now))
    drive.on(Resumed(1, drive.now))
    assert drive.state.status is RunStatus.SUSPENDED
    drive.on(Resumed(2, drive.now))
    assert drive.state.status is RunStatus.RUNNING


def test_a_lost_announcement_is_made_up_for_by_the_watchdog_and_is_asked_for_only_once() -> None:
    drive = two_steps()
    drive.on(StepAnswered(PerformStep(1, 1), Succeeded(), drive.now))
    drive.on(StepAnswered(PerformStep(0, 1), SUSPENDED, drive.now))
    drive.on(Tick(START_AT + WATCHDOG))
    assert drive.calls == [PerformStep(0, 1, look=1)]
    drive.on(StepAnswered(PerformStep(0, 1, look=1), SUSPENDED, drive.now))
    assert drive.calls == [], "it listens already"
    assert drive.state.board is not None
    assert drive.state.board.pause.looks == 2


def test_who_waits_for_hours_looks_less_often() -> None:
    pause, at = NO_PAUSE, START_AT
    for _ in range(EARLY_LOOKS):
        pause = pause.told(1, at)
        assert pause.look_at == at + WATCHDOG
        pause = pause.rung(at + WATCHDOG)
    assert pause.told(1, at).look_at == at + LATER_WATCHDOG


def test_planning_and_composing_wait_too_and_a_cancel_ends_the_waiting() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.on(RunAnswered(PlanRun(1), Paused(1), drive.now))
    assert drive.state.status is RunStatus.SUSPENDED
    drive.on(Resumed(1, drive.now))
    assert drive.calls == [PlanRun(1, look=1)]
    drive.on(RunAnswered(PlanRun(1, look=1), Paused(2), drive.now))
    drive.on(CancelRequested(drive.now))
    assert drive.calls == [FinishRun(1, RunStatus.CANCELLED, "run.cancelled")]


def test_an_answer_waits_for_the_resumption() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    drive.on(StepAnswered(PerformStep(0, 1), Succeeded(), drive.now))
    drive.on(RunAnswered(ComposeAnswer(1), Paused(1), drive.now))
    assert AwaitResume(1) in drive.commands
    drive.on(Resumed(1, drive.now))
    assert drive.calls == [ComposeAnswer(1, look=1)]
    drive.on(RunAnswered(ComposeAnswer(1, look=1), Done(), drive.now))
    assert drive.calls == [FinishRun(1, RunStatus.SUCCEEDED, None)]


def test_the_deadline_holds_for_a_suspended_run() -> None:
    drive = two_steps()
    drive.on(StepAnswered(PerformStep(0, 1), SUSPENDED, drive.now))
    drive.on(Tick(drive.state.ref.deadline_at + timedelta(seconds=1)))
    assert drive.calls == [FinishRun(1, RunStatus.FAILED, "run.deadline")]


def test_cancelling_a_suspended_run_ends_it() -> None:
    drive = two_steps()
    drive.on(StepAnswered(PerformStep(0, 1), SUSPENDED, drive.now))
    drive.on(CancelRequested(drive.now))
    drive.on(StepAnswered(PerformStep(1, 1), Cancelled(), drive.now))
    assert drive.calls == [FinishRun(1, RunStatus.CANCELLED, "run.cancelled")]
