"""Circuits of a process over the shared entities: fast to stop, few to try, deaf to what is late or somebody's own fault."""

from __future__ import annotations

from typing import Any

import pytest

from engine.adapters.circuits import SETTLE_MS, TTL_MS, EntityCircuits, circuit_key
from engine.adapters.memory import FixedClock
from engine.domain.base import JsonObject
from engine.domain.tenant import BreakerRules, TenantConfig
from engine.limits.breaker import Breaker
from engine.ports.breakers import CircuitPass
from engine.ports.entities import entities_unavailable
from entities.circuit_breaker import circuit_breaker
from tests.support.world import QuietTelemetry, capability

CONTOSO = TenantConfig(tenant_id="contoso", display_name="Contoso")
STRICT = TenantConfig(tenant_id="strict", display_name="Strict", breaker=BreakerRules(consecutive_failures=1))
CRM = capability("crm.read")


class _Operation:
    """One operation as the SDK hands it to an entity."""

    def __init__(self, key: str, operation: str, value: JsonObject, state: Any) -> None:
        self.entity_key, self.operation_name, self._value, self.state = key, operation, value, state

    def get_input(self) -> Any:
        return self._value

    def get_state(self) -> Any:
        return self.state

    def set_state(self, state: Any) -> None:
        self.state = state

    def set_result(self, result: Any) -> None: ...


