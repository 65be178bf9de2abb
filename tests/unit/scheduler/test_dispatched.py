"""Steps that a worker has: they keep their place, are told of their end, and never block or are blocked."""

from __future__ import annotations

from datetime import timedelta

from engine.domain.outcomes import AwaitingApproval, Dispatched, Failed, Succeeded, Suspended
from engine.domain.skeleton import SkeletonStep
from engine.domain.status import RunStatus, StepStatus
from engine.scheduler.commands import Announced, CancelRequested, Listen, PerformStep, Resumed, StepAnswered, Tick
from engine.scheduler.pausing import WATCHDOG
from tests.unit.scheduler.simulate import START_AT
from tests.unit.scheduler.test_approvals import UNTIL, Drive

DONE = "step-finished.x.1"


def hand_on(drive: Drive, call: PerformStep, event: str = DONE, look_by: str = UNTIL) -> None:
    drive.on(StepAnswered(call, Dispatched(event=event, look_by=look_by), drive.now))


def used(drive: Drive) -> int:
    assert drive.state.board is not None
    return drive.state.board.used


def test_a_step_at_work_is_listened_to_and_looked_at_when_it_ends() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    hand_on(drive, PerformStep(0, 1))
    assert Listen(DONE) in drive.commands
    assert drive.calls == []
    assert drive.state.status is RunStatus.RUNNING
    drive.on(Announced(DONE, drive.now))
    assert drive.calls == [PerformStep(0, 1, look=1)]
    drive.on(StepAnswered(PerformStep(0, 1, look=1), Succeeded(), drive.now))
    assert used(drive) == 0
    assert drive.state.phase == "composing"


def test_it_keeps_its_place_however_often_it_is_looked_at_and_gives_it_up_at_its_end() -> None:
    drive = Drive(*(SkeletonStep(name) for name in "abc"), max_parallel=2)
    drive.planned()
    assert drive.calls == [PerformStep(0, 1), PerformStep(1, 1)]
    hand_on(drive, PerformStep(0, 1), "e.0")
    hand_on(drive, PerformStep(1, 1), "e.1")
    assert (drive.calls, used(drive)) == ([], 2)
    drive.on(Tick(START_AT + WATCHDOG))
    assert drive.calls == [PerformStep(0, 1, look=1), PerformStep(1, 1, look=1)], "full, and still looked at"
    hand_on(drive, PerformStep(0, 1, look=1), "e.0")
    assert (drive.calls, used(drive)) == ([], 2)
    drive.on(StepAnswered(PerformStep(1, 1, look=1), Succeeded(), drive.now))
    assert (drive.calls, used(drive)) == ([PerformStep(2, 1)], 2)


def test_a_lost_lease_is_a_failed_attempt_and_the_next_one_is_told_of_its_own_event() -> None:
    drive = Drive(SkeletonStep("a", max_attempts=2, backoff_s=1.0))
    drive.planned()
    hand_on(drive, PerformStep(0, 1))
    drive.on(Announced(DONE, drive.now))
    drive.on(StepAnswered(PerformStep(0, 1, look=1), Failed(code="agent.lease_lost", retryable=True), drive.now))
    assert (drive.calls, used(drive)) == ([], 0)
    drive.on(Announced(DONE, drive.now))
    assert drive.calls == [], "a late announcement of the first attempt cut the pause short"
    drive.on(Tick(drive.now + timedelta(seconds=60)))
    assert drive.calls == [PerformStep(0, 2)]
    hand_on(drive, PerformStep(0, 2), "step-finished.x.2")
    assert Listen("step-finished.x.2") in drive.commands


def test_an_end_announced_during_a_look_leads_to_one_more() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    hand_on(drive, PerformStep(0, 1))
    drive.on(Tick(START_AT + WATCHDOG))
    drive.on(Announced(DONE, drive.now))
    assert drive.calls == []
    hand_on(drive, PerformStep(0, 1, look=1))
    assert drive.calls == [PerformStep(0, 1, look=2)]


def test_a_run_with_a_step_at_work_does_not_wait_for_people() -> None:
    drive = Drive(SkeletonStep("a"), SkeletonStep("b"))
    drive.planned()
    drive.awaits(PerformStep(0, 1))
    hand_on(drive, PerformStep(1, 1))
    assert drive.calls == []
    assert drive.state.status is RunStatus.RUNNING
    drive.on(Announced(DONE, drive.now))
    drive.on(StepAnswered(PerformStep(1, 1, look=1), Succeeded(), drive.now))
    assert drive.state.status is RunStatus.RUNNING, "one that waits looks, so that the store learns it"
    drive.awaits(PerformStep(0, 1, look=1))
    assert drive.state.status is RunStatus.AWAITING_APPROVAL


def test_a_cancel_writes_a_step_at_work_off_at_once_and_undoes_it() -> None:
    drive = Drive(SkeletonStep("a", undo=True), SkeletonStep("b"))
    drive.planned()
    hand_on(drive, PerformStep(0, 1))
    drive.on(CancelRequested(drive.now))
    board = drive.state.board
    assert board is not None
    assert (board.record(0).status, board.used, board.begun) == (StepStatus.CANCELLED, 1, (0,))
    drive.on(StepAnswered(PerformStep(1, 1), Succeeded(), drive.now))
    assert drive.state.phase == "undoing"


def test_what_it_did_is_taken_up_after_a_suspension() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    hand_on(drive, PerformStep(0, 1))
    drive.on(Announced(DONE, drive.now))
    drive.on(StepAnswered(PerformStep(0, 1, look=1), Suspended(number=1), drive.now))
    assert (drive.calls, used(drive), drive.state.status) == ([], 0, RunStatus.SUSPENDED)
    drive.on(Resumed(1, drive.now))
    assert drive.calls == [PerformStep(0, 1, look=2)]


def test_a_step_may_wait_for_a_person_and_then_be_handed_on() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    drive.awaits(PerformStep(0, 1))
    assert used(drive) == 0
    drive.on(Announced("approval.ap-0", drive.now))
    hand_on(drive, PerformStep(0, 1, look=1))
    assert used(drive) == 1
    drive.on(Announced(DONE, drive.now))
    outcome = AwaitingApproval(approval_id="ap-9", expires_at=UNTIL)
    drive.on(StepAnswered(PerformStep(0, 1, look=2), outcome, drive.now))
    assert used(drive) == 0


def test_an_answer_without_a_time_is_no_answer() -> None:
    drive = Drive(SkeletonStep("a"))
    drive.planned()
    hand_on(drive, PerformStep(0, 1), look_by="soon")
    assert drive.state.board is not None
    assert drive.state.board.record(0).code == "step.unexpected_outcome"
