"""Runs and the places of their tenant, on the embedded host with the real entity: faithful walking, warm and cold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.domain.names import TENANT_QUOTA
from engine.domain.skeleton import Skeleton
from entities.tenant_quota import tenant_quota
from tests.unit.local_host.durable_app import START_AT, Bench, running
from tests.unit.orchestrators.test_on_embedded_host import RunApp
from tests.unit.orchestrators.test_run_orchestrator import REF, steps_of

QUOTA = {"limit": 2, "lease_ms": 60_000, "max_wait_s": 600.0}


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def warm(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class PlaceApp(RunApp):
    """Runs of steps that take their time, their tenant's quota by the bench's clock, and when each run was at work."""

    def __init__(self, skeleton: Skeleton, seconds: float) -> None:
        super().__init__(skeleton, lambda value: seconds)
        self.working: dict[str, list[float]] = {}

        def entity(context: Any) -> None:
            assert self.bench is not None
            tenant_quota(context, int(self.bench.clock.now().timestamp() * 1_000))

        entity.__name__ = TENANT_QUOTA
        self.entity_function(entity)
        self._noted("plan_run")
        self._noted("finish_run")

    def _noted(self, name: str) -> None:
        inner = self.activities[name]

        def noted(value: Any) -> Any:
            self.working.setdefault(value["run_id"], []).append(self.now_s)
            return inner(value)

        self.activities[name] = noted

    @property
    def now_s(self) -> float:
        assert self.bench is not None
        return (self.bench.clock.now() - START_AT).total_seconds()


def given(run_id: str, **quota: Any) -> dict[str, Any]:
    return REF | {"run_id": run_id, "quota": QUOTA | quota}


async def quota_of(bench: Bench) -> Any:
    stored = await bench.engine.read_entity(TENANT_QUOTA, "contoso")
    assert stored.state_json is not None
    return json.loads(stored.state_json)


async def test_of_many_runs_no_more_than_the_limit_are_at_work_and_all_get_their_turn(
    tmp_path: Path, warm: bool
) -> None:
    app = PlaceApp(steps_of("a"), 10.0)
    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        for number in range(6):
            await bench.start("run_orchestrator", given(f"run-{number}"), f"run-{number}")
        items = [await bench.run_to_end(f"run-{number}") for number in range(6)]
        await bench.settle()
        left = await quota_of(bench)
    assert [json.loads(item.output)["status"] for item in items] == ["succeeded"] * 6
    for start, _ in app.working.values():
        assert sum(begun <= start < ended for begun, ended in app.working.values()) <= 2
    assert max(ended for _, ended in app.working.values()) < 60
    assert (left["leases"], left["waiting"], len(left["ended"])) == ([], [], 6)


async def test_a_long_run_keeps_its_place_and_a_dead_one_gives_it_back_within_its_lease(
    tmp_path: Path, warm: bool
) -> None:
    app = PlaceApp(steps_of("a"), 400.0)
    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        await bench.start("run_orchestrator", given("run-dead"), "run-dead")
        await bench.start("run_orchestrator", given("run-long"), "run-long")
        await bench.settle()
        await bench.engine.terminate("run-dead", "killed")
        await bench.start("run_orchestrator", given("run-next"), "run-next")
        await bench.start("run_orchestrator", given("run-last"), "run-last")
        for name in ("run-long", "run-next", "run-last"):
            assert json.loads((await bench.run_to_end(name)).output)["status"] == "succeeded"
    # The dead one's lease ran out, the living one's did not although it lasted many leases.
    first, second = sorted(app.working[name][0] for name in ("run-next", "run-last"))
    assert 60 <= first < 69
    assert app.working["run-long"][1] <= second < app.working["run-long"][1] + 9


async def test_a_run_without_a_place_is_refused_when_its_wait_is_over_and_a_cancel_ends_it_before(
    tmp_path: Path, warm: bool
) -> None:
    app = PlaceApp(steps_of("a"), 500.0)
    async with running(app, tmp_path, warm=warm) as bench:
        app.bench = bench
        for name, wait_s in (("run-0", 0.0), ("run-1", 0.0), ("run-now", 0.0), ("run-wait", 30.0), ("run-stop", 300.0)):
            await bench.start("run_orchestrator", given(name, max_wait_s=wait_s), name)
            await bench.settle()
        await bench.engine.raise_event("run-stop", "cancel", json.dumps("null"))
        outputs = {n: json.loads((await bench.run_to_end(n)).output) for n in ("run-now", "run-stop", "run-wait")}
    assert outputs["run-now"] == {"status": "failed", "code": "quota.no_place", "recorded": True}
    assert outputs["run-wait"] == {"status": "failed", "code": "quota.no_place", "recorded": True}
    assert outputs["run-stop"]["status"] == "cancelled"
    assert "run-now" in app.working
    assert len(app.working["run-wait"]) == 1


async def test_a_host_that_died_while_runs_waited_goes_on_with_the_same_places(tmp_path: Path, warm: bool) -> None:
    first = PlaceApp(steps_of("a"), 20.0)
    async with running(first, tmp_path, warm=warm) as bench:
        first.bench = bench
        for number in range(4):
            await bench.start("run_orchestrator", given(f"run-{number}"), f"run-{number}")
        await bench.settle()
        clock = bench.clock
    second = PlaceApp(steps_of("a"), 20.0)
    async with running(second, tmp_path, clock, warm=warm) as bench:
        second.bench = bench
        for number in range(4):
            assert json.loads((await bench.run_to_end(f"run-{number}")).output)["status"] == "succeeded"
        await bench.settle()
        assert (await quota_of(bench))["leases"] == []
    assert not set(second.working) - {f"run-{number}" for number in range(4)}
    planned_again = [name for name in first.working if len(second.working[name]) > 1]
    assert planned_again == []


async def test_a_place_costs_a_short_run_three_durable_actions_at_most(tmp_path: Path) -> None:
    counts = []
    for name, value in (("with", given("run-1")), ("without", REF)):
        app = PlaceApp(steps_of("a", "b:a"), 1.0)
        (tmp_path / name).mkdir()
        async with running(app, tmp_path / name, warm=False) as bench:
            app.bench = bench
            await bench.run("run_orchestrator", value, instance_id="run-1")
        episodes = [json.loads(response)["actions"][0] for kind, response in app.responses if kind == "orchestrator"]
        leaves = [leaf for entry in episodes[-1] for leaf in entry.get("compoundActions", [entry])]
        # A wait for an event is in every list of tasks and costs nothing; a task is listed again while it is open.
        counts.append(len({json.dumps(leaf, sort_keys=True) for leaf in leaves if leaf["actionType"] != 6}))
    assert 0 < counts[0] - counts[1] <= 3, counts
