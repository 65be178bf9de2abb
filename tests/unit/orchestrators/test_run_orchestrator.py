"""The run orchestrator through the real SDK: what a run costs, survives and never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.domain.skeleton import Skeleton, SkeletonStep, to_wire
from orchestrators.map_orchestrator import map_orchestrator
from orchestrators.run_orchestrator import run_orchestrator
from tests.unit.orchestrators.world import START_AT, World

REF = {"tenant_id": "contoso", "run_id": "run-1", "deadline_at": "2026-01-01T01:00:00.000000Z"}
Perform = Callable[[dict[str, Any]], tuple[float, Any]]
OK = {"status": "succeeded"}


def steps_of(*names: str, **by_name: Any) -> Skeleton:
    """``"c:a,b"`` is a step c that needs a and b; keyword arguments add fields to the step of that name."""
    ids = [name.split(":")[0] for name in names]
    built = []
    for name in names:
        step_id, _, needs = name.partition(":")
        indexes = tuple(ids.index(need) for need in needs.split(",") if need)
        built.append(SkeletonStep(step_id, needs=indexes, **by_name.get(step_id, {})))
    return Skeleton(steps=tuple(built), max_parallel=16, plan_hash="0" * 64)


def activities(
    skeleton: Skeleton, perform: Perform, **others: Any
) -> Callable[[str, dict[str, Any]], tuple[float, Any]]:
    def activity(name: str, value: dict[str, Any]) -> tuple[float, Any]:
        if name in others:
            answer = others[name]
            return answer(value) if callable(answer) else answer
        match name:
            case "plan_run":
                return 0.1, {"status": "planned", "skeleton": to_wire(skeleton)}
            case "perform_step":
                return perform(value)
            case "compose_answer":
                return 0.1, {"status": "composed"}
            case _:
                return 0.1, {}

    return activity


def world_of(skeleton: Skeleton, perform: Perform, *, faithful: bool = True, **others: Any) -> World:
    orchestrators = {"run_orchestrator": run_orchestrator, "map_orchestrator": map_orchestrator}
    world = World(orchestrators, activities(skeleton, perform, **others), faithful=faithful)
    world.start("run_orchestrator", "run-1", REF)
    return world


def took(seconds: float, outcome: Any = None) -> Perform:
    return lambda value: (seconds, outcome or OK)


def started(world: World, name: str = "perform_step") -> list[dict[str, Any]]:
    return [call.input for call in world.calls if call.name == name]


def test_a_run_plans_performs_composes_and_records_in_that_order() -> None:
    world = world_of(steps_of("a", "b:a"), took(1))
    run = world.run("run-1")
    assert [call.name for call in world.calls] == [
        "plan_run",
        "perform_step",
        "perform_step",
        "compose_answer",
        "finish_run",
    ]
    assert run.output == {"status": "succeeded", "code": None, "recorded": True}
    assert run.status == {"status": "succeeded", "done": 2, "total": 2}


def test_a_slow_step_does_not_delay_an_unrelated_chain_under_faithful_scheduling() -> None:
    chain = ["c0", *(f"c{i}:c{i - 1}" for i in range(1, 10))]
    world = world_of(steps_of("slow", *chain), lambda value: (10.0 if value["step_id"] == "slow" else 1.0, OK))
    run = world.run("run-1")
    assert run.done_at is not None
    assert (run.done_at - START_AT).total_seconds() == pytest.approx(10.3, abs=0.01)


def test_durable_actions_of_a_run_of_twenty_steps_stay_within_one_plus_two_n_plus_six() -> None:
    names = ["s0", *(f"s{i}:s{(i - 1) // 2}" for i in range(1, 20))]
    world = world_of(steps_of(*names), took(1))
    run = world.run("run-1")
    leaves = [leaf for action in run.actions for leaf in action.get("compoundActions", [action])]
    work = sum(leaf["actionType"] in (0, 2) for leaf in leaves)
    live_timers = sum(leaf["actionType"] == 5 and not leaf["isCanceled"] for leaf in leaves)
    # Dispatched messages: the start, two for each call, one for each timer that fires.
    assert 1 + 2 * work + live_timers <= 1 + 2 * 20 + 6


def test_no_action_of_the_sdk_retries_by_itself() -> None:
    skeleton = steps_of("a", a={"max_attempts": 3, "backoff_s": 1.0})
    failing = {"status": "failed", "code": "agent.busy", "retryable": True}
    run = world_of(skeleton, lambda value: (0.1, failing if value["attempt"] < 3 else OK)).run("run-1")
    leaves = [leaf for action in run.actions for leaf in action.get("compoundActions", [action])]
    assert {leaf["actionType"] for leaf in leaves} == {0, 5, 6}
    assert run.output["status"] == "succeeded"


def test_the_nudge_is_cancelled_last_past_the_deadline_and_only_beside_older_tasks() -> None:
    skeleton = steps_of("a", "b", "c:a")
    run = world_of(skeleton, lambda value: (5.0 if value["step_id"] == "b" else 1.0, OK)).run("run-1")
    first, *later = [action["compoundActions"] for action in run.actions]
    assert [leaf["actionType"] for leaf in first] == [6, 0, 5]  # nothing older: no nudge
    for listing in later:
        *fresh, nudge = listing
        assert nudge["actionType"] == 5
        assert nudge["isCanceled"] is True
        assert REF["deadline_at"] < nudge["fireAt"] <= "2026-01-06T00:00:00.000000Z"
        assert fresh


def test_a_nudge_that_fires_and_wins_changes_nothing() -> None:
    skeleton = steps_of("a", a={"kind": "wait"})
    waiting = {"status": "waiting", "until_at": "2026-01-20T00:00:00Z"}
    answers = iter([waiting, OK])
    ref = REF | {"deadline_at": "2026-02-01T00:00:00Z"}
    world = World({"run_orchestrator": run_orchestrator}, activities(skeleton, lambda value: (1.0, next(answers))))
    world.start("run_orchestrator", "run-1", ref)
    run = world.run("run-1")
    nudges = [leaf for action in run.actions[1:] for leaf in action["compoundActions"] if leaf["actionType"] == 5]
    assert any(nudge["isCanceled"] and nudge["fireAt"] < "2026-01-20" for nudge in nudges), "no nudge fired in time"
    assert run.output["status"] == "succeeded"


def test_a_nudge_that_wins_the_current_wait_is_ignored() -> None:
    # At the deadline the hung step is written off and finishing begins; an hour later the nudge beside it fires first.
    world = world_of(steps_of("a"), took(100_000), finish_run=(7_200.0, {}))
    run = world.run("run-1")
    wins = [
        event for event in run.history if event["EventType"] == 11 and event["FireAt"].startswith("2026-01-01T02:00:00")
    ]
    assert len(wins) >= 1, "the nudge did not fire while finishing was under way"
    assert len(started(world, "finish_run")) == 1
    assert run.output == {"status": "failed", "code": "run.deadline", "recorded": True}


def test_a_replaced_wake_up_does_not_keep_the_finished_instance_alive() -> None:
    failing = {"status": "failed", "code": "agent.busy", "retryable": True}
    run = world_of(steps_of("a"), lambda value: (0.1, failing if value["attempt"] < 3 else OK)).run("run-1")
    assert run.done_at is not None
    assert (run.done_at - START_AT).total_seconds() < 10


def test_a_sleep_of_weeks_takes_timers_of_at_most_five_days() -> None:
    skeleton = steps_of("a", a={"kind": "wait"})
    answers = iter([{"status": "waiting", "until_at": "2026-01-20T00:00:00Z"}, OK])
    world = World({"run_orchestrator": run_orchestrator}, activities(skeleton, lambda value: (1.0, next(answers))))
    world.start("run_orchestrator", "run-1", REF | {"deadline_at": "2026-02-01T00:00:00Z"})
    run = world.run("run-1")
    created = [event for event in run.history if event["EventType"] == 10]
    fired = [event["FireAt"] for event in run.history if event["EventType"] == 11]
    assert len(created) < 20
    assert fired[0] == "2026-01-06T00:00:00.000000Z"
    assert [call["attempt"] for call in started(world)] == [1, 1]


def test_a_cancel_starts_nothing_more_and_the_open_step_finishes() -> None:
    world = world_of(steps_of("a", "b:a"), took(10))
    world.raise_event("run-1", "cancel", 5)
    run = world.run("run-1")
    assert [value["step_id"] for value in started(world)] == ["a"]
    assert run.output == {"status": "cancelled", "code": "run.cancelled", "recorded": True}
    assert started(world, "finish_run")[0]["steps"] == {"succeeded": ["a"], "cancelled": ["b"]}
    assert {"status": "cancelling", "done": 1, "total": 2} in run.statuses


def test_a_second_cancel_is_harmless() -> None:
    world = world_of(steps_of("a"), took(10))
    world.raise_event("run-1", "cancel", 5)
    world.raise_event("run-1", "cancel", 6)
    assert world.run("run-1").output["status"] == "cancelled"


def test_a_step_that_never_returns_does_not_keep_a_cancelled_run_from_being_recorded() -> None:
    world = world_of(steps_of("a"), took(100_000))
    world.raise_event("run-1", "cancel", 5)
    while not started(world, "finish_run"):
        world.step()
    assert (world.now - START_AT).total_seconds() == pytest.approx(35)
    assert started(world, "finish_run")[0]["steps"] == {"cancelled": ["a"]}


def test_at_the_deadline_open_steps_are_written_off_and_what_was_finished_is_answered() -> None:
    world = world_of(steps_of("a", "b"), lambda value: (10_000 if value["step_id"] == "b" else 1, OK))
    while not started(world, "finish_run"):
        world.step()
    finish = started(world, "finish_run")[0]
    assert (finish["status"], finish["code"]) == ("partial", "run.deadline")
    assert finish["steps"] == {"succeeded": ["a"], "cancelled": ["b"]}
    assert world.now.isoformat() < "2026-01-01T01:00:01"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"status": "rejected", "code": "plan.cycle"}, "failed", "plan.cycle"),
        ({"status": "denied", "code": "policy.forbidden"}, "denied", "policy.forbidden"),
        ({"status": "failed", "code": "plan.no_capability"}, "failed", "plan.no_capability"),
        ({"status": "planned", "skeleton": {"s": [{"i": "a", "n": [0]}]}}, "failed", "plan.malformed_skeleton"),
        ("nonsense", "failed", "run.malformed_outcome"),
    ],
)
def test_a_run_without_a_plan_performs_nothing(answer: Any, status: str, code: str) -> None:
    world = world_of(steps_of("a"), took(1), plan_run=(0.1, answer))
    run = world.run("run-1")
    assert [call.name for call in world.calls] == ["plan_run", "finish_run"]
    assert run.output == {"status": status, "code": code, "recorded": True}


def test_a_run_that_is_started_after_its_deadline_is_recorded_as_failed_and_plans_nothing() -> None:
    world = World({"run_orchestrator": run_orchestrator}, activities(steps_of("a"), took(1)))
    world.start("run_orchestrator", "run-1", REF | {"deadline_at": "2025-12-31T23:00:00Z"})
    assert world.run("run-1").output == {"status": "failed", "code": "run.deadline", "recorded": True}
    assert [call.name for call in world.calls] == ["finish_run"]


def test_activities_that_raise_are_repeated_with_backoff() -> None:
    crashes = {"plan_run": 2, "compose_answer": 1, "finish_run": 3}

    def crash_first(name: str, answer: Any) -> Callable[[dict[str, Any]], tuple[float, Any]]:
        return lambda value: (0.1, RuntimeError("boom") if value["attempt"] <= crashes[name] else answer)

    skeleton = steps_of("a", "b:a")
    world = world_of(
        skeleton,
        lambda value: (0.1, RuntimeError("boom") if value["attempt"] == 1 else OK),
        plan_run=crash_first("plan_run", {"status": "planned", "skeleton": to_wire(skeleton)}),
        compose_answer=crash_first("compose_answer", {"status": "composed"}),
        finish_run=crash_first("finish_run", {}),
    )
    run = world.run("run-1")
    assert run.output == {"status": "succeeded", "code": None, "recorded": True}
    assert len(started(world, "finish_run")) == 4


def test_a_run_whose_end_cannot_be_recorded_says_so() -> None:
    run = world_of(steps_of("a"), took(1), finish_run=(0.1, RuntimeError("store down"))).run("run-1")
    assert run.output == {"status": "succeeded", "code": None, "recorded": False}


def test_inputs_of_activities_hold_ids_and_counts_only() -> None:
    skeleton = steps_of("a", "m:a", m={"kind": "map"})
    others = {"expand_map": (0.1, {"status": "expanded", "item_count": 2}), "collect_map": (0.1, OK)}
    world = world_of(skeleton, took(1), **others)
    assert world.run("run-1").output["status"] == "succeeded"
    known = {"tenant_id", "run_id", "step_id", "attempt", "item", "item_count", "status", "code", "steps", "codes"}
    assert {field for call in world.calls for field in call.input} <= known


@pytest.mark.parametrize(
    "value", [None, {}, {"tenant_id": "t", "run_id": "r"}, {**REF, "deadline_at": "2026-01-01T00:00:00"}]
)
def test_an_unusable_input_fails_the_instance_without_calling_anything(value: Any) -> None:
    world = World({"run_orchestrator": run_orchestrator}, activities(steps_of("a"), took(1)))
    world.start("run_orchestrator", "run-1", value)
    run = world.run("run-1")
    assert run.error is not None
    assert world.calls == []
