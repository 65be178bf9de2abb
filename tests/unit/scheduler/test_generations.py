"""What goes with a run into a fresh history, and when: properties over random runs, and the rules one by one."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.skeleton import MAX_SKELETON_BYTES, Skeleton, SkeletonStep, size_bytes
from engine.scheduler import AdmittedState, LeaseTerms, RunState, compile_graph, decide, new_admitted
from engine.scheduler.board import new_board
from engine.scheduler.commands import (
    AwaitResume,
    CollectMap,
    ExpandMap,
    Listen,
    PerformStep,
    RunMapPart,
    StepAnswered,
    StepCall,
    WakeAt,
)
from engine.scheduler.generations import calls_apart, is_long_enough, is_short, name_of, outlasts, pack, unpack
from engine.scheduler.steps import is_open
from engine.scheduler.transitions import RunPhase
from tests.unit.scheduler.simulate import REF, START_AT, World, simulate
from tests.unit.scheduler.test_properties import check_board, thorough, worlds

TERMS = LeaseTerms(limit=3, lease_ms=60_000, max_wait_s=30.0)


def in_place(run: RunState) -> AdmittedState:
    return AdmittedState(run, TERMS, "held", renew_at=START_AT + timedelta(seconds=7), renewals=2, armed_at=START_AT)


def handed_on(run: RunState) -> RunState:
    return unpack(pack(in_place(run)), TERMS).run


@given(worlds)
@thorough
def test_what_is_handed_on_is_the_state_without_what_only_its_history_had(world: World) -> None:
    for state in simulate(world).states:
        before, after = in_place(state), unpack(pack(in_place(state)), TERMS)
        assert after.run.armed_at is None
        assert after.armed_at is None
        assert (after.stage, after.renew_at, after.renewals) == (before.stage, before.renew_at, before.renewals)
        assert after.run.listening_to is None
        board, own = after.run.board, before.run.board
        assert (board is None) == (own is None)
        if board is not None and own is not None:
            check_board(board)
            assert not any(entry.listening for entry in board.awaited)
            assert (list(board.records()), board.ready, board.used) == (list(own.records()), own.ready, own.used)
            assert board.graph == own.graph
        assert pack(after) == pack(before)


@given(worlds)
@thorough
def test_the_open_calls_of_a_state_are_those_that_were_issued_and_not_answered(world: World) -> None:
    trace = simulate(world)
    under_way: set[StepCall] = set()
    for state, commands, event in zip(trace.states, trace.commands, trace.events, strict=False):
        if state.board is not None and state.phase is RunPhase.RUNNING:
            assert set(calls_apart(in_place(state))) == {call for call in under_way if is_open(state.board, call)}
        under_way |= {command for command in commands if isinstance(command, StepCall)}
        if isinstance(event, StepAnswered):
            under_way.discard(event.call)


@given(worlds, st.integers(1, 4))
@thorough
def test_a_run_that_is_handed_on_again_and_again_ends_well(world: World, every: int) -> None:
    turns = 0

    def now_and_then(state: RunState) -> RunState:
        nonlocal turns
        turns += 1
        return handed_on(state) if turns % every == 0 else state

    trace = simulate(world, between=now_and_then)
    seen: set[StepCall] = set()
    for state, commands in zip(trace.states, trace.commands, strict=True):
        if state.board is not None:
            check_board(state.board)
        fresh = [command for command in commands if isinstance(command, StepCall)]
        assert not seen & set(fresh), "a call was made again because the run was handed on"
        seen |= set(fresh)
    assert trace.last.ending is not None
    assert trace.last.board is None or trace.last.board.unfinished == 0


@given(worlds)
@thorough
def test_a_fresh_history_asks_again_for_its_timer_and_for_all_it_waits_for(world: World) -> None:
    world = dataclasses.replace(world, people=True, suspends=True)
    trace = simulate(world)
    for state, now in zip(trace.states, trace.nows, strict=True):
        if state.is_over:
            continue
        once, again = decide(state, now), decide(handed_on(state), now)
        assert [c for c in again if not isinstance(c, WakeAt | Listen | AwaitResume)] == [
            c for c in once if not isinstance(c, WakeAt | Listen | AwaitResume)
        ]
        assert {c for c in once if isinstance(c, Listen | AwaitResume)} <= set(again)
        due = state.give_up_at is not None and now < state.give_up_at
        if due and state.board is not None and state.phase is RunPhase.RUNNING:
            assert {entry.event for entry in state.board.awaited} <= {c.event for c in again if isinstance(c, Listen)}


def running(count: int, **fields: float) -> AdmittedState:
    steps = tuple(SkeletonStep(f"s{index}", **fields) for index in range(count))  # type: ignore[arg-type]  # numbers all
    run = RunState(REF, RunPhase.RUNNING, START_AT, board=new_board(compile_graph(Skeleton(steps, 64, ""))))
    return AdmittedState(run, None, "apart")


@pytest.mark.parametrize(
    ("left", "taken_in", "ends"),
    [(5_000, 99, False), (5_000, 100, True), (50, 100, True), (49, 100, False), (49, 299, False), (1, 300, True)],
)
def test_a_history_ends_when_it_has_taken_in_enough_and_the_rest_is_worth_another(
    left: int, taken_in: int, ends: bool
) -> None:
    assert is_long_enough(running(left), taken_in, 100) is ends


def test_a_run_that_only_waits_goes_on_in_a_fresh_history_too() -> None:
    waiting = new_admitted(REF, TERMS)
    assert not is_long_enough(waiting, 299, 100)
    assert is_long_enough(waiting, 300, 100)


def test_a_step_that_outlasts_a_history_is_carried_apart_and_no_step_of_a_small_plan() -> None:
    slow = SkeletonStep("slow", expected_s=60.0)
    others = tuple(SkeletonStep(f"s{index}", expected_s=1.0) for index in range(999))
    graph = compile_graph(Skeleton((slow, *others), 10, ""))
    assert outlasts(graph, PerformStep(0, 1), 100)
    assert not outlasts(graph, PerformStep(1, 1), 100)
    assert not outlasts(graph, ExpandMap(0, 1), 100)
    small = compile_graph(Skeleton((slow, *others[:150]), 10, ""))
    assert not outlasts(small, PerformStep(0, 1), 100)


@pytest.mark.parametrize(("expected_s", "short"), [(0.0, True), (0.1, True), (0.11, False), (1.0, False)])
def test_a_call_is_short_that_is_expected_to_take_half_of_what_may_be_waited_for_it(
    expected_s: float, short: bool
) -> None:
    graph = compile_graph(Skeleton((SkeletonStep("s", expected_s=expected_s),), 64, ""))
    assert is_short(graph, PerformStep(0, 2, look=1), timedelta(seconds=0.2)) is short


def test_beginning_to_wait_or_to_ask_is_short_and_counting_items_and_running_them_is_not() -> None:
    steps = (SkeletonStep("days", kind="wait", expected_s=9e5), SkeletonStep("ask", kind="approval", expected_s=9e5))
    graph = compile_graph(Skeleton((*steps, SkeletonStep("m", kind="map", expected_s=0.0)), 64, ""))
    hold = timedelta(seconds=0.2)
    assert all(is_short(graph, PerformStep(step, 1), hold) for step in (0, 1))
    assert not any(
        is_short(graph, call, hold) for call in (ExpandMap(2, 1), CollectMap(2, 1, 5), RunMapPart(2, 0, 5, 1))
    )


def test_a_wait_is_never_carried_apart_however_long_it_is() -> None:
    steps = (SkeletonStep("days", kind="wait", expected_s=9e5), *(SkeletonStep(f"s{n}") for n in range(999)))
    assert not outlasts(compile_graph(Skeleton(steps, 10, "")), PerformStep(0, 1), 100)


def test_every_call_has_a_name_of_its_own_that_fits_an_instance_id() -> None:
    calls = [
        PerformStep(3, 1), PerformStep(3, 2), PerformStep(3, 1, look=1), PerformStep(31, 1), ExpandMap(3, 1), ExpandMap(3, 2),
        CollectMap(3, 1, 5), RunMapPart(3, 0, 5, 1), RunMapPart(3, 5, 5, 1), RunMapPart(30, 5, 5, 1),
    ]  # fmt: skip
    names = [name_of(call) for call in calls]
    assert len(set(names)) == len(calls)
    assert all(len(name) <= 60 and name.replace("-", "").isalnum() for name in names)


def test_the_largest_skeleton_is_handed_on_in_a_start_document_below_its_own_bound() -> None:
    steps = tuple(
        SkeletonStep(f"step-{index:04d}", needs=tuple(range(max(0, index - 12), index)), expected_s=index / 7)
        for index in range(5_000)
    )
    skeleton = Skeleton(steps, 64, "0" * 64)
    assert 0.8 * MAX_SKELETON_BYTES < size_bytes(skeleton) < MAX_SKELETON_BYTES
    run = RunState(REF, RunPhase.RUNNING, START_AT, board=new_board(compile_graph(skeleton)))
    state = AdmittedState(run, None, "apart")
    text = pack(state)
    assert len(text) < MAX_SKELETON_BYTES
    assert unpack(text, None) == state


@pytest.mark.parametrize("text", ["", "x", ".", ".eJyrVkrLz1eyUkpKLFKqBQAdegQ0", "eJw=.eJw="])
def test_text_that_is_no_state_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(text, None)