class SharedEntities:
    """The real entity function over a dict. Signals wait while ``held``; nothing works while ``down``."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.states: dict[str, Any] = {}
        self.signals: list[tuple[str, str, JsonObject]] = []
        self.queue: list[tuple[str, str, JsonObject]] = []
        self.reads = 0
        self.held = self.down = False

    def use(self, client: object) -> None: ...

    async def signal(self, name: str, key: str, operation: str, value: JsonObject) -> None:
        if self.down:
            raise entities_unavailable()
        self.signals.append((key, operation, value))
        self.queue.append((key, operation, value))
        if not self.held:
            self.flush()

    def flush(self) -> None:
        for key, operation, value in self.queue:
            context: Any = _Operation(key, operation, value, self.states.get(key))
            circuit_breaker(context, int(self.clock.now().timestamp() * 1_000))
            self.states[key] = context.state
        self.queue.clear()

    async def read(self, name: str, key: str) -> JsonObject | None:
        if self.down:
            raise entities_unavailable()
        self.reads += 1
        state: JsonObject | None = self.states.get(key)
        return state


class Fleet:
    """Some processes that share the entities of one clock."""

    def __init__(self, processes: int = 1) -> None:
        self.clock = FixedClock()
        self.shared = SharedEntities(self.clock)
        self.circuits = [
            EntityCircuits(self.shared, self.clock, QuietTelemetry(), sleep=self._sleep) for _ in range(processes)
        ]

    async def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def call(self, lease_id: str, outcome: Any, process: int = 0, tenant: TenantConfig = CONTOSO) -> CircuitPass:
        """Ask, and report ``outcome`` when let through."""
        passed = await self.circuits[process].permit(tenant, CRM, lease_id)
        if passed.granted:
            await self.circuits[process].report(passed, outcome)
        return passed

    def breaker(self, key: str = "crm.read--any") -> Breaker:
        return Breaker.from_json(self.shared.states[key])


async def test_five_failures_open_it_here_at_once_and_everywhere_within_the_copy_s_age() -> None:
    fleet = Fleet(2)
    await fleet.call("warm", "success", process=1)
    passes = [await fleet.call(f"f{n}", "failure") for n in range(8)]
    assert [passed.granted for passed in passes] == [True] * 5 + [False] * 3
    assert 0 < passes[-1].retry_after_s <= 5
    assert passes[-1].open_until_at is not None
    fleet.clock.advance(TTL_MS / 1_000)
    assert not (await fleet.call("other", "success", process=1)).granted


async def test_it_stops_by_itself_while_the_entity_has_not_heard_yet() -> None:
    fleet = Fleet()
    fleet.shared.held = True
    granted = 0
    for number in range(20):
        granted += (await fleet.call(f"f{number}", "failure")).granted
        fleet.clock.advance(0.01)
    assert granted == 5


async def test_failures_of_many_processes_add_up() -> None:
    fleet = Fleet(5)
    for process in range(5):
        await fleet.call(f"p{process}", "failure", process=process)
    assert fleet.breaker().phase == "open"
    fleet.clock.advance((TTL_MS + SETTLE_MS) / 1_000)
    assert [(await fleet.call(f"late{p}", "success", process=p)).granted for p in range(5)] == [False] * 5


async def test_after_the_break_two_at_most_try_it_out_over_all_processes_and_their_success_closes_it() -> None:
    fleet = Fleet(4)
    for number in range(5):
        await fleet.call(f"f{number}", "failure")
    fleet.clock.advance(6)
    probes = [await fleet.circuits[p].permit(CONTOSO, CRM, f"probe{p}") for p in range(4)]
    assert sum(passed.granted for passed in probes) == 2
    for process, passed in enumerate(probes):
        if passed.granted:
            await fleet.circuits[process].report(passed, "success")
    assert fleet.breaker().phase == "closed"
    fleet.clock.advance((TTL_MS + SETTLE_MS) / 1_000)
    assert all([(await fleet.call(f"again{p}", "success", process=p)).granted for p in range(4)])


async def test_a_stale_success_closes_nothing_and_a_failed_probe_opens_it_again_for_longer() -> None:
    fleet = Fleet()
    late = await fleet.circuits[0].permit(CONTOSO, CRM, "late")
    for number in range(5):
        await fleet.call(f"f{number}", "failure")
    fleet.clock.advance(6)
    probe = await fleet.circuits[0].permit(CONTOSO, CRM, "probe")
    await fleet.circuits[0].report(late, "success")
    assert fleet.breaker().phase == "half_open"
    assert await fleet.circuits[0].report(probe, "failure") is not None
    assert (fleet.breaker().phase, fleet.breaker().breaks) == ("open", 2)


async def test_a_neutral_outcome_opens_nothing_is_not_told_and_frees_the_place_of_a_probe() -> None:
    fleet = Fleet()
    for number in range(50):
        assert (await fleet.call(f"bad-request{number}", "neutral")).granted
    assert fleet.shared.signals == []
    for number in range(5):
        await fleet.call(f"f{number}", "failure")
    fleet.clock.advance(6)
    assert [(await fleet.call(f"probe{n}", "neutral")).granted for n in range(3)] == [True] * 3


async def test_of_successes_only_some_are_told_unless_they_end_a_row_of_failures() -> None:
    fleet = Fleet()
    for number in range(320):
        await fleet.call(f"ok{number}", "success")
    told = len(fleet.shared.signals)
    assert 0 < told < 60
    for number in range(40):
        await fleet.call(f"bad{number}", "failure" if number % 4 == 0 else "success")
        fleet.clock.advance(2)
    assert fleet.breaker().phase == "closed"
    assert len(fleet.shared.signals) > told + 30


async def test_the_copy_is_read_once_in_a_while_and_not_for_every_call() -> None:
    fleet = Fleet()
    for number in range(100):
        await fleet.call(f"ok{number}", "success")
    assert fleet.shared.reads == 1


async def test_a_tenant_with_rules_of_its_own_opens_its_own_circuit_and_nobody_else_s() -> None:
    fleet = Fleet()
    await fleet.call("a", "failure", tenant=STRICT)
    assert not (await fleet.call("b", "success", tenant=STRICT)).granted
    assert (await fleet.call("c", "success")).granted
    assert fleet.breaker("crm.read--any--strict").phase == "open"


async def test_without_the_shared_state_it_goes_on_with_what_it_knows() -> None:
    fleet = Fleet()
    fleet.shared.down = True
    passes = [await fleet.call(f"f{n}", "failure") for n in range(7)]
    assert [passed.granted for passed in passes] == [True] * 5 + [False] * 2
    fleet.clock.advance(6)
    probes = [await fleet.circuits[0].permit(CONTOSO, CRM, f"probe{n}") for n in range(3)]
    assert [passed.granted for passed in probes] == [True, True, False]


async def test_views_and_the_planner_see_what_is_open() -> None:
    fleet = Fleet()
    other = capability("crm.write", region="westeurope")
    for number in range(5):
        await fleet.call(f"f{number}", "failure")
    views = await fleet.circuits[0].views(CONTOSO, [CRM, other])
    assert [(view.circuit, view.phase) for view in views] == [
        ("crm.read--any", "open"),
        ("crm.write--westeurope", "closed"),
    ]
    assert views[0].open_until_at is not None
    assert dict(await fleet.circuits[0].unavailable(CONTOSO, [CRM, other])) == {"crm.read": ""}
    fleet.clock.advance(6)
    assert (await fleet.circuits[0].views(CONTOSO, [CRM]))[0].phase == "half_open"
    assert dict(fleet.circuits[0].known_open(CONTOSO, [CRM])) == {}


@pytest.mark.parametrize(("name", "region"), [("a." + "b" * 98, "any"), ("crm.read", "West Europe/1")])
def test_a_key_is_always_a_wire_id_and_tells_circuits_apart(name: str, region: str) -> None:
    from engine.domain.ids import is_wire_id

    keys = {circuit_key(tenant, capability(name, region=region, title="long")) for tenant in (CONTOSO, STRICT)}
    assert len(keys) == 2
    assert all(is_wire_id(key) for key in keys)
