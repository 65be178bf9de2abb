"""What skips, failures, retries, waits and caps mean, one sentence each."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.domain.outcomes import Cancelled, Denied, Expanded, Failed, Skipped, StepOutcome, Succeeded, Waiting
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.domain.status import RunStatus, StepStatus
from engine.scheduler import (
    RunRef,
    RunState,
    compile_graph,
    decide,
    evolve,
    graph_from_wire,
    graph_to_wire,
    new_run,
    step_report,
)
from engine.scheduler.answers import run_outcome, step_outcome
from engine.scheduler.backoff import MAX_RETRY_AFTER_S, RetryPolicy, delay_s
from engine.scheduler.commands import (
    Broken,
    CancelRequested,
    ComposeAnswer,
    Done,
    ExpandMap,
    FinishRun,
    Issued,
    PerformStep,
    Planned,
    PlanRun,
    RunAnswered,
    RunMapPart,
    StepAnswered,
    Tick,
    WakeAt,
)
from engine.scheduler.steps import MAX_LOOKS
from engine.scheduler.transitions import RUN_TABLE, STEP_TABLE, RunPhase, StepTrigger

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REF = RunRef("contoso", "run-1", NOW + timedelta(hours=1))


def running(*steps: SkeletonStep, max_parallel: int = 8, caps: tuple[int, ...] = ()) -> RunState:
    state = evolve(new_run(REF), Issued((PlanRun(1),), NOW))
    graph = compile_graph(Skeleton(steps, max_parallel, "", caps))
    return evolve(state, RunAnswered(PlanRun(1), Planned(graph), NOW))


def play(state: RunState, outcomes: dict[str, StepOutcome], now: datetime = NOW) -> RunState:
    """Run until nothing can happen without a timer; steps without an outcome succeed, the answer is composed."""
    for _ in range(10_000):
        commands = decide(state, now)
        state = evolve(state, Issued(commands, now))
        calls = [command for command in commands if not isinstance(command, WakeAt)]
        if not calls:
            return state
        for call in calls:
            if isinstance(call, PerformStep):
                assert state.board is not None
                step_id = state.board.graph.steps[call.step].id
                state = evolve(state, StepAnswered(call, outcomes.get(step_id, Succeeded()), now))
            elif isinstance(call, ComposeAnswer | FinishRun):
                state = evolve(state, RunAnswered(call, Done(), now))
    raise AssertionError("no end")


def statuses(state: RunState) -> dict[str, str]:
    return {step: status for status, steps in step_report(state)["steps"].items() for step in steps}


FAILED = Failed(code="agent.broken")
STEP = SkeletonStep


def test_a_failed_step_fails_only_what_stands_behind_it() -> None:
    state = play(running(STEP("a"), STEP("b", (0,)), STEP("c", (1,)), STEP("x"), STEP("y", (3,))), {"a": FAILED})
    assert statuses(state) == {"a": "failed", "b": "skipped", "c": "skipped", "x": "succeeded", "y": "succeeded"}
    assert state.ending == (RunStatus.PARTIAL, "agent.broken")
    assert step_report(state)["codes"] == {"a": "agent.broken", "b": "step.needs_failed", "c": "step.needs_skipped"}


@pytest.mark.parametrize("outcome", [FAILED, Denied(code="policy.x"), Skipped(code="step.when_false")])
def test_a_default_keeps_a_step_alive_when_its_producer_is_lost(outcome: StepOutcome) -> None:
    state = play(running(STEP("a"), STEP("b", (0,), tolerates=(0,)), STEP("c", (0,))), {"a": outcome})
    assert statuses(state)["b"] == "succeeded"
    assert statuses(state)["c"] == "skipped"


def test_calls_of_a_bounded_capability_wait_for_each_other_and_hold_up_nobody_else() -> None:
    bounded = [STEP(f"b{n}", cap=1, expected_s=60) for n in range(4)]
    state = running(*bounded, STEP("a"), STEP("m", kind="map", cap=1, expected_s=0.5), max_parallel=8, caps=(2,))
    first = [command for command in decide(state, NOW) if not isinstance(command, WakeAt)]
    assert first == [PerformStep(0, 1), PerformStep(1, 1), PerformStep(4, 1)]
    state = evolve(evolve(state, Issued(decide(state, NOW), NOW)), StepAnswered(PerformStep(1, 1), Succeeded(), NOW))
    assert decide(state, NOW) == (PerformStep(2, 1),)
    graph = state.board.graph if state.board is not None else None
    assert graph is not None
    assert graph_from_wire(graph_to_wire(graph)) == graph


def test_a_map_of_a_bounded_capability_runs_no_more_items_than_there_is_room_for() -> None:
    state = running(STEP("b", cap=1), STEP("m", kind="map", cap=1, concurrency=3), max_parallel=8, caps=(3,))
    state = evolve(state, Issued(decide(state, NOW), NOW))
    state = evolve(state, StepAnswered(ExpandMap(1, 1), Expanded(item_count=10), NOW))
    assert decide(state, NOW) == (RunMapPart(1, 0, 10, 2),)


def test_a_skeleton_that_counts_towards_a_cap_it_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="cap that there is not"):
        compile_graph(Skeleton((STEP("a", cap=1),), 8, ""))
    with pytest.raises(ValueError, match="allows no step"):
        compile_graph(Skeleton((STEP("a", cap=1),), 8, "", (0,)))


def test_a_step_whose_condition_is_false_is_skipped_and_the_run_still_succeeds() -> None:
    state = play(running(STEP("a"), STEP("b"), STEP("c", (0,))), {"a": Skipped(code="step.when_false")})
    assert state.ending == (RunStatus.SUCCEEDED, None)


def test_an_optional_step_may_fail_without_spoiling_the_run() -> None:
    state = play(running(STEP("a", optional=True), STEP("b", (0,)), STEP("c")), {"a": FAILED})
    assert statuses(state) == {"a": "failed", "b": "skipped", "c": "succeeded"}
    assert state.ending == (RunStatus.SUCCEEDED, None)


def test_a_failure_that_is_to_be_skipped_counts_as_a_skip() -> None:
    state = play(running(STEP("a", on_failure="skip"), STEP("b")), {"a": FAILED})
    assert statuses(state) == {"a": "skipped", "b": "succeeded"}
    assert state.ending == (RunStatus.SUCCEEDED, None)


def test_a_denial_is_never_turned_into_a_skip() -> None:
    state = play(running(STEP("a", on_failure="skip"), STEP("b")), {"a": Denied(code="policy.x")})
    assert statuses(state)["a"] == "denied"
    assert state.ending == (RunStatus.PARTIAL, "policy.x")


@pytest.mark.parametrize(
    ("outcomes", "ending"),
    [
        ({"a": FAILED, "b": FAILED}, (RunStatus.FAILED, "agent.broken")),
        ({"a": Denied(code="policy.x"), "b": Denied(code="policy.y")}, (RunStatus.DENIED, "policy.x")),
        ({"a": Denied(code="policy.x"), "b": FAILED}, (RunStatus.FAILED, "agent.broken")),
        ({"a": FAILED}, (RunStatus.PARTIAL, "agent.broken")),
        ({}, (RunStatus.SUCCEEDED, None)),
    ],
)
def test_the_ending_of_a_run(outcomes: dict[str, StepOutcome], ending: Any) -> None:
    assert play(running(STEP("a"), STEP("b")), outcomes).ending == ending


def test_without_an_answer_a_run_has_failed_although_every_step_succeeded() -> None:
    state = running(STEP("a"))
    state = evolve(evolve(state, Issued((PerformStep(0, 1),), NOW)), StepAnswered(PerformStep(0, 1), Succeeded(), NOW))
    state = evolve(
        evolve(state, Issued((ComposeAnswer(1),), NOW)), RunAnswered(ComposeAnswer(1), Broken("x.y", False), NOW)
    )
    assert state.ending == (RunStatus.FAILED, "x.y")


def test_a_retryable_failure_waits_and_tries_again_until_its_attempts_are_used_up() -> None:
    state, now = running(STEP("a", max_attempts=3, backoff_s=10.0)), NOW
    busy = {"a": Failed(code="agent.busy", retryable=True)}
    gaps = []
    for attempt in (1, 2, 3):
        state = play(state, busy, now)
        assert state.board is not None
        if attempt < 3:
            due_at = state.board.next_due_at
            assert due_at is not None
            gaps.append((due_at - now).total_seconds())
            assert state.armed_at == due_at
            now = due_at
            state = evolve(state, Tick(now))
    assert 5.0 <= gaps[0] <= 10.0
    assert 10.0 <= gaps[1] <= 20.0
    assert statuses(state) == {"a": "failed"}


def test_a_retry_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    state = running(STEP("a", backoff_s=1.0))
    state = play(state, {"a": Failed(code="agent.busy", retryable=True)}, REF.deadline_at - timedelta(milliseconds=400))
    assert statuses(state) == {"a": "failed"}


def test_a_wait_step_is_asked_again_when_it_is_due_and_holds_no_capacity_meanwhile() -> None:
    state = running(STEP("w", kind="wait"), STEP("a"), STEP("b", (1,)), max_parallel=1)
    until = NOW + timedelta(minutes=5)
    state = play(state, {"w": Waiting(until_at=until.isoformat())})
    assert statuses(state) == {"w": "waiting", "a": "succeeded", "b": "succeeded"}
    state = evolve(state, Tick(until))
    assert decide(state, until)[0] == PerformStep(0, 1, look=1)
    assert play(state, {}, until).ending == (RunStatus.SUCCEEDED, None)


@pytest.mark.parametrize("until", ["tomorrow", "2026-01-01T00:05:00", ""])
def test_a_wait_until_no_clear_moment_fails_the_step(until: str) -> None:
    assert statuses(play(running(STEP("w", kind="wait")), {"w": Waiting(until_at=until)})) == {"w": "failed"}


def test_the_longest_path_goes_first_when_a_cap_binds() -> None:
    steps = (STEP("short"), STEP("long"), STEP("l2", (1,)), STEP("heavy", expected_s=9.0))
    state = running(*steps, max_parallel=2)
    assert [command.step for command in decide(state, NOW) if isinstance(command, PerformStep)] == [3, 1]


def test_a_run_keeps_at_most_sixty_four_calls_open_whatever_the_plan_allows() -> None:
    state = running(*(STEP(f"s{n}") for n in range(200)), max_parallel=1_000)
    assert sum(isinstance(command, PerformStep) for command in decide(state, NOW)) == 64


def test_a_cancel_while_planning_lets_the_planner_finish_and_runs_nothing() -> None:
    state = evolve(new_run(REF), Issued((PlanRun(1),), NOW))
    state = evolve(state, CancelRequested(NOW))
    assert state.status is RunStatus.CANCELLING
    assert decide(state, NOW) == (WakeAt(NOW + timedelta(seconds=30)),)
    state = evolve(state, RunAnswered(PlanRun(1), Planned(compile_graph(Skeleton((STEP("a"),), 1, ""))), NOW))
    assert state.ending == (RunStatus.CANCELLED, "run.cancelled")


def test_a_cancelled_run_does_not_plan_again_but_insists_on_being_recorded() -> None:
    state = evolve(new_run(REF), Issued((PlanRun(1),), NOW))
    state = evolve(evolve(state, CancelRequested(NOW)), RunAnswered(PlanRun(1), Broken("x.y", True), NOW))
    finish = FinishRun(1, RunStatus.CANCELLED, "run.cancelled")
    assert decide(state, NOW) == (finish,)
    state = evolve(evolve(state, Issued((finish,), NOW)), RunAnswered(finish, Broken("x.y", True), NOW))
    assert not state.is_over
    assert state.retry_at is not None
    assert replace(finish, attempt=2) in decide(evolve(state, Tick(state.retry_at)), state.retry_at)


def test_recording_the_end_outlasts_a_store_that_is_away_for_a_day_and_is_bounded() -> None:
    """Nobody else records it: a run that gave up would be shown as running for ever."""
    state = evolve(new_run(REF), Issued((PlanRun(1),), NOW))
    state, now = evolve(state, RunAnswered(PlanRun(1), Broken("plan.failed", False), NOW)), NOW
    waits = []
    while not state.is_over:
        (finish,) = (command for command in decide(state, now) if isinstance(command, FinishRun))
        state = evolve(
            evolve(state, Issued((finish,), now)), RunAnswered(finish, Broken("store.unavailable", True), now)
        )
        if state.retry_at is not None:
            waits.append(state.retry_at - now)
            now = state.retry_at
            state = evolve(state, Tick(now))
    assert max(waits[:9]) <= timedelta(minutes=1)
    assert max(waits[:12]) <= timedelta(minutes=10)
    assert max(waits) <= timedelta(minutes=30)
    assert timedelta(days=1) < now - NOW < timedelta(days=5)
    assert not state.recorded


def test_a_cancel_after_the_end_is_decided_comes_too_late() -> None:
    state = evolve(new_run(REF), Issued((PlanRun(1),), NOW))
    state = evolve(state, RunAnswered(PlanRun(1), Broken("plan.failed", False), NOW))
    assert evolve(state, CancelRequested(NOW)) == state


def test_a_part_that_reaches_the_deadline_first_does_not_make_the_run_a_cancelled_one() -> None:
    state = running(STEP("m", kind="map"), STEP("a"))
    for call, outcome in (
        (ExpandMap(0, 1), Expanded(item_count=5)),
        (RunMapPart(0, 0, 5, 8), Cancelled(code="run.deadline")),
    ):
        state = evolve(state, Issued((call,), NOW))
        state = evolve(state, StepAnswered(call, outcome, NOW))
    assert state.status is RunStatus.RUNNING
    assert play(state, {}).ending == (RunStatus.PARTIAL, "run.deadline")


def test_a_step_that_knows_of_a_cancel_whose_event_was_lost_ends_the_run() -> None:
    state = play(running(STEP("a"), STEP("b", (0,)), STEP("c")), {"a": Cancelled()})
    assert statuses(state) == {"a": "cancelled", "b": "cancelled", "c": "succeeded"}
    assert state.ending == (RunStatus.CANCELLED, "run.cancelled")


def test_counting_and_collecting_items_is_tried_again_even_where_the_step_is_not() -> None:
    state = running(STEP("m", kind="map", max_attempts=1))
    state = evolve(state, Issued((ExpandMap(0, 1),), NOW))
    state = evolve(state, StepAnswered(ExpandMap(0, 1), Failed(code="activity.crashed", retryable=True), NOW))
    assert statuses(state) == {"m": "waiting"}


def test_an_empty_plan_is_answered() -> None:
    assert play(running(), {}).ending == (RunStatus.SUCCEEDED, None)


@pytest.mark.parametrize(
    "steps",
    [
        (STEP("a", (0,)),),
        (STEP("a", (1,)), STEP("b")),
        (STEP("a", (-1,)),),
        (STEP("a"), STEP("b", tolerates=(0,))),
        (STEP("a", max_attempts=0),),
        (STEP("a", concurrency=0),),
    ],
)
def test_a_skeleton_that_cannot_run_is_refused(steps: tuple[SkeletonStep, ...]) -> None:
    with pytest.raises(ValueError, match="skeleton"):
        compile_graph(Skeleton(steps, 1, ""))
    outcome = run_outcome(PlanRun(1), {"status": "planned", "skeleton": graph_like(steps)})
    assert outcome == Broken("plan.malformed_skeleton", retryable=False)


def graph_like(steps: tuple[SkeletonStep, ...]) -> Any:
    from engine.domain.skeleton import to_wire

    return to_wire(Skeleton(steps, 1, ""))


def test_a_graph_is_compiled_once_for_each_text() -> None:
    wire = graph_to_wire(compile_graph(Skeleton((STEP("a"), STEP("b", (0,))), 3, "x")))
    assert graph_from_wire(wire) is graph_from_wire(dict(wire))


@pytest.mark.parametrize(
    "value",
    [None, 7, "done", {}, {"status": "exploded"}, {"status": "failed"}, {"status": "succeeded", "item_count": "1"}],
)
def test_an_answer_that_makes_no_sense_is_a_failure_with_a_code(value: Any) -> None:
    assert step_outcome(value) == Failed(code="step.malformed_outcome")


def test_jitter_is_a_function_of_run_step_and_attempt() -> None:
    policy = RetryPolicy(5, 10.0, 2.0, 60.0)
    assert delay_s(policy, "r/a", 1) == delay_s(policy, "r/a", 1)
    assert len({delay_s(policy, key, 1) for key in ("r/a", "r/b", "q/a")}) == 3


@pytest.mark.parametrize(("attempt", "factor"), [(1, 2.0), (9, 2.0), (10_000, 10.0), (3, 0.0)])
def test_a_delay_stays_between_half_and_whole_of_the_capped_backoff(attempt: int, factor: float) -> None:
    policy = RetryPolicy(5, 10.0, factor, 60.0)
    assert 0.0 <= delay_s(policy, "r/a", attempt) <= 60.0


def test_a_callee_may_ask_for_patience_within_bounds() -> None:
    policy = RetryPolicy(5, 1.0, 2.0, 60.0)
    assert delay_s(policy, "r/a", 1, retry_after_s=120.0) == 120.0
    assert delay_s(policy, "r/a", 1, retry_after_s=1e9) == MAX_RETRY_AFTER_S
    assert delay_s(policy, "r/a", 1, retry_after_s=-5.0) <= 1.0


def test_the_table_lets_no_step_leave_a_final_status_and_reaches_each_status() -> None:
    assert not [move for move in STEP_TABLE if move[0].is_final]
    assert set(STEP_TABLE.values()) | {StepStatus.PENDING} == set(StepStatus)
    for status, trigger in itertools.product(
        (StepStatus.PENDING, StepStatus.RUNNING), (StepTrigger.SKIP, StepTrigger.CANCEL)
    ):
        assert STEP_TABLE[status, trigger].is_final


def test_every_phase_of_a_run_can_be_left_except_the_last() -> None:
    assert {phase for phase, _ in RUN_TABLE} == set(RunPhase) - {RunPhase.OVER}


def cpu_s_per_step(count: int, width: int) -> float:
    """Scheduler time for a ladder of ``width`` chains with cross edges, one completion at a time."""
    steps = tuple(
        STEP(f"s{n}", tuple(sorted({need for need in (n - width, n - width - 1) if need >= 0}))) for n in range(count)
    )
    state = running(*steps, max_parallel=32)
    open_calls: list[PerformStep] = []
    begun = time.process_time()
    while state.phase is RunPhase.RUNNING:
        commands = decide(state, NOW)
        state = evolve(state, Issued(commands, NOW))
        open_calls += [command for command in commands if isinstance(command, PerformStep)]
        state = evolve(state, StepAnswered(open_calls.pop(0), Succeeded(), NOW))
    return (time.process_time() - begun) / count


def test_the_cost_of_a_completion_does_not_grow_with_the_plan() -> None:
    small = min(cpu_s_per_step(250, 20) for _ in range(3))
    large = min(cpu_s_per_step(5_000, 20) for _ in range(2))
    assert large < 3 * small, f"{small * 1e6:.0f} µs a step at 250 steps, {large * 1e6:.0f} µs at 5,000"


@pytest.mark.parametrize(("left_s", "look_after_s"), [(1_800.0, 60.0), (7.0, 7.0), (-5.0, 0.1), (1e300, 172_800.0)])
def test_two_clocks_that_differ_are_asked_at_the_pace_of_time(left_s: float, look_after_s: float) -> None:
    """It is time here and not yet there: asking again at once would use up the looks of the step within a minute or two."""
    state = running(STEP("w", kind="wait"))
    until = (NOW - timedelta(seconds=1)).isoformat()
    state = play(state, {"w": Waiting(until_at=until, left_s=left_s)})
    assert state.board is not None
    assert state.board.next_due_at == NOW + timedelta(seconds=look_after_s)


@pytest.mark.parametrize("set_back_by", [timedelta(days=1), timedelta(days=60)])
def test_a_clock_that_was_set_back_far_does_not_use_up_the_looks_of_a_step(set_back_by: timedelta) -> None:
    ref = RunRef("contoso", "run-1", NOW + timedelta(days=365))
    state = evolve(new_run(ref), Issued((PlanRun(1),), NOW))
    graph = compile_graph(Skeleton((STEP("w", kind="wait"),), 8, "", ()))
    state = evolve(state, RunAnswered(PlanRun(1), Planned(graph), NOW))
    over_there, at = NOW - set_back_by, NOW
    for looks in range(MAX_LOOKS):
        left_s = (NOW - over_there - (at - NOW)).total_seconds()
        if left_s <= 0:
            break
        state = play(state, {"w": Waiting(until_at=NOW.isoformat(), left_s=left_s)}, at)
        assert state.board is not None
        assert state.board.next_due_at is not None, f"given up after {looks} looks"
        at = state.board.next_due_at
        state = evolve(state, Tick(at))
    assert left_s <= 0, "the looks are used up"


def test_an_answer_from_before_there_was_a_time_left_means_what_it_meant() -> None:
    state = play(running(STEP("w", kind="wait")), {"w": Waiting(until_at=(NOW - timedelta(hours=1)).isoformat())})
    assert state.board is not None
    assert state.board.next_due_at == NOW + timedelta(milliseconds=100)


def test_an_instant_both_clocks_have_ahead_is_waited_for() -> None:
    until = NOW + timedelta(hours=1)
    state = play(running(STEP("w", kind="wait")), {"w": Waiting(until_at=until.isoformat(), left_s=3.0)})
    assert state.board is not None
    assert state.board.next_due_at == until
