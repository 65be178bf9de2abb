"""Runs that go on in fresh histories, on the embedded host: no step lost, none repeated, no history without bound."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities import apart
from engine.domain.skeleton import Skeleton, SkeletonStep
from orchestrators.step_orchestrator import step_orchestrator
from tests.support.durable_client import EngineClient
from tests.unit.local_host.durable_app import START_AT, Bench, running
from tests.unit.orchestrators.test_on_embedded_host import RunApp, flaky, random_skeleton
from tests.unit.orchestrators.test_run_orchestrator import OK, REF

V5 = REF | {"v": 5, "deadline_at": "2026-01-03T00:00:00.000000Z"}


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


async def play(app: RollingApp, path: Path, *, roll_after: int, warm: bool, hold_ms: int = 200, **options: Any) -> Any:
    async with running(app, path, warm=warm, **options) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", V5 | {"roll_after": roll_after, "hold_ms": hold_ms}, "run-1")
        return await bench.run_to_end("run-1", max_alarms=20_000)


@pytest.mark.parametrize("max_batch", [None, 1])
@pytest.mark.parametrize(("seed", "hold_ms"), [(0, 0), (1, 0), (2, 0), (0, 90_000), (2, 9_000)])
async def test_random_graphs_with_retries_and_maps_end_well_over_many_histories(
    tmp_path: Path, warm: bool, max_batch: int | None, seed: int, hold_ms: int
) -> None:
    app = RollingApp(random_skeleton(seed), lambda value: random.Random(value["step_id"]).uniform(1, 30), flaky)
    item = await play(app, tmp_path, roll_after=3, warm=warm, max_batch=max_batch, hold_ms=hold_ms)
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
        await bench.start("run_orchestrator", V5, "run-1")
        item = await bench.run_to_end("run-1", max_alarms=20_000)
        took_s = (bench.clock.now() - begun_at).total_seconds()
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(app.performed().values()) == {1}
    assert app.count("checkpoint_run") >= 4
    assert max(app.rows) < 900
    assert took_s == pytest.approx(30.0, abs=0.5)


def jittered_s(value: Any) -> float:
    return random.Random(value["step_id"]).uniform(0.02, 0.1)


async def seconds_of(app: RollingApp, path: Path, hold_ms: int) -> float:
    """How long a run of it takes, by its clock."""
    async with running(app, path) as bench:
        app.bench = bench
        begun_at = bench.clock.now()
        await bench.start("run_orchestrator", V5 | {"hold_ms": hold_ms}, "run-1")
        item = await bench.run_to_end("run-1", max_alarms=20_000)
        took_s = (bench.clock.now() - begun_at).total_seconds()
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(app.performed().values()) == {1}
    return took_s


async def test_where_all_steps_are_short_none_is_carried_apart_and_little_time_is_lost(tmp_path: Path) -> None:
    app, others = (RollingApp(layers(600, 20, expected_s=0.06), jittered_s) for _ in range(2))
    took_s = await seconds_of(app, tmp_path / "held", 200)
    without_s = await seconds_of(others, tmp_path / "not", 0)
    assert (app.count("start_steps"), app.count("tell_outcome")) == (0, 0)
    assert others.count("start_steps") >= 4
    histories = app.count("checkpoint_run")
    assert histories >= 4
    assert max(app.rows) < min(900, max(others.rows))
    assert took_s - without_s <= 0.1 * histories


async def test_a_step_that_was_expected_to_be_short_holds_others_back_for_a_moment_once_in_a_history(
    tmp_path: Path,
) -> None:
    slow = SkeletonStep("slow", expected_s=0.05)
    app = RollingApp(
        Skeleton((*layers(300, 3, expected_s=0.05).steps, slow), 16, ""),
        lambda value: 60.0 if value["step_id"] == "slow" else 0.05,
    )
    await seconds_of(app, tmp_path, 200)
    assert app.count("start_steps") >= 1
    last_s = max(started_s for step, started_s in app.started_s.items() if step != "slow")
    assert last_s <= 99 * 0.05 + 0.2 + 0.01


async def test_nothing_is_held_back_for_a_step_that_is_expected_to_take_long(tmp_path: Path) -> None:
    slow = SkeletonStep("slow", expected_s=1.6)
    app = RollingApp(
        Skeleton((*layers(300, 3, expected_s=0.05).steps, slow), 16, ""),
        lambda value: 3.0 if value["step_id"] == "slow" else 0.05,
    )
    await seconds_of(app, tmp_path, 200)
    assert app.count("start_steps") >= 1
    assert app.started_s["s298"] == pytest.approx(99 * 0.05, abs=0.01)


@pytest.mark.parametrize("count", [1, 20, 100])
async def test_plans_up_to_a_hundred_steps_stay_in_one_history(tmp_path: Path, count: int) -> None:
    app = RollingApp(layers(count, 10), lambda value: 1.0)
    item = await play(app, tmp_path, roll_after=100, warm=True)
    assert json.loads(item.output)["status"] == "succeeded"
    assert app.count("checkpoint_run") == 0
    assert app.count("start_steps") == 0


async def advance(bench: Bench, seconds: float) -> None:
    """Let so much time pass, alarm by alarm."""
    until_at = bench.clock.now() + timedelta(seconds=seconds)
    await bench.settle()
    while (due_at := bench.clock.next_alarm_at) is not None and due_at <= until_at:
        bench.clock.advance_to_next()
        await bench.settle()


async def test_outcomes_that_nobody_hears_of_are_looked_up(tmp_path: Path, warm: bool) -> None:
    app = RollingApp(layers(30, 5), lambda value: 10.0)

    @app.activity
    def tell_outcome(value: Any) -> Any:
        return {}  # told, and lost on the way

    item = await play(app, tmp_path, roll_after=4, warm=warm)
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(app.performed().values()) == {1}
    assert app.count("start_steps") >= 1


async def test_handing_on_that_crashes_is_done_again_and_uses_up_no_attempt(tmp_path: Path, warm: bool) -> None:
    app = RollingApp(layers(30, 5, max_attempts=1), lambda value: 10.0)
    hand_on = app.activities["start_steps"]
    crashes = itertools.cycle((True, True, False))

    @app.activity
    async def start_steps(value: Any) -> Any:
        if next(crashes):
            raise RuntimeError("the host is out of reach")
        return await hand_on(value)

    item = await play(app, tmp_path, roll_after=4, warm=warm)
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(app.performed().values()) == {1}


async def test_handing_on_that_never_works_fails_steps_and_not_the_instance(tmp_path: Path) -> None:
    app = RollingApp(layers(30, 5, max_attempts=1), lambda value: 10.0)

    @app.activity
    def start_steps(value: Any) -> Any:
        raise RuntimeError("the host is out of reach")

    item = await play(app, tmp_path, roll_after=4, warm=True)
    assert json.loads(item.output) == {"status": "failed", "code": "activity.crashed", "recorded": True}


@pytest.mark.parametrize("checkpoint_s", [0.0, 7.0, 60.0])
async def test_what_comes_while_a_history_ends_is_neither_lost_nor_done_again(
    tmp_path: Path, warm: bool, checkpoint_s: float
) -> None:
    app = RollingApp(random_skeleton(5, count=40), lambda value: random.Random(value["step_id"]).uniform(1, 30), flaky)

    @app.activity
    async def checkpoint_run(value: Any) -> Any:
        assert app.bench is not None
        await app.bench.clock.sleep_s(checkpoint_s)
        raise RuntimeError("it does not matter how it ends")

    item = await play(app, tmp_path, roll_after=3, warm=warm)
    assert json.loads(item.output) == {"status": "succeeded", "code": None, "recorded": True}
    assert set(app.performed().values()) == {1}
    assert app.count("checkpoint_run") >= 3


async def test_a_step_that_outlasts_a_history_is_not_held_back_with_the_others(tmp_path: Path) -> None:
    after = range(6, 294)
    lanes, long = (
        layers(300, 3, expected_s=0.06).steps,
        [SkeletonStep(f"x{n}", needs=(n,), expected_s=600.0) for n in after],
    )
    app = RollingApp(
        Skeleton((*lanes, *long), 64, ""), lambda value: jittered_s(value) if value["step_id"][0] == "s" else 0.01
    )
    await seconds_of(app, tmp_path, 200)
    assert app.count("checkpoint_run") >= 2
    for n in after:
        ready_s = app.started_s[f"s{n}"] + jittered_s({"step_id": f"s{n}"})
        assert app.started_s[f"x{n}"] == pytest.approx(ready_s, abs=0.001)


async def test_a_cancel_that_comes_while_steps_are_held_back_is_heard(tmp_path: Path, warm: bool) -> None:
    app = RollingApp(layers(60, 3), lambda value: 10.0 if value["step_id"] == "s4" else 1.0)
    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", V5 | {"roll_after": 4, "hold_ms": 60_000}, "run-1")
        await advance(bench, 5.0)
        assert set(app.started_s) == {"s0", "s1", "s2", "s3", "s4"}, "s5 is not held back"
        await bench.engine.raise_event("run-1", "cancel", "null")
        item = await bench.run_to_end("run-1")
    assert json.loads(item.output) == {"status": "cancelled", "code": "run.cancelled", "recorded": True}
    assert len(app.performed()) == 5


async def test_a_cancel_that_comes_while_a_history_ends_is_heard(tmp_path: Path, warm: bool) -> None:
    app = RollingApp(layers(60, 3), lambda value: 10.0)

    @app.activity
    async def checkpoint_run(value: Any) -> Any:
        assert app.bench is not None
        if value["generation"] == 2:
            await app.bench.engine.raise_event("run-1", "cancel", "null")
            await app.bench.clock.sleep_s(5)
        return {}

    item = await play(app, tmp_path, roll_after=4, warm=warm)
    assert json.loads(item.output) == {"status": "cancelled", "code": "run.cancelled", "recorded": True}
    assert len(app.performed()) < 60


@pytest.mark.parametrize("hold_ms", [0, 3_000, 60_000])
async def test_a_run_of_many_histories_survives_a_host_that_dies_again_and_again(
    tmp_path: Path, warm: bool, hold_ms: int
) -> None:
    apps: list[RollingApp] = []
    clock = None
    for life in range(12):
        app = RollingApp(layers(60, 3), lambda value: 10.0)
        apps.append(app)
        async with running(app, tmp_path, clock, warm=warm) as bench:
            app.bench, clock = bench, bench.clock
            if not life:
                await bench.start("run_orchestrator", V5 | {"roll_after": 3, "hold_ms": hold_ms}, "run-1")
            if life == 11:
                item = await bench.run_to_end("run-1", max_alarms=5_000)
            else:
                await advance(bench, 10.0 + life / 3)
    assert json.loads(item.output) == {"status": "succeeded", "code": None, "recorded": True}
    ended = {value["step_id"] for app in apps for name, value in app.ended if name == "perform_step"}
    assert len(ended) == 60
    ends = Counter(value["step_id"] for app in apps for name, value in app.ended if name == "perform_step")
    assert set(ends.values()) == {1}, "a step that had ended was performed again"


async def test_undoing_goes_on_over_many_histories_in_reverse_order_once(tmp_path: Path, warm: bool) -> None:
    chain = [SkeletonStep(f"s{n}", needs=(n - 1,) if n else (), undo=True) for n in range(40)]
    denied = SkeletonStep("last", needs=(39,), max_attempts=1)
    answers = {"last": {"status": "failed", "code": "x.y"}}
    app = RollingApp(
        Skeleton((*chain, denied), 16, ""), lambda value: 1.0, lambda value: answers.get(value["step_id"], OK)
    )
    undone: list[str] = []

    @app.activity
    def undo_step(value: Any) -> Any:
        undone.append(value["step_id"])
        return {"status": "undone"}

    @app.activity
    def compose_answer(value: Any) -> Any:
        return {"status": "failed", "code": "no.answer"}

    item = await play(app, tmp_path, roll_after=6, warm=warm)
    assert json.loads(item.output)["status"] == "failed"
    assert undone == [f"s{n}" for n in range(39, -1, -1)]
    assert app.count("checkpoint_run") >= 8


async def test_an_approval_that_is_answered_histories_later_is_announced(tmp_path: Path, warm: bool) -> None:
    skeleton = Skeleton((*layers(40, 2).steps, SkeletonStep("ask", expected_s=0.0)), 16, "")
    app = RollingApp(skeleton, lambda value: 10.0 if value["step_id"] != "ask" else 0.1)
    waiting = {"status": "awaiting_approval", "approval_id": "ap-1", "expires_at": "2026-01-02T00:00:00Z"}
    decided: list[bool] = []
    asked_at_s: list[float] = []

    @app.activity
    async def perform_step(value: Any) -> Any:
        assert app.bench is not None
        if value["step_id"] == "ask":
            asked_at_s.append((app.bench.clock.now() - START_AT).total_seconds())
            return OK if decided else waiting
        await app.bench.clock.sleep_s(10)
        return OK

    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", V5 | {"roll_after": 3}, "run-1")
        await advance(bench, 155)
        before = app.count("checkpoint_run")
        decided.append(True)
        await bench.engine.raise_event("run-1", "approval.ap-1", "null")
        item = await bench.run_to_end("run-1", max_alarms=5_000)
    assert before >= 3
    assert json.loads(item.output)["status"] == "succeeded"
    assert asked_at_s[-1] == pytest.approx(155, abs=10), "the announcement was not heard"


async def test_a_place_is_taken_once_kept_through_all_histories_and_given_back_once(tmp_path: Path) -> None:
    app = RollingApp(layers(60, 2), lambda value: 10.0)
    asked: list[str] = []

    @app.entity_function
    def tenant_quota(context: Any) -> None:
        asked.append(context.operation_name)
        context.set_result({"granted": True})

    async with running(app, tmp_path) as bench:
        app.bench = bench
        terms = {"limit": 3, "lease_ms": 60_000, "max_wait_s": 10.0}
        await bench.start("run_orchestrator", V5 | {"roll_after": 5, "quota": terms}, "run-1")
        item = await bench.run_to_end("run-1", max_alarms=5_000)
        await bench.settle()
    assert json.loads(item.output)["status"] == "succeeded"
    assert app.count("checkpoint_run") >= 5
    assert (asked[0], asked[-1]) == ("acquire", "release")
    # 300 s of work, renewed every half of a minute's lease.
    assert asked[1:-1] == ["renew"] * 9 or asked[1:-1] == ["renew"] * 10


async def test_a_map_of_many_parts_ends_well_while_histories_end_around_it(tmp_path: Path, warm: bool) -> None:
    steps = (SkeletonStep("m", kind="map", concurrency=20), *layers(60, 3).steps)
    app = RollingApp(Skeleton(steps, 32, ""), lambda value: 10.0, flaky)

    @app.activity
    def expand_map(value: Any) -> Any:
        return {"status": "expanded", "item_count": 420}

    item = await play(app, tmp_path, roll_after=8, warm=warm)
    assert json.loads(item.output)["status"] == "succeeded"
    assert set(app.performed().values()) == {1}
    assert len({item for step, _, item in app.performed() if step == "m"}) == 420
    assert app.count("checkpoint_run") >= 3


async def test_a_step_that_outlasts_many_histories_holds_none_of_them_open(tmp_path: Path) -> None:
    slow = SkeletonStep("slow", expected_s=300.0)
    app = RollingApp(
        Skeleton((slow, *layers(300, 3).steps), 16, ""), lambda value: 900.0 if value["step_id"] == "slow" else 10.0
    )
    item = await play(app, tmp_path, roll_after=20, warm=True)
    assert json.loads(item.output)["status"] == "succeeded"
    assert app.count("checkpoint_run") >= 12
    assert max(app.rows) < 250


@pytest.mark.parametrize(("name", "value"), [
    ("roll_after", 0), ("roll_after", -1), ("roll_after", "many"), ("roll_after", True),
    ("hold_ms", -1), ("hold_ms", 0.5), ("hold_ms", True),
])  # fmt: skip
async def test_an_unusable_length_fails_the_instance_without_calling_anything(
    tmp_path: Path, name: str, value: Any
) -> None:
    app = RollingApp(layers(3, 3), lambda value: 1.0)
    lengths: dict[str, Any] = {"roll_after": 3, name: value}
    item = await play(app, tmp_path, warm=True, **lengths)
    assert item.status == "Failed"
    assert app.calls == []
