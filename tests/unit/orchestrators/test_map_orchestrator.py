"""Maps: parts as sub-orchestrations, caps over items, one bad item, cancel and deadline inside a part."""

from __future__ import annotations

from typing import Any

import pytest

from engine.domain.skeleton import Skeleton, SkeletonStep
from tests.unit.orchestrators.test_run_orchestrator import OK, REF, Perform, started, world_of
from tests.unit.orchestrators.world import Call, World


def map_world(items: int, perform: Perform, *, max_parallel: int = 32, collect: Any = OK, **fields: Any) -> World:
    skeleton = Skeleton(
        steps=(SkeletonStep("m", kind="map", **fields), SkeletonStep("after", needs=(0,))),
        max_parallel=max_parallel,
        plan_hash="0" * 64,
    )
    return world_of(
        skeleton,
        perform,
        expand_map=(0.1, {"status": "expanded", "item_count": items}),
        collect_map=(0.1, collect),
    )


def most_at_once(calls: list[Call]) -> int:
    edges = [(call.started_at, 1) for call in calls] + [
        (call.ended_at, -1) for call in calls if call.ended_at is not None
    ]
    level = most = 0
    for _, change in sorted(edges):
        level += change
        most = max(most, level)
    return most


@pytest.mark.parametrize("items", [0, 1, 100, 101, 210])
def test_every_item_runs_once_in_parts_of_at_most_a_hundred_and_then_is_collected(items: int) -> None:
    world = map_world(items, lambda value: (1.0, OK), concurrency=20)
    run = world.run("run-1")
    done = [value["item"] for value in started(world) if value["step_id"] == "m"]
    assert sorted(done) == list(range(items))
    parts = [instance for name, instance in world.instances.items() if name != "run-1"]
    assert all(part.input["count"] <= 100 for part in parts)
    assert started(world, "collect_map") == [
        {"tenant_id": "contoso", "run_id": "run-1", "step_id": "m", "attempt": 1, "item_count": items}
    ]
    assert run.output["status"] == "succeeded"


@pytest.mark.parametrize(("concurrency", "max_parallel"), [(1, 32), (7, 32), (20, 5), (500, 500)])
def test_items_of_one_map_stay_within_its_cap_and_that_of_the_run(concurrency: int, max_parallel: int) -> None:
    world = map_world(
        110, lambda value: (1.0 + value.get("item", 0) % 3, OK), concurrency=concurrency, max_parallel=max_parallel
    )
    assert world.run("run-1").output["status"] == "succeeded"
    items = [call for call in world.calls if "item" in call.input]
    assert most_at_once(items) <= min(concurrency, max_parallel, 64)


def test_an_item_is_tried_again_by_the_rules_of_its_step() -> None:
    busy = {"status": "failed", "code": "agent.busy", "retryable": True}
    world = map_world(3, lambda value: (1.0, busy if value.get("item") == 1 and value["attempt"] < 3 else OK))
    assert world.run("run-1").output["status"] == "succeeded"
    assert [value["attempt"] for value in started(world) if value.get("item") == 1] == [1, 2, 3]


@pytest.mark.parametrize(
    ("outcome", "on_failure", "expected"),
    [
        ({"status": "failed", "code": "agent.broken"}, "fail", {"failed": ["m"], "skipped": ["after"]}),
        ({"status": "failed", "code": "agent.broken"}, "skip", {"succeeded": ["m", "after"]}),
        ({"status": "denied", "code": "policy.forbidden"}, "skip", {"denied": ["m"], "skipped": ["after"]}),
    ],
)
def test_one_bad_item_decides_the_step_unless_failures_are_skipped(
    outcome: Any, on_failure: Any, expected: Any
) -> None:
    def perform(value: dict[str, Any]) -> tuple[float, Any]:
        return 1.0, outcome if value.get("item") == 5 else OK

    collect = {"status": "failed", "code": "step.items_failed"} if on_failure == "fail" else OK
    world = map_world(210, perform, collect=collect, on_failure=on_failure, concurrency=10)
    world.run("run-1")
    assert started(world, "finish_run")[0]["steps"] == expected
    assert len(started(world, "collect_map")) == (0 if "denied" in expected else 1)
    if on_failure == "fail":
        assert len([value for value in started(world) if value["step_id"] == "m"]) < 210, "it went on after the failure"


def test_an_item_that_finds_its_run_cancelled_stops_its_part_and_the_run() -> None:
    world = map_world(
        100, lambda value: (1.0, {"status": "cancelled"} if value.get("item", 0) >= 10 else OK), concurrency=5
    )
    run = world.run("run-1")
    assert run.output["status"] == "cancelled"
    assert len(started(world)) < 20
    assert started(world, "collect_map") == []


def test_a_part_stops_at_the_deadline_of_the_run() -> None:
    world = map_world(100, lambda value: (1_000.0, OK), concurrency=5)
    while not started(world, "finish_run"):
        world.step()
    assert started(world, "finish_run")[0]["code"] == "run.deadline"
    part = world.instances["run-1.map-0-0"]
    while not part.returned:
        world.step()
    assert part.output == {"status": "cancelled", "code": "run.deadline"}
    assert world.now.isoformat() < REF["deadline_at"].replace("00.000000Z", "05")
