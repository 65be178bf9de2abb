"""Plans that are repaired under a running orchestration, walked as Azure walks them: the activity is asked once, others go on."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from engine.domain.skeleton import Skeleton, to_wire
from orchestrators.map_orchestrator import map_orchestrator
from orchestrators.run_orchestrator import run_orchestrator
from tests.unit.orchestrators.test_run_orchestrator import OK, REF, activities, started, steps_of
from tests.unit.orchestrators.world import START_AT, World

REPAIR = {"on_failure": "repair", "max_attempts": 1}
BROKEN = {"status": "failed", "code": "agent.broken"}
FIRST = dataclasses.replace(steps_of("slow", "a", "b:a", "after:slow", a=REPAIR), repairs=2)
SECOND = steps_of("slow", "after:slow", "a2", "b2:a2,slow")


def world_of(first: Skeleton, answer: Any, *, v: int = 3, planning_s: float = 20.0, faithful: bool = True) -> World:
    def perform(value: dict[str, Any]) -> tuple[float, Any]:
        return (60.0 if value["step_id"] == "slow" else 1.0), (BROKEN if value["step_id"] == "a" else OK)

    def repair(value: dict[str, Any]) -> tuple[float, Any]:
        return planning_s, answer(value) if callable(answer) else answer

    runs = {"run_orchestrator": run_orchestrator, "map_orchestrator": map_orchestrator}
    world = World(runs, activities(first, perform, repair_plan=repair), faithful=faithful)
    world.start("run_orchestrator", "run-1", {**REF, "v": v})
    return world


@pytest.mark.parametrize("faithful", [True, False])
def test_the_new_version_is_run_and_what_was_under_way_is_kept(faithful: bool) -> None:
    world = world_of(FIRST, {"status": "planned", "skeleton": to_wire(SECOND)}, faithful=faithful)
    run = world.run("run-1")
    assert started(world, "repair_plan") == [
        {
            "tenant_id": "contoso",
            "run_id": "run-1",
            "number": 1,
            "step_id": "a",
            "code": "agent.broken",
            "attempt": 1,
        }
    ]
    begun = {call.input["step_id"]: call.started_at for call in world.calls if call.name == "perform_step"}
    assert list(begun) == ["slow", "a", "a2", "after", "b2"]
    assert (begun["a2"] - START_AT).total_seconds() == pytest.approx(21.1, abs=0.5)
    assert begun["after"] - begun["slow"] == timedelta(seconds=60)
    assert run.output == {"status": "succeeded", "code": None, "recorded": True}
    (end,) = started(world, "finish_run")
    assert end["steps"] == {"succeeded": ["slow", "after", "a2", "b2"], "failed": ["a"], "skipped": ["b"]}
    assert run.status == {"status": "succeeded", "done": 6, "total": 6}


def test_without_a_new_version_the_run_ends_partial() -> None:
    run = world_of(FIRST, {"status": "denied", "code": "policy.no"}).run("run-1")
    assert run.output == {"status": "partial", "code": "agent.broken", "recorded": True}


def test_an_instance_of_an_earlier_version_of_its_input_never_asks() -> None:
    world = world_of(FIRST, {"status": "planned", "skeleton": to_wire(SECOND)}, v=2)
    assert world.run("run-1").output["status"] == "partial"
    assert not started(world, "repair_plan")


def test_a_planner_that_crashes_is_asked_again() -> None:
    planned = {"status": "planned", "skeleton": to_wire(SECOND)}
    world = world_of(FIRST, lambda value: RuntimeError("boom") if value["attempt"] < 3 else planned, planning_s=0.1)
    assert world.run("run-1").output["status"] == "succeeded"
    assert [asked["attempt"] for asked in started(world, "repair_plan")] == [1, 2, 3]


def test_an_answer_that_makes_no_sense_is_no_repair() -> None:
    assert world_of(FIRST, "nonsense").run("run-1").output["status"] == "partial"
