"""The entities on the embedded host's own entity machinery, through the SDK: one at a time, answered, and never half-changed."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from engine.domain.names import CIRCUIT_BREAKER, TENANT_QUOTA
from engine.limits.breaker import BreakerRules
from entities.circuit_breaker import circuit_breaker
from entities.tenant_quota import tenant_quota
from tests.unit.local_host.durable_app import Bench, PlainApp, running

LEASE_MS = 10_000


class EntityApp(PlainApp):
    """Both entities by the bench's clock, and an orchestration that makes the calls it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.bench: Bench | None = None
        for body in (tenant_quota, circuit_breaker):
            self.entity_function(self._clocked(body))

        @self.orchestration
        def asks(context: Any) -> Generator[Any, Any, Any]:
            answers = []
            for name, key, operation, value in context.get_input():
                answers.append((yield context.call_entity(df.EntityId(name, key), operation, value)))
            return answers

    def _clocked(self, body: Any) -> Any:
        def entity(context: Any) -> None:
            assert self.bench is not None
            body(context, int(self.bench.clock.now().timestamp() * 1_000))

        entity.__name__ = body.__name__
        return entity


def acquire(run_id: str, limit: int = 20) -> list[Any]:
    return [TENANT_QUOTA, "contoso", "acquire", {"run_id": run_id, "limit": limit, "lease_ms": LEASE_MS}]


async def state(bench: Bench, name: str, key: str) -> Any:
    stored = await bench.engine.read_entity(name, key)
    return json.loads(stored.state_json) if stored.state_json is not None else None


async def test_two_hundred_runs_at_once_get_exactly_twenty_places_and_the_dead_give_theirs_back(tmp_path: Path) -> None:
    app = EntityApp()
    async with running(app, tmp_path) as bench:
        app.bench = bench
        for number in range(200):
            await bench.start("asks", [acquire(f"run-{number}")], f"asker-{number}")
        await bench.settle()
        answers = [
            json.loads(item.output)[0] for item in [await bench.run_to_end(f"asker-{number}") for number in range(200)]
        ]
        assert sum(answer["granted"] for answer in answers) == 20
        assert len((await state(bench, TENANT_QUOTA, "contoso"))["leases"]) == 20
        # Nobody gives a place back: all twenty died. Within their lease the places are free again.
        bench.clock.advance_s(LEASE_MS / 1_000 - 1)
        early = await bench.run("asks", [acquire("run-300")], "early")
        bench.clock.advance_s(31)
        late = await bench.run("asks", [acquire(f"run-{400 + number}") for number in range(21)], "late")
    assert not early[0]["granted"]
    assert [answer["granted"] for answer in late] == [True] * 20 + [False]


async def test_an_acquisition_that_is_delivered_twice_is_one_lease_and_a_late_one_is_none(tmp_path: Path) -> None:
    app = EntityApp()
    release = [TENANT_QUOTA, "contoso", "release", {"run_id": "run-1"}]
    async with running(app, tmp_path) as bench:
        app.bench = bench
        answers = await bench.run("asks", [acquire("run-1"), acquire("run-1"), release, acquire("run-1")])
    assert [(a["granted"], a["held"], a["ended"]) for a in answers] == [
        (True, 1, False), (True, 1, False), (False, 0, True), (False, 0, True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "operation", "value"),
    [
        (TENANT_QUOTA, "acquire", {"run_id": "run-2", "limit": 0, "lease_ms": 1}),
        (TENANT_QUOTA, "acquire", {"run_id": "run-2", "limit": True, "lease_ms": 1}),
        (TENANT_QUOTA, "renew", {"run_id": "run-1"}),
        (TENANT_QUOTA, "release", {"run_id": 7}),
        (TENANT_QUOTA, "reset", {"run_id": "run-1"}),
        (TENANT_QUOTA, "release", "run-1"),
        (CIRCUIT_BREAKER, "report", {"lease_id": "a", "generation": 0, "outcome": ["failure"]}),
        (CIRCUIT_BREAKER, "report", {"lease_id": "a", "generation": "0", "outcome": "failure"}),
        (CIRCUIT_BREAKER, "permit", {"lease_id": ""}),
        (CIRCUIT_BREAKER, "permit", {"lease_id": "a", "rules": {"probes": 1}}),
        (CIRCUIT_BREAKER, "permit", {"lease_id": "a", "rules": asdict(BreakerRules(probes=0))}),
        (CIRCUIT_BREAKER, "open", {"lease_id": "a"}),
        (CIRCUIT_BREAKER, "permit", None),
    ],
)
async def test_what_cannot_be_understood_is_answered_and_changes_nothing(
    tmp_path: Path, name: str, operation: str, value: Any
) -> None:
    app = EntityApp()
    failed = [CIRCUIT_BREAKER, "contoso", "report", {"lease_id": "x", "generation": 0, "outcome": "failure"}]
    async with running(app, tmp_path) as bench:
        app.bench = bench
        await bench.run("asks", [acquire("run-1"), failed], "before")
        before = await state(bench, name, "contoso")
        answer = await bench.run("asks", [[name, "contoso", operation, value]], "nonsense")
        assert before is not None
        assert await state(bench, name, "contoso") == before
    assert answer[0]["error"].endswith(".malformed")


async def test_a_circuit_opens_on_five_failures_probes_twice_at_most_and_closes_again(tmp_path: Path) -> None:
    app = EntityApp()

    def call(operation: str, **value: Any) -> list[Any]:
        return [CIRCUIT_BREAKER, "crm.read--any", operation, value]

    async with running(app, tmp_path) as bench:
        app.bench = bench
        failures = [call("report", lease_id=f"f{n}", generation=0, outcome="failure") for n in range(5)]
        opened = await bench.run("asks", failures, "failing")
        refused = await bench.run("asks", [call("permit", lease_id="early")], "early")
        bench.clock.advance_s(5)
        probes = await bench.run("asks", [call("permit", lease_id=f"p{n}") for n in range(3)], "probing")
        stale = call("report", lease_id="f0", generation=0, outcome="success")
        generation = probes[0]["generation"]
        good = [call("report", lease_id=f"p{n}", generation=generation, outcome="success") for n in range(2)]
        closed = await bench.run("asks", [stale, *good], "closing")
    assert [answer["opened"] for answer in opened] == [False] * 4 + [True]
    assert (refused[0]["granted"], 0 < refused[0]["retry_after_ms"] <= 5_000) == (False, True)
    assert [answer["granted"] for answer in probes] == [True, True, False]
    assert [answer["closed"] for answer in closed] == [False, False, True]


async def test_a_tenants_own_rules_hold_for_its_own_circuit(tmp_path: Path) -> None:
    app = EntityApp()
    rules = asdict(BreakerRules(consecutive_failures=1))
    report = {"lease_id": "a", "generation": 0, "outcome": "failure"}
    async with running(app, tmp_path) as bench:
        app.bench = bench
        own = [CIRCUIT_BREAKER, "crm.read--any--contoso", "report", report | {"rules": rules}]
        answers = await bench.run("asks", [own, [CIRCUIT_BREAKER, "crm.read--any", "report", report]])
    assert [answer["opened"] for answer in answers] == [True, False]
