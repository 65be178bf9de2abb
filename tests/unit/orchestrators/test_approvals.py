"""Waiting for people in durable orchestrations, walked as Azure walks them: prompt, holding nothing up, never for ever."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.skeleton import to_wire
from tests.unit.orchestrators.test_run_orchestrator import OK, REF, started, steps_of, world_of
from tests.unit.orchestrators.world import START_AT, World

EXPIRES_AT = "2026-01-01T00:40:00.000000Z"


class Desk:
    """What the stores know of answers: ``decided_s`` is when a step's answer is written, in seconds from the start."""

    def __init__(self, **decided_s: float) -> None:
        self.decided_s = decided_s
        self.world: World | None = None

    def perform(self, value: dict[str, Any]) -> tuple[float, Any]:
        assert self.world is not None
        key = value["step_id"] + (f".{value['item']}" if "item" in value else "")
        at_s = (self.world.now - START_AT).total_seconds()
        if key in self.decided_s and at_s < self.decided_s[key]:
            if at_s >= 2400:
                return 0.1, {"status": "denied", "code": "approval.expired"}
            return 0.1, {"status": "awaiting_approval", "approval_id": f"ap-{key}", "expires_at": EXPIRES_AT}
        return 1.0, OK

    def open(self, skeleton: Any, **more: Any) -> World:
        self.world = world_of(skeleton, self.perform, **more)
        return self.world

    def tell(self, key: str, after_s: float, instance_id: str = "run-1") -> None:
        assert self.world is not None
        self.world.raise_event(instance_id, f"approval.ap-{key}", after_s)


def times(world: World, step_id: str) -> list[float]:
    return [(c.started_at - START_AT).total_seconds() for c in world.calls if c.input.get("step_id") == step_id]


@pytest.mark.parametrize("faithful", [True, False])
def test_a_step_goes_on_as_soon_as_its_answer_is_announced(faithful: bool) -> None:
    desk = Desk(a=100)
    world = desk.open(steps_of("a", "b:a", "c", "d:c"), faithful=faithful)
    desk.tell("a", 100)
    run = world.run("run-1")
    assert run.output["status"] == "succeeded"
    assert max(times(world, "a")) == pytest.approx(100, abs=1)
    assert max(times(world, "d")) < 10, "an unrelated branch waited"
    assert {"status": "awaiting_approval", "done": 2, "total": 4} in run.statuses


def test_an_answer_that_comes_before_anybody_listens_is_heard() -> None:
    desk = Desk(a=0.15)
    world = desk.open(steps_of("a"))
    desk.tell("a", 0.15)
    world.run("run-1")
    assert max(times(world, "a")) < 2


def test_several_answers_at_one_moment_are_all_heard() -> None:
    desk = Desk(a=50, b=50, c=50)
    world = desk.open(steps_of("a", "b", "c"))
    for key in ("a", "b", "c"):
        desk.tell(key, 50)
        desk.tell(key, 50)
    world.run("run-1")
    assert all(max(times(world, key)) == pytest.approx(50, abs=1) for key in ("a", "b", "c"))


def test_an_answer_that_nobody_announces_is_found_by_the_watchdog() -> None:
    desk = Desk(a=100)
    world = desk.open(steps_of("a"))
    assert world.run("run-1").output["status"] == "succeeded"
    assert max(times(world, "a")) == pytest.approx(300, abs=2)


def test_an_announcement_without_an_answer_costs_one_look() -> None:
    desk = Desk(a=100)
    world = desk.open(steps_of("a"))
    for after_s in (10, 20):
        desk.tell("a", after_s)
    desk.tell("nobody", 30)
    assert world.run("run-1").output["status"] == "succeeded"
    assert len([at for at in times(world, "a") if at < 100]) <= 3


def test_without_an_answer_the_time_ends_it() -> None:
    desk = Desk(a=10_000)
    world = desk.open(steps_of("a", "b:a"))
    run = world.run("run-1")
    assert (run.output["status"], run.output["code"]) == ("denied", "approval.expired")
    assert max(times(world, "a")) == pytest.approx(2400, abs=2)
    assert not times(world, "b")


def test_a_cancel_ends_the_waiting_at_once() -> None:
    desk = Desk(a=10_000)
    world = desk.open(steps_of("a"))
    world.raise_event("run-1", "cancel", 60)
    run = world.run("run-1")
    assert run.output["status"] == "cancelled"
    assert (world.now - START_AT).total_seconds() < 70


def test_waiting_takes_no_place_from_others() -> None:
    names = [f"w{n}" for n in range(20)]
    desk = Desk(**dict.fromkeys(names, 500.0))
    world = desk.open(steps_of(*names, *(f"s{n}" for n in range(20))))
    for name in names:
        desk.tell(name, 500)
    world.run("run-1")
    assert all(max(times(world, f"s{n}")) < 20 for n in range(20))


@pytest.mark.parametrize(("version", "instance_id"), [(2, "run-1.map-0-0"), (1, None)])
def test_an_item_is_told_where_it_waits_unless_its_run_is_older_than_that(
    version: int, instance_id: str | None
) -> None:
    desk = Desk(**{"m.1": 80})
    skeleton = steps_of("m", m={"kind": "map", "concurrency": 3})
    expanded = (0.1, {"status": "expanded", "item_count": 3})
    desk.world = world = World(*_parts(desk, skeleton, expand_map=expanded, collect_map=(0.1, OK)))
    world.start("run_orchestrator", "run-1", ({"v": version} if version > 1 else {}) | REF)
    desk.tell("m.1", 80, "run-1.map-0-0")
    assert world.run("run-1").output["status"] == "succeeded"
    assert {value.get("waiter") for value in started(world)} == {instance_id}
    assert max(times(world, "m")) == pytest.approx(80, abs=2)


def _parts(desk: Desk, skeleton: Any, **others: Any) -> tuple[Any, Any]:
    from orchestrators.map_orchestrator import map_orchestrator
    from orchestrators.run_orchestrator import run_orchestrator
    from tests.unit.orchestrators.test_run_orchestrator import activities

    bodies = {"run_orchestrator": run_orchestrator, "map_orchestrator": map_orchestrator}
    return bodies, activities(skeleton, desk.perform, **others)


def test_a_plan_waits_and_goes_on_when_its_answer_is_announced() -> None:
    desk = Desk()
    skeleton = steps_of("a")

    def plan_run(value: dict[str, Any]) -> tuple[float, Any]:
        assert desk.world is not None
        if (desk.world.now - START_AT).total_seconds() < 100:
            return 0.1, {"status": "awaiting_approval", "approval_id": "ap-plan", "expires_at": EXPIRES_AT}
        return 0.1, {"status": "planned", "skeleton": to_wire(skeleton)}

    world = desk.open(skeleton, plan_run=plan_run)
    desk.tell("plan", 100)
    run = world.run("run-1")
    assert run.output["status"] == "succeeded"
    assert times(world, "a")[0] == pytest.approx(100, abs=2)
    assert [value["attempt"] for value in started(world, "plan_run")] == [1, 1]
    assert {"status": "awaiting_approval", "done": 0, "total": 0} in run.statuses


def test_a_run_that_the_store_knows_to_be_cancelled_is_not_planned_again() -> None:
    desk = Desk()
    answer = (0.1, {"status": "failed", "code": "run.cancelled", "retryable": True})
    world = desk.open(steps_of("a"), plan_run=answer)
    assert world.run("run-1").output["status"] == "cancelled"
    assert len(started(world, "plan_run")) == 1
