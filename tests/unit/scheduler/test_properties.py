"""What holds for every run, whatever the plan is and whatever happens to it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import random
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.names import approval_event
from engine.domain.skeleton import Skeleton
from engine.domain.status import FINAL_STEP_STATUSES, RunStatus, StepStatus
from engine.scheduler import IN_FLIGHT_CAP, RunState, decide, dumps, evolve, loads, new_run
from engine.scheduler.board import Board, Stage
from engine.scheduler.commands import (
    Announced,
    Call,
    CancelRequested,
    ExpandMap,
    FinishRun,
    Issued,
    PerformStep,
    RunAnswered,
    RunMapPart,
    StepAnswered,
    Tick,
    UndoStep,
    WakeAt,
)
from engine.scheduler.ending import worst_loss
from engine.scheduler.run_state import COMES_TO_NOTHING
from engine.scheduler.transitions import RunPhase
from tests.unit.scheduler.simulate import (
    DEADLINE_AT,
    NO_CALLS,
    REF,
    START_AT,
    Trace,
    World,
    part_width,
    simulate,
    skeletons,
)

worlds = st.builds(
    World,
    skeleton=skeletons(),
    seed=st.integers(0, 2**32),
    mood=st.sampled_from([0.0, 0.1, 0.3, 0.7]),
    hangs=st.booleans(),
    cancels=st.booleans(),
    people=st.booleans(),
    suspends=st.booleans(),
    workers=st.booleans(),
)
thorough = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _of_steps(commands: tuple[Any, ...]) -> list[Any]:
    """The commands that run steps; undoing one is another matter."""
    return [command for command in commands if hasattr(command, "step") and not isinstance(command, UndoStep)]


def expected_ready(board: Board) -> set[int]:
    """The ready set computed the slow way, for steps that have not started."""
    if board.stopped is not None:
        return set()
    statuses = [record.status for record in board.records()]
    return {
        index
        for index, spec in enumerate(board.graph.steps)
        if statuses[index] is StepStatus.PENDING and all(statuses[need].is_final for need in spec.needs)
    }


def width_of_open(board: Board, index: int) -> int:
    """The capacity that the open calls of a running step take."""
    record = board.record(index)
    if record.progress is not None and record.stage is Stage.PARTS:
        return sum(width for _, width in record.progress.open_parts)
    return 0 if board.is_ready(index) else 1


def check_board(board: Board) -> None:
    records = list(board.records())
    ready = {index for index in range(len(records)) if board.is_ready(index)}
    pending = {index for index in ready if records[index].status is StepStatus.PENDING}
    assert pending == expected_ready(board)
    assert board.unfinished == sum(not record.status.is_final for record in records)
    assert 0 <= board.used <= board.graph.capacity <= IN_FLIGHT_CAP
    asleep = {step for _, step in board.sleepers}
    assert len(asleep) == len(board.sleepers)
    for entry in board.awaited:
        assert records[entry.step].status in (StepStatus.WAITING, StepStatus.RUNNING)
    assert len({entry.step for entry in board.awaited}) == len(board.awaited)
    looked_at = [index for index in range(len(records)) if records[index].status is StepStatus.RUNNING]
    places = {entry.step for entry in board.awaited if entry.at_work}
    assert set(board.at_work()) == places
    widths = dict.fromkeys(places, 1)
    widths |= {index: width_of_open(board, index) for index in looked_at if index not in places}
    assert board.used == sum(widths.values())
    for cap, most in enumerate(board.graph.skeleton.caps, start=1):
        taken = sum(width for index, width in widths.items() if board.graph.steps[index].cap == cap)
        assert board.used_of[cap - 1] == taken <= most
    for index, record in enumerate(records):
        assert record.unmet == sum(not records[need].status.is_final for need in set(board.graph.steps[index].needs))
        if record.status is StepStatus.WAITING:
            held = any(step == index for step, _ in board.failing)
            assert held + (index in asleep) + (index in ready) == 1
        if record.status.is_final:
            assert index not in ready
            assert index not in asleep
    for index, spec in enumerate(board.graph.steps):
        lost = [need for need in spec.needs if need not in spec.tolerates and records[need].status in LOST]
        if lost:
            assert records[index].status in (StepStatus.SKIPPED, StepStatus.CANCELLED)


LOST = FINAL_STEP_STATUSES - {StepStatus.SUCCEEDED}


@given(worlds)
@thorough
def test_every_run_ends_and_every_state_on_the_way_is_consistent(world: World) -> None:
    trace = simulate(world)
    for state in trace.states:
        if state.board is not None:
            check_board(state.board)
    assert trace.last.ending is not None
    assert trace.last.status is trace.last.ending[0]
    assert trace.last.status.is_final
    if trace.last.board is not None:
        assert trace.last.board.unfinished == 0


@given(worlds)
@thorough
def test_a_step_starts_only_when_its_needs_are_met_and_each_attempt_at_most_once(world: World) -> None:
    trace = simulate(world)
    seen: set[Call] = set()
    for state, commands in zip(trace.states, trace.commands, strict=True):
        for command in commands:
            if isinstance(command, WakeAt):
                continue
            assert command not in seen, f"the same call was issued twice: {command}"
            seen.add(command)
            if state.board is not None and hasattr(command, "step"):
                spec = state.board.graph.steps[command.step]
                for need in spec.needs:
                    status = state.board.record(need).status
                    assert status is StepStatus.SUCCEEDED or (need in spec.tolerates and status.is_final)


@given(worlds)
@thorough
def test_caps_hold_over_calls_and_over_items(world: World) -> None:
    trace = simulate(world)
    open_width: dict[Call, int] = {}
    for state, commands, event in zip(trace.states, trace.commands, trace.events, strict=False):
        if state.board is None or state.phase != "running":
            continue
        open_width |= {command: part_width(command) for command in commands if not isinstance(command, NO_CALLS)}
        assert sum(open_width.values()) <= min(world.skeleton.max_parallel, IN_FLIGHT_CAP)
        for index, spec in enumerate(state.board.graph.steps):
            parts = [call for call in open_width if isinstance(call, RunMapPart) and call.step == index]
            assert sum(part.concurrency for part in parts) <= spec.concurrency
            assert all(1 <= part.count <= 100 for part in parts)
        skeleton = state.board.graph.skeleton  # a repair has added steps, and perhaps caps
        for cap, most in enumerate(skeleton.caps, start=1):
            sharing = [call for call in open_width if getattr(call, "step", None) is not None]
            wide = [call for call in sharing if skeleton.steps[call.step].cap == cap]
            assert sum(open_width[call] for call in wide) <= most
        if isinstance(event, StepAnswered):
            open_width.pop(event.call)


@given(worlds, st.integers(0, 2**32))
@thorough
def test_duplicate_late_and_stale_events_change_nothing(world: World, seed: int) -> None:
    trace = simulate(world)
    chooser = random.Random(seed)
    for position, state in enumerate(trace.states[1:], start=1):
        past = chooser.randrange(position)
        event = trace.events[past]
        if isinstance(event, StepAnswered | RunAnswered):
            assert evolve(state, event) == state
        again = Issued(tuple(c for c in trace.commands[past] if not isinstance(c, WakeAt)), trace.nows[past])
        assert evolve(state, again) == state
        if state.cancelled or state.is_over:
            assert evolve(state, CancelRequested(trace.nows[-1])) == state
        dues = [state.armed_at, state.give_up_at, state.retry_at, state.pause.look_at]
        dues.append(state.board.next_due_at if state.board else None)
        too_early_at = min(due for due in [*dues, DEADLINE_AT] if due is not None) - timedelta(microseconds=1)
        assert evolve(state, Tick(too_early_at)) == state


@given(worlds)
@thorough
def test_replaying_any_prefix_gives_the_same_commands_and_never_touches_an_earlier_state(world: World) -> None:
    trace = simulate(world)
    frozen = [dumps(state) for state in trace.states]
    state = new_run(REF)
    for position, event in enumerate(trace.events):
        commands = decide(state, trace.nows[position])
        assert commands == trace.commands[position]
        state = evolve(evolve(state, Issued(commands, trace.nows[position])), event)
    assert state == trace.last
    assert [dumps(state) for state in trace.states] == frozen


@given(worlds)
@thorough
def test_a_state_survives_its_text_form_at_every_moment(world: World) -> None:
    for state in simulate(world).states:
        assert loads(dumps(state)) == state
        assert dumps(loads(dumps(state))) == dumps(state)


@given(worlds)
@thorough
def test_a_run_handed_on_through_text_after_every_event_takes_the_same_decisions(world: World) -> None:
    trace = simulate(world)
    state = new_run(REF)
    for position, event in enumerate(trace.events):
        state = loads(dumps(state))
        commands = decide(state, trace.nows[position])
        assert commands == trace.commands[position]
        state = evolve(evolve(state, Issued(commands, trace.nows[position])), event)


@given(worlds)
@thorough
def test_a_step_that_waits_for_a_person_holds_no_capacity_and_uses_up_no_attempt(world: World) -> None:
    trace = simulate(dataclasses.replace(world, people=True, mood=0.0))
    for state, commands in zip(trace.states, trace.commands, strict=True):
        waiting = 0
        for entry in state.board.awaited if state.board else ():
            waiting += state.board.record(entry.step).status is StepStatus.WAITING if state.board else 0
        assert state.board is None or state.board.used <= state.board.graph.capacity
        assert state.board is None or not state.board.waits_for_people or waiting == len(state.board.awaited)
        assert state.board is None or not (state.board.waits_for_people and state.board.at_work())
        assert not [c for c in commands if isinstance(c, PerformStep) and c.attempt > 1]


@given(worlds)
@thorough
def test_an_announced_answer_is_looked_at_without_waiting_for_a_timer(world: World) -> None:
    world = dataclasses.replace(world, people=True)
    trace = simulate(world)
    for position, event in enumerate(trace.events):
        if not isinstance(event, Announced) or position + 1 == len(trace.states):
            continue
        before, after = trace.states[position], trace.states[position + 1]
        if after.board is None or after.phase != "running" or before.cancelled:
            continue
        for entry in before.board.awaited if before.board else ():
            if entry.event == event.event and before.board is not None:
                looking = before.board.record(entry.step).status is StepStatus.RUNNING
                issued = any(isinstance(c, PerformStep) and c.step == entry.step for c in trace.commands[position])
                known = next((e for e in after.board.awaited if e.step == entry.step), None)
                assert after.board.is_ready(entry.step) or (
                    (looking or issued) and known is not None and known.announced
                )


@given(worlds)
@thorough
def test_a_run_that_says_it_waits_for_people_has_asked_one_and_makes_no_call(world: World) -> None:
    world = dataclasses.replace(world, people=True)
    for state in simulate(world).states:
        if state.status is RunStatus.AWAITING_APPROVAL:
            asked = {entry.event for entry in state.board.awaited} if state.board is not None else set()
            asked |= {state.held_by} - {None}
            assert asked <= {approval_event(asked) for asked in (*world.asked, "ap-odd")}
            assert asked
            assert state.board is None or state.board.used == 0


@given(worlds)
@thorough
def test_a_denied_step_never_runs_again(world: World) -> None:
    trace = simulate(world)
    denied: set[int] = set()
    for state, commands in zip(trace.states, trace.commands, strict=True):
        if state.board is not None:
            denied = {i for i, record in enumerate(state.board.records()) if record.status is StepStatus.DENIED}
        assert not [command for command in _of_steps(commands) if command.step in denied]


@given(worlds)
@thorough
def test_a_final_step_keeps_its_status(world: World) -> None:
    final: dict[int, StepStatus] = {}
    for state in simulate(world).states:
        for index, record in enumerate(state.board.records() if state.board else ()):
            assert final.get(index, record.status) is record.status
            if record.status.is_final:
                final[index] = record.status


@given(worlds)
@thorough
def test_nothing_starts_after_a_cancel_or_the_deadline(world: World) -> None:
    trace = simulate(world)
    for state, commands, now in zip(trace.states, trace.commands, trace.nows, strict=True):
        starting = _of_steps(commands)
        assert not (starting and (state.cancelled or now >= DEADLINE_AT))


@given(worlds)
@thorough
def test_the_final_status_says_what_happened(world: World) -> None:
    last = simulate(world).last
    assert last.ending is not None
    status = last.ending[0]
    if last.cancelled:
        assert status is RunStatus.CANCELLED
        return
    loss = worst_loss(last.board) if last.board is not None else None
    match status:
        case RunStatus.SUCCEEDED:
            assert loss is None
            assert not last.overdue
        case RunStatus.PARTIAL:
            assert loss is not None
            assert last.board is not None
            assert any(record.status is StepStatus.SUCCEEDED for record in last.board.records())
        case RunStatus.DENIED:
            assert last.board is None or all(r.status is not StepStatus.SUCCEEDED for r in last.board.records())
        case _:
            assert status is RunStatus.FAILED


@given(worlds, st.integers(0, 2**32))
@thorough
def test_decide_and_evolve_are_total(world: World, seed: int) -> None:
    """Any event of one run thrown at any state of another neither raises nor breaks the board."""
    trace, chooser = simulate(world), random.Random(seed)
    other = simulate(World(world.skeleton, seed, mood=0.5, cancels=True))
    for _ in range(40):
        state: RunState = chooser.choice(trace.states)
        for event in chooser.choices(other.events, k=4):
            state = evolve(state, event)
            decide(state, event.at)
            if state.board is not None:
                check_board(state.board)


@given(skeletons())
@settings(max_examples=60, deadline=None)
def test_without_trouble_every_step_succeeds_and_starts_in_order_of_its_needs(skeleton: Skeleton) -> None:
    trace = simulate(World(skeleton, seed=1, mood=0.0))
    assert trace.last.status is RunStatus.SUCCEEDED
    performed = [command.step for command in trace.issued() if isinstance(command, PerformStep)]
    plain = [index for index, step in enumerate(skeleton.steps) if step.kind != "map"]
    assert sorted(performed) == plain


def _digest_of(trace: Trace) -> str:
    return json.dumps([repr(trace.commands), dumps(trace.last)])


def digest(seed: int) -> str:
    """A run by seed as text, for comparison between processes."""
    chooser = random.Random(seed)
    steps = []
    from engine.domain.skeleton import SkeletonStep

    for index in range(30):
        needs = tuple(sorted(chooser.sample(range(index), k=min(index, chooser.randrange(4)))))
        steps.append(SkeletonStep(f"s{index}", needs=needs, kind=chooser.choice(["call", "call", "map"])))
    return _digest_of(simulate(World(Skeleton(tuple(steps), 5, "0" * 64), seed, mood=0.2, cancels=seed % 2 == 0)))


def test_the_seed_of_pythons_hashes_changes_nothing() -> None:
    script = "from tests.unit.scheduler.test_properties import digest; print([digest(n) for n in range(6)])"
    root = Path(__file__).parents[3]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1_000


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_occurs_in_the_random_worlds(stage: Stage) -> None:
    """The properties above mean little if maps, waits and retries never happen."""
    seen = set()
    for seed in range(20):
        from engine.domain.skeleton import SkeletonStep

        steps = (SkeletonStep("a"), SkeletonStep("m", needs=(0,), kind="map"), SkeletonStep("b", needs=(1,)))
        trace = simulate(World(Skeleton(steps, 4, "0" * 64), seed, mood=0.2))
        seen |= {record.stage for state in trace.states if state.board for record in state.board.records()}
    assert stage in seen
    assert START_AT < DEADLINE_AT


@given(worlds)
@thorough
def test_a_run_that_comes_to_nothing_is_undone_step_by_step_last_ended_first(world: World) -> None:
    """Once each, one at a time, after everything else and before the end is recorded; a partial run keeps what it did."""
    trace = simulate(world)
    state, issued = trace.last, trace.issued()
    undone = [command for command in issued if isinstance(command, UndoStep)]
    assert len(set(undone)) == len(undone)
    order = list(dict.fromkeys(command.step for command in undone))
    assert [step for step, _ in itertools.groupby(command.step for command in undone)] == order
    begun = state.board.begun if state.board is not None else ()
    nothing = state.ending is not None and state.ending[0] in COMES_TO_NOTHING
    assert order == (list(begun[::-1]) if nothing else [])
    assert {step for step, _ in state.not_undone} <= set(order)
    if state.board is not None:
        called = {command.step for command in issued if isinstance(command, PerformStep | ExpandMap)}
        assert set(begun) == {step for step in called if state.board.graph.steps[step].undo}
    first = next((place for place, command in enumerate(issued) if isinstance(command, UndoStep)), len(issued))
    assert all(isinstance(command, UndoStep | FinishRun | WakeAt) for command in issued[first:])


@given(worlds, st.randoms(use_true_random=False))
@thorough
def test_undoing_survives_a_hand_over_at_any_point_and_answers_that_come_twice(
    world: World, chance: random.Random
) -> None:
    trace = simulate(world)
    for state, event in zip(trace.states, trace.events, strict=False):
        if state.phase is RunPhase.UNDOING and chance.random() < 0.3:
            assert loads(dumps(state)) == state
            begun = evolve(state, Issued(decide(state, event.at), event.at))
            after = evolve(begun, event)
            if isinstance(event, RunAnswered):
                assert evolve(after, event) == after
            assert evolve(begun, CancelRequested(event.at)) == begun
