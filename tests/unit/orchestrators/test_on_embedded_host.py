"""The orchestrators on the embedded host: faithful walking, strict numbering, replay checks, warm and cold, in virtual time."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.domain.skeleton import Skeleton, SkeletonStep, to_wire
from orchestrators.map_orchestrator import map_orchestrator
from orchestrators.run_orchestrator import run_orchestrator
from tests.unit.local_host.durable_app import START_AT, Bench, PlainApp, running
from tests.unit.orchestrators.test_run_orchestrator import OK, REF, steps_of

PERFORMED = "perform_step"


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class RunApp(PlainApp):
    """The orchestrators with activities that nap in virtual time and answer as told."""

    def __init__(self, skeleton: Skeleton, seconds: Any, outcome: Any = None) -> None:
        super().__init__()
        self.bench: Bench | None = None
        self.started_s: dict[str, float] = {}
        self.orchestration(run_orchestrator)
        self.orchestration(map_orchestrator)

        @self.activity
        def plan_run(value: Any) -> Any:
            return {"status": "planned", "skeleton": to_wire(skeleton)}

        @self.activity
        async def perform_step(value: Any) -> Any:
            assert self.bench is not None
            self.started_s.setdefault(value["step_id"], (self.bench.clock.now() - START_AT).total_seconds())
            await self.bench.clock.sleep_s(seconds(value))
            return outcome(value) if outcome is not None else OK

        @self.activity
        def expand_map(value: Any) -> Any:
            return {"status": "expanded", "item_count": 105}

        @self.activity
        def collect_map(value: Any) -> Any:
            return OK

        @self.activity
        def compose_answer(value: Any) -> Any:
            return {"status": "composed"}

        @self.activity
        def finish_run(value: Any) -> Any:
            return {}

    def performed(self) -> Counter[tuple[Any, ...]]:
        return Counter((v["step_id"], v["attempt"], v.get("item")) for name, v in self.calls if name == PERFORMED)


def random_skeleton(seed: int, count: int = 16) -> Skeleton:
    chooser = random.Random(seed)
    steps = []
    for index in range(count):
        needs = tuple(sorted(chooser.sample(range(index), k=min(index, chooser.randrange(3)))))
        kind: Any = "map" if index == count // 2 else "call"
        steps.append(SkeletonStep(f"s{index}", needs=needs, kind=kind, max_attempts=3, backoff_s=2.0, concurrency=9))
    return Skeleton(tuple(steps), 16, "0" * 64)


def flaky(value: dict[str, Any]) -> Any:
    key = f"{value['step_id']}/{value.get('item')}"
    if value["attempt"] == 1 and random.Random(key).random() < 0.25:
        return {"status": "failed", "code": "agent.busy", "retryable": True}
    return OK


@pytest.mark.parametrize("max_batch", [None, 1])
async def test_random_graphs_with_retries_and_maps_end_well_under_strict_numbering(
    tmp_path: Path, warm: bool, max_batch: int | None
) -> None:
    app = RunApp(random_skeleton(7), lambda value: random.Random(value["step_id"]).uniform(1, 30), flaky)
    async with running(app, tmp_path, warm=warm, max_batch=max_batch) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", REF, "run-1")
        item = await bench.run_to_end("run-1", max_alarms=5_000)
    assert json.loads(item.output) == {"status": "succeeded", "code": None, "recorded": True}
    assert set(app.performed().values()) == {1}


async def test_a_chain_beside_a_slow_step_starts_each_step_when_it_is_ready(tmp_path: Path, warm: bool) -> None:
    skeleton = steps_of("slow", "c0", *(f"c{i}:c{i - 1}" for i in range(1, 6)), "late:slow")
    app = RunApp(skeleton, lambda value: 20.0 if value["step_id"] == "slow" else 1.0)
    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        await bench.run("run_orchestrator", REF, instance_id="run-1")
    assert [app.started_s[f"c{i}"] for i in range(6)] == [0, 1, 2, 3, 4, 5]
    assert app.started_s["late"] == 20.0


async def test_a_cancel_reaches_a_run_and_ends_it_with_what_it_has(tmp_path: Path, warm: bool) -> None:
    app = RunApp(steps_of("a", "b:a", "c:b"), lambda value: 10.0)
    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", REF, "run-1")
        await bench.settle()
        bench.clock.advance_s(15)
        await bench.settle()
        await bench.engine.raise_event("run-1", "cancel", json.dumps("null"))
        item = await bench.run_to_end("run-1")
    assert json.loads(item.output) == {"status": "cancelled", "code": "run.cancelled", "recorded": True}
    assert [step for step, _, _ in app.performed()] == ["a", "b"]


async def test_a_run_goes_on_after_its_host_died_and_repeats_no_finished_step(tmp_path: Path, warm: bool) -> None:
    skeleton = steps_of("a", "b:a", "c:b", "d")
    seconds = {"a": 10.0, "b": 10.0, "c": 10.0, "d": 100.0}
    first = RunApp(skeleton, lambda value: seconds[value["step_id"]])
    async with running(first, tmp_path, warm=warm) as bench:
        first.bench = bench
        await bench.start("run_orchestrator", REF, "run-1")
        await bench.settle()
        bench.clock.advance_s(15)
        await bench.settle()
        clock = bench.clock
    second = RunApp(skeleton, lambda value: seconds[value["step_id"]])
    async with running(second, tmp_path, clock, warm=warm) as bench:
        second.bench = bench
        item = await bench.run_to_end("run-1")
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(first.performed()) == {("a", 1, None), ("b", 1, None), ("d", 1, None)}
    assert set(second.performed()) == {("b", 1, None), ("c", 1, None), ("d", 1, None)}


async def test_nothing_of_a_step_but_its_id_and_counts_stands_in_durable_history(tmp_path: Path) -> None:
    app = RunApp(steps_of("a", "b:a"), lambda value: 1.0)
    async with running(app, tmp_path) as bench:
        app.bench = bench
        await bench.run("run_orchestrator", REF, instance_id="run-1")
        snapshot = await bench.engine.status("run-1", with_history=True)
    assert snapshot is not None
    assert snapshot.events is not None
    assert sum(len(repr(event)) for event in snapshot.events) < 12_000
