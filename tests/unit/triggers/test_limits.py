"""The door of submissions, and what a tenant is told about its limits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.adapters.admission import BlockAdmission
from engine.adapters.circuits import EntityCircuits
from engine.adapters.durable_entities import ClientEntities
from engine.adapters.memory import MemoryPermitLedger
from engine.domain.principal import Role
from engine.limits.breaker import Breaker, Report, apply_breaker
from engine.limits.quota import Acquire, QuotaState, apply_quota
from tests.unit.triggers.world import INTENT, World
from triggers.timer_sweep import sweep


class EntityEngine:
    """The part of the durable client that reads entities, as the SDK answers."""

    def __init__(self, **states: Any) -> None:
        self.states = states
        self.down = False

    async def read_entity_state(self, entity_id: Any) -> Any:
        if self.down:
            raise OSError("the durable engine is down")
        state = self.states.get(f"{entity_id.name}@{entity_id.key}")
        return SimpleNamespace(entity_exists=state is not None, entity_state=state)


def limited(world: World, **states: Any) -> EntityEngine:
    """The world with the app's own limits over these entity states."""
    engine = EntityEngine(**states)
    world.engine = engine  # type: ignore[assignment]  # these routes use nothing else of the client
    entities = ClientEntities()
    world.with_deps(entities=entities, circuits=EntityCircuits(entities, world.clock, world.telemetry))
    return engine


async def test_a_flood_of_submissions_is_refused_with_when_to_come_back_and_leaves_one_record(world: World) -> None:
    world.with_deps(admission=BlockAdmission(MemoryPermitLedger(world.clock), world.clock))
    answers = [await world.post("/api/runs", INTENT) for _ in range(25)]
    assert [answer.status for answer in answers] == [202] * 20 + [429] * 5
    assert answers[-1].code == "quota.submissions"
    assert answers[-1].headers["retry-after"] == "1"
    assert world.engine.starts == 20
    kinds = [record.type.value for record in await world.audit.read("contoso", after_seq=0, limit=99)]
    assert kinds == ["run.submitted"] * 20 + ["quota.refused"]
    other = await world.post("/api/runs", INTENT, token=world.token("fabrikam"))
    assert other.status == 202


async def test_sending_the_same_submission_again_costs_no_permit(world: World) -> None:
    world.with_deps(admission=BlockAdmission(MemoryPermitLedger(world.clock), world.clock))
    key = {"idempotency-key": "order-1"}
    for _ in range(30):
        assert (await world.post("/api/runs", INTENT, headers=key)).status == 202
    assert (await world.post("/api/runs", INTENT)).status == 202


async def test_a_run_that_the_sweep_starts_takes_a_place_as_well(world: World) -> None:
    world.engine.down = True
    answer = await world.post("/api/runs", INTENT)
    world.engine.down = False
    world.clock.pass_s(11)
    await sweep(world.deps, world.engine)
    _, given = world.engine.instances[answer.json["run_id"]]
    assert given["quota"]["limit"] == 20


async def test_the_quota_shows_what_is_taken_and_nothing_of_who_took_it(world: World) -> None:
    now_ms = int(world.clock.now().timestamp() * 1_000)
    state = QuotaState()
    for number in range(4):
        state, _ = apply_quota(state, Acquire(f"run-secret{number}", 3, 60_000), now_ms)
    limited(world, **{"tenant_quota@contoso": state.to_json()})
    answer = await world.get("/api/quota")
    assert answer.json == {
        "running": 3, "waiting": 1, "max_concurrent_runs": 20, "submissions_per_minute": 120, "burst": 20,
    }  # fmt: skip
    assert b"secret" not in answer.body
    other = await world.get("/api/quota", token=world.token("fabrikam"))
    assert (other.json["running"], other.json["waiting"]) == (0, 0)


async def test_a_quota_that_cannot_be_read_is_said_to_be_unknown(world: World) -> None:
    limited(world).down = True
    answer = await world.get("/api/quota")
    assert (answer.status, answer.code) == (503, "engine.unavailable")


async def test_an_open_circuit_is_shown_with_its_end_to_those_who_may_use_the_capability(world: World) -> None:
    now_ms = int(world.clock.now().timestamp() * 1_000)
    state = Breaker()
    for number in range(5):
        state, _ = apply_breaker(state, Report(f"f{number}", 0, "failure"), now_ms, name="test.echo--any")
    limited(world, **{"circuit_breaker@test.echo--any": state.to_json()})
    (shown,) = (await world.get("/api/breakers")).json["breakers"]
    assert (shown["circuit"], shown["capability"], shown["phase"]) == ("test.echo--any", "test.echo", "open")
    assert shown["open_until_at"] > "2026"


@pytest.mark.parametrize("path", ["/api/breakers", "/api/quota"])
async def test_both_need_a_token_with_a_role(world: World, path: str) -> None:
    limited(world)
    assert (await world.get(path, token=None)).status == 401
    assert (await world.get(path, token=world.token(roles=(Role.AGENT_EXECUTE,)))).status == 403
    assert (await world.get(path, token=world.token(roles=(Role.TENANTS_ADMIN,)))).status == 200
