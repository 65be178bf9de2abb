"""Repairs: a step that failed for good has the plan changed under the run; what has begun stays, and the run always ends."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.names import REPAIRS_SINCE, approval_event
from engine.domain.outcomes import Denied, Expanded, Failed, StepOutcome, Succeeded
from engine.domain.skeleton import Skeleton, SkeletonStep
from engine.domain.status import RunStatus, StepStatus
from engine.scheduler import RunState, compile_graph, decide, dumps, evolve, loads, new_run, step_report
from engine.scheduler.commands import (
    Announced,
    Broken,
    CancelRequested,
    ComposeAnswer,
    Done,
    ExpandMap,
    FinishRun,
    Held,
    Issued,
    Listen,
    PerformStep,
    Planned,
    Refused,
    RepairPlan,
    RunAnswered,
    RunMapPart,
    StepAnswered,
    Tick,
    UndoStep,
    WakeAt,
)
from engine.scheduler.run_state import CANCEL_GRACE
from tests.unit.scheduler.simulate import DEADLINE_AT, REF, START_AT, World, simulate, skeletons
from tests.unit.scheduler.test_properties import check_board


def _keen(skeleton: Skeleton) -> Skeleton:
    steps = tuple(dataclasses.replace(spec, on_failure="repair", max_attempts=1) for spec in skeleton.steps)
    return dataclasses.replace(skeleton, steps=steps, repairs=3)


worlds = st.builds(
    World,
    skeleton=skeletons().map(_keen),
    seed=st.integers(0, 2**32),
    mood=st.sampled_from([0.15, 0.3, 0.5]),
    hangs=st.booleans(),
    cancels=st.booleans(),
    people=st.booleans(),
    suspends=st.booleans(),
    workers=st.booleans(),
)
thorough = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@given(worlds)
@thorough
def test_every_run_ends_and_its_boards_are_consistent(world: World) -> None:
    trace = simulate(world)
    for state in trace.states:
        assert loads(dumps(state)) == state
        if state.board is not None:
            check_board(state.board)
            held = [step for step, _ in state.board.failing]
            assert all(state.board.record(step).status is StepStatus.WAITING for step in held)
            assert state.repairing is None or state.call_open or state.repairing in held
    assert trace.last.ending is not None
    assert trace.last.board is None or not trace.last.board.failing


@given(worlds)
@thorough
def test_steps_keep_their_numbers_and_their_ends_and_no_id_is_used_twice(world: World) -> None:
    before: RunState | None = None
    for state in simulate(world).states:
        if before is not None and before.board is not None and state.board is not None:
            old, new = before.board, state.board
            assert [spec.id for spec in new.graph.steps[: len(old.graph.steps)]] == [s.id for s in old.graph.steps]
            for number, record in enumerate(old.records()):
                if record.status.is_final:
                    assert new.record(number).status is record.status
                if old.graph.steps[number].retired:
                    assert new.graph.steps[number].retired
                    assert record.status.is_final
            ids = [spec.id for spec in new.graph.steps]
            assert len(set(ids)) == len(ids)
        before = state


@given(worlds)
@thorough
def test_what_is_replaced_never_starts_again_and_nothing_behind_a_failing_step_moves(world: World) -> None:
    trace = simulate(world)
    for state, commands in zip(trace.states, trace.commands, strict=True):
        if state.board is None:
            continue
        steps, failing = state.board.graph.steps, {step for step, _ in state.board.failing}
        for command in commands:
            if isinstance(command, PerformStep | ExpandMap | RunMapPart):
                assert not steps[command.step].retired
                assert not failing & set(steps[command.step].needs)


@given(worlds)
@thorough
def test_repairs_are_bounded_and_begun_one_at_a_time(world: World) -> None:
    trace = simulate(world)
    issued = [command for command in trace.issued() if isinstance(command, RepairPlan)]
    assert {command.number for command in issued} <= {1, 2, 3}
    assert [c.number for c in issued] == sorted(c.number for c in issued)
    assert len({(c.number, c.step) for c in issued}) == len({c.number for c in issued})


@given(worlds)
@thorough
def test_an_answer_that_comes_twice_or_late_changes_nothing(world: World) -> None:
    trace = simulate(world)
    answers = [event for event in trace.events if isinstance(event, RunAnswered) and isinstance(event.call, RepairPlan)]
    for event in answers:
        place = trace.events.index(event)
        for state in trace.states[place + 1 :]:
            assert evolve(state, event) == state


def test_repairs_happen_in_the_random_worlds() -> None:
    """The properties above mean little if no plan ever changes."""
    done = {"versions": 0, "held": 0, "twice": 0, "running": 0}
    steps = tuple(SkeletonStep(f"s{i}", needs=(i // 2,) if i > 1 else (), on_failure="repair") for i in range(8))
    for seed in range(150):
        world = World(_keen(Skeleton(steps, 4, "0" * 64)), 3 * seed, mood=0.3, people=seed % 5 == 0)
        trace = simulate(world)
        sizes = [len(state.board.graph.steps) for state in trace.states if state.board is not None]
        grown = [place for place in range(1, len(sizes)) if sizes[place] > sizes[place - 1]]
        done["versions"] += len(grown)
        done["twice"] += len(grown) > 1
        done["held"] += any(state.held_by for state in trace.states if state.board is not None)
        done["running"] += any(state.board and state.call_open and state.board.used for state in trace.states)
    assert all(count > 1 for count in done.values()), done


class Play:
    """A run played by hand."""

    def __init__(self, *specs: SkeletonStep, repairs: int = 2, version: int = REPAIRS_SINCE, caps: Any = ()) -> None:
        self.now = START_AT
        self.state = new_run(dataclasses.replace(REF, version=version))
        self.issued: list[Any] = []
        self.skeleton = Skeleton(specs, 8, "0" * 64, caps, repairs)
        self.go()
        self.run_call(Planned(compile_graph(self.skeleton)))

    def go(self) -> list[Any]:
        new = list(decide(self.state, self.now))
        self.state = evolve(self.state, Issued(tuple(new), self.now))
        self.issued += new
        return new

    def step(self, step_id: str, outcome: StepOutcome | None = None) -> None:
        call = next(c for c in self.issued if isinstance(c, PerformStep | ExpandMap) and self.id_of(c.step) == step_id)
        self.issued.remove(call)
        self.state = evolve(self.state, StepAnswered(call, outcome or Succeeded(), self.now))
        self.go()

    def run_call(self, outcome: Any) -> None:
        call = next(c for c in self.issued if not isinstance(c, PerformStep | ExpandMap | RunMapPart | WakeAt | Listen))
        self.issued.remove(call)
        self.state = evolve(self.state, RunAnswered(call, outcome, self.now))
        self.go()

    def tell(self, event: Any) -> None:
        self.state = evolve(self.state, event)
        self.go()

    def id_of(self, number: int) -> str:
        assert self.state.board is not None
        return self.state.board.graph.steps[number].id

    def open(self, kind: type[Any] = PerformStep) -> list[str]:
        return [self.id_of(command.step) for command in self.issued if isinstance(command, kind)]

    def statuses(self) -> dict[str, str]:
        assert self.state.board is not None
        pairs = zip(self.state.board.graph.steps, self.state.board.records(), strict=True)
        return {spec.id: str(record.status) for spec, record in pairs}


def version(*specs: SkeletonStep) -> Planned:
    return Planned(compile_graph(Skeleton(specs, 8, "1" * 64)))


def s(step_id: str, *needs: int, **fields: Any) -> SkeletonStep:
    return SkeletonStep(step_id, needs=needs, max_attempts=1, on_failure="repair", **fields)


BROKEN = Failed(code="agent.broken")


def test_only_what_comes_after_the_failed_step_is_replaced_and_the_rest_goes_on_meanwhile() -> None:
    run = Play(s("a"), s("b"), s("after_a", 0), s("after_b", 1), s("join", 2, 3))
    run.step("a", BROKEN)
    assert run.open(RepairPlan) == ["a"]
    run.step("b")
    assert run.open() == ["after_b"]
    run.run_call(version(s("b"), s("after_b", 0), s("other_a"), s("other_join", 1, 2)))
    assert run.open() == ["after_b", "other_a"]
    run.step("other_a")
    run.step("after_b")
    assert run.open() == ["other_join"]
    run.step("other_join")
    run.run_call(Done())
    assert run.state.ending == (RunStatus.SUCCEEDED, None)
    report = step_report(run.state)
    assert report["steps"]["failed"] == ["a"]
    assert set(report["steps"]["skipped"]) == {"after_a", "join"}
    assert report["codes"]["after_a"] == "step.replaced"


@pytest.mark.parametrize(
    "outcome",
    [
        Refused(RunStatus.DENIED, "policy.no"),
        Refused(RunStatus.FAILED, "plan.unplannable"),
        Broken("x.y", retryable=False),
        version(s("a"), s("new", 0)),
        version(s("new")),
        version(s("b"), s("after_a", 0), s("after_b", 0)),
    ],
    ids=["denied", "no plan", "broken", "keeps the failed step", "leaves out what runs", "uses an id for another step"],
)
def test_without_a_repair_the_step_has_failed_and_the_run_goes_on_as_it_can(outcome: Any) -> None:
    run = Play(s("a"), s("b"), s("after_a", 0), s("after_b", 1))
    run.step("a", BROKEN)
    run.run_call(outcome)
    assert run.statuses() == {"a": "failed", "b": "running", "after_a": "skipped", "after_b": "pending"}
    run.step("b")
    run.step("after_b")
    run.run_call(Done())
    assert run.state.ending == (RunStatus.PARTIAL, "agent.broken")


def test_a_denied_step_is_not_repaired() -> None:
    run = Play(s("a"), s("b"))
    run.step("a", Denied(code="policy.no"))
    assert not run.open(RepairPlan)
    assert run.statuses()["a"] == "denied"


@pytest.mark.parametrize(("repairs", "since"), [(0, REPAIRS_SINCE), (2, REPAIRS_SINCE - 1)])
def test_where_nothing_is_repaired_a_failure_is_one(repairs: int, since: int) -> None:
    run = Play(s("a"), s("b"), repairs=repairs, version=since)
    run.step("a", BROKEN)
    assert not run.open(RepairPlan)
    assert run.statuses()["a"] == "failed"


def test_failures_are_repaired_one_after_another_while_there_are_repairs_left() -> None:
    run = Play(s("a"), s("b"), s("c"), s("d"), repairs=2)
    run.step("a", BROKEN)
    run.step("b", BROKEN)
    run.step("c", BROKEN)
    assert run.open(RepairPlan) == ["a"]
    run.run_call(version(s("b"), s("c"), s("d"), s("a2")))
    assert run.open(RepairPlan) == ["b"]
    run.run_call(version(s("c"), s("d"), s("a2"), s("b2")))
    assert run.statuses()["c"] == "failed"
    assert not run.open(RepairPlan)
    for step in ("d", "a2", "b2"):
        run.step(step)
    run.run_call(Done())
    assert run.state.ending == (RunStatus.PARTIAL, "agent.broken")


def test_a_map_that_runs_while_the_plan_changes_keeps_its_parts() -> None:
    run = Play(s("a"), s("each", kind="map"))
    run.step("each", Expanded(item_count=150))
    parts = [command for command in run.issued if isinstance(command, RunMapPart)]
    assert len(parts) == 2
    run.step("a", BROKEN)
    run.run_call(version(s("each", kind="map"), s("more"), s("another", 0, kind="map")))
    for part in parts:
        run.tell(StepAnswered(part, Succeeded(item_count=part.count), run.now))
    assert [c.step for c in run.issued if type(c).__name__ == "CollectMap"] == [1]


def test_a_cap_goes_on_counting_and_a_new_one_begins_at_nothing() -> None:
    run = Play(s("a"), s("b", cap=2), s("c", cap=1), caps=(9, 1))
    run.step("a", BROKEN)
    new = Skeleton(
        (s("b", cap=1), s("c", cap=3), s("b2", cap=1), s("d", cap=2), s("d2", cap=2)), 8, "1" * 64, (1, 1, 9)
    )
    run.run_call(Planned(compile_graph(new)))
    assert run.open() == ["b", "c", "d"]
    run.step("b")
    assert run.open() == ["c", "d", "b2"]
    run.step("d")
    assert run.open() == ["c", "b2", "d2"]


def test_an_undoable_step_that_was_replaced_is_undone_when_the_run_comes_to_nothing() -> None:
    run = Play(s("a", undo=True), s("b"))
    run.step("a", BROKEN)
    run.step("b", Denied(code="policy.no"))
    run.run_call(version(s("b"), s("a2")))
    run.step("a2", Failed(code="agent.worse"))
    run.run_call(Refused(RunStatus.FAILED, "plan.unplannable"))
    assert run.open(UndoStep) == ["a"]
    run.run_call(Done())
    assert [c.status for c in run.issued if isinstance(c, FinishRun)] == [RunStatus.FAILED]


def test_a_new_step_that_needs_something_lost_is_skipped() -> None:
    run = Play(SkeletonStep("lost", max_attempts=1), s("a"))
    run.step("lost", Failed(code="agent.gone"))
    run.step("a", BROKEN)
    run.run_call(
        version(
            SkeletonStep("lost", max_attempts=1),
            s("needy", 0),
            s("behind", 1),
            s("tolerant", 0, tolerates=(0,)),
        )
    )
    assert run.statuses() == {
        "lost": "failed",
        "a": "failed",
        "needy": "skipped",
        "behind": "skipped",
        "tolerant": "running",
    }


def test_a_cancel_waits_for_the_planner_as_long_as_for_any_call() -> None:
    run = Play(s("a"), s("after", 0))
    run.step("a", BROKEN)
    run.tell(CancelRequested(run.now))
    assert run.state.status is RunStatus.CANCELLING
    assert run.statuses() == {"a": "failed", "after": "cancelled"}
    assert not run.state.is_over
    run.run_call(version(s("b")))
    assert run.statuses() == {"a": "failed", "after": "cancelled"}
    assert [c.status for c in run.issued if isinstance(c, FinishRun)] == [RunStatus.CANCELLED]

    late = Play(s("a"))
    late.step("a", BROKEN)
    late.tell(CancelRequested(late.now))
    late.now += CANCEL_GRACE
    late.tell(Tick(late.now))
    assert [c.status for c in late.issued if isinstance(c, FinishRun)] == [RunStatus.CANCELLED]


def test_the_deadline_ends_a_repair_too() -> None:
    run = Play(s("done"), s("a"), s("after", 1))
    run.step("done")
    run.step("a", BROKEN)
    run.now = DEADLINE_AT
    run.tell(Tick(run.now))
    repair = next(c for c in run.issued if isinstance(c, RepairPlan))
    before = run.state
    assert evolve(before, RunAnswered(repair, version(s("done"), s("b")), run.now)) == before
    compose = next(c for c in run.issued if isinstance(c, ComposeAnswer))
    run.tell(RunAnswered(compose, Done(), run.now))
    assert run.state.ending is not None
    assert run.state.ending[0] is RunStatus.PARTIAL


def test_a_repair_that_waits_for_a_person_holds_nothing_else_up() -> None:
    run = Play(s("a"), s("b"), s("after_b", 1))
    run.step("a", BROKEN)
    run.run_call(Held("ap-1", (START_AT + timedelta(minutes=30)).isoformat()))
    assert Listen(approval_event("ap-1")) in run.issued
    assert run.state.status is RunStatus.RUNNING
    run.step("b")
    run.step("after_b")
    looks = [c for c in run.issued if isinstance(c, RepairPlan)]
    assert [(c.number, c.attempt, c.look) for c in looks] == [(1, 1, 1)]  # so that the store learns who waits
    run.run_call(Held("ap-1", (START_AT + timedelta(minutes=30)).isoformat()))
    assert run.state.status is RunStatus.AWAITING_APPROVAL
    run.tell(Announced(approval_event("ap-1"), run.now))
    run.run_call(version(s("b"), s("after_b", 0), s("a2")))
    assert run.open() == ["a2"]


def test_a_planner_that_cannot_be_reached_is_asked_again_while_others_run() -> None:
    run = Play(s("a"), s("b"))
    run.step("a", BROKEN)
    run.run_call(Broken("store.unavailable", retryable=True))
    assert not run.open(RepairPlan)
    run.now += timedelta(minutes=1)
    run.tell(Tick(run.now))
    assert [c.attempt for c in run.issued if isinstance(c, RepairPlan)] == [2]
