"""Runs that go on in fresh histories, on the embedded host: no step lost, none repeated, no history without bound."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from activities import apart
from engine.domain.skeleton import Skeleton, SkeletonStep
from orchestrators.step_orchestrator import step_orchestrator
from tests.support.durable_client import EngineClient
from tests.unit.local_host.durable_app import running
from tests.unit.orchestrators.test_on_embedded_host import RunApp, flaky, random_skeleton
from tests.unit.orchestrators.test_run_orchestrator import REF

V4 = REF | {"v": 4, "deadline_at": "2026-01-03T00:00:00.000000Z"}


class RollingApp(RunApp):
    """The orchestrators with the activities of handing on as they are, on the engine under test."""

    def __init__(self, skeleton: Skeleton, seconds: Any, outcome: Any = None) -> None:
        super().__init__(skeleton, seconds, outcome)
        self.rows: list[int] = []
        self.orchestration(step_orchestrator)

        @self.activity
        async def start_steps(value: Any) -> Any:
            assert self.bench is not None
            return await apart.start_steps(value, EngineClient(self.bench.engine))

        @self.activity
        async def tell_outcome(value: Any) -> Any:
            assert self.bench is not None
            return await apart.tell_outcome(value, EngineClient(self.bench.engine))

        @self.activity
        async def checkpoint_run(value: Any) -> Any:
            assert self.bench is not None
            snapshot = await self.bench.engine.status(value["run_id"], with_history=True)
            assert snapshot is not None
            assert snapshot.events is not None
            self.rows.append(len(snapshot.events))
            return await apart.checkpoint_run(value)

    def count(self, name: str) -> int:
        return sum(each == name for each, _ in self.calls)


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def layers(count: int, width: int, **fields: Any) -> Skeleton:
    steps = [
        SkeletonStep(f"s{index}", needs=(index - width,) if index >= width else (), **fields) for index in range(count)
    ]
    return Skeleton(tuple(steps), 64, "0" * 64)


async def play(app: RollingApp, path: Path, *, roll_after: int, warm: bool, **options: Any) -> Any:
    async with running(app, path, warm=warm, **options) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", V4 | {"roll_after": roll_after}, "run-1")
        return await bench.run_to_end("run-1", max_alarms=20_000)


@pytest.mark.parametrize("max_batch", [None, 1])
@pytest.mark.parametrize("seed", range(3))
async def test_random_graphs_with_retries_and_maps_end_well_over_many_histories(
    tmp_path: Path, warm: bool, max_batch: int | None, seed: int
) -> None:
    app = RollingApp(random_skeleton(seed), lambda value: random.Random(value["step_id"]).uniform(1, 30), flaky)
    item = await play(app, tmp_path, roll_after=3, warm=warm, max_batch=max_batch)
    assert item.status == "Completed", item.output
    assert json.loads(item.output) == {"status": "succeeded", "code": None, "recorded": True}
    assert set(app.performed().values()) == {1}
    assert app.count("checkpoint_run") >= 3
    assert app.count("start_steps") >= 1


async def test_a_wide_plan_of_many_steps_keeps_every_history_bounded_and_wastes_no_time(tmp_path: Path) -> None:
    app = RollingApp(layers(600, 20), lambda value: 1.0)
    async with running(app, tmp_path) as bench:
        app.bench = bench
        begun_at = bench.clock.now()
        await bench.start("run_orchestrator", V4, "run-1")
        item = await bench.run_to_end("run-1", max_alarms=20_000)
        took_s = (bench.clock.now() - begun_at).total_seconds()
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(app.performed().values()) == {1}
    assert app.count("checkpoint_run") >= 4
    assert max(app.rows) < 900
    assert took_s == pytest.approx(30.0, abs=0.5)


@pytest.mark.parametrize("count", [1, 20, 100])
async def test_plans_up_to_a_hundred_steps_stay_in_one_history(tmp_path: Path, count: int) -> None:
    app = RollingApp(layers(count, 10), lambda value: 1.0)
    item = await play(app, tmp_path, roll_after=100, warm=True)
    assert json.loads(item.output)["status"] == "succeeded"
    assert app.count("checkpoint_run") == 0
    assert app.count("start_steps") == 0
