"""The circuit in front of a call: it keeps steps away from what is down, and nobody's own fault opens it."""

import dataclasses

import pytest

from engine.adapters.circuits import EntityCircuits
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteSucceeded
from engine.domain.outcomes import Succeeded, Suspended
from engine.domain.status import RunStatus
from engine.ports.run_store import RunChange
from engine.step_runner.circuit import OPEN_CODE, circuit_outcome
from tests.support.world import QuietTelemetry, World, capability, doubled, failing, plan_of, step
from tests.unit.adapters.test_circuits import SharedEntities


@pytest.fixture
def world():
    built = World()
    built.shared = SharedEntities(built.clock)

    async def sleep(seconds):
        built.clock.advance(seconds)

    circuits = EntityCircuits(built.shared, built.clock, QuietTelemetry(), sleep=sleep)
    built.deps = dataclasses.replace(built.deps, circuits=circuits)
    return built


def many(count, name="calc.double"):
    return plan_of(*(step(f"s{number}", name, retry={"max_attempts": 3}) for number in range(count)))


async def test_five_failures_stop_the_calls_and_the_run_is_told_once(world):
    await world.submit(many(12))
    world.invoker.behaviours["calc.double"] = failing("agent.unreachable")
    outcomes = [await world.perform(f"s{number}") for number in range(12)]
    assert [outcome.code for outcome in outcomes] == ["agent.unreachable"] * 5 + [OPEN_CODE] * 7
    assert all(outcome.retryable and 0 < outcome.retry_after_s <= 5 for outcome in outcomes[5:])
    assert len(world.invoker.calls) == 5
    assert (await world.events()).count("breaker.opened") == 1
    assert (await world.audit()).count("breaker.opened") == 1
    assert (await world.deps.budgets.state("contoso", "run-1")).reserved_micro_usd == 0


async def test_after_the_break_it_is_tried_and_goes_on(world):
    await world.submit(many(8))
    world.invoker.behaviours["calc.double"] = failing("agent.timeout")
    for number in range(6):
        await world.perform(f"s{number}")
    world.invoker.behaviours["calc.double"] = doubled
    world.clock.advance(6)
    assert [await world.perform(f"s{number}", attempt=2) for number in range(6)] == [Succeeded()] * 6
    assert await world.perform("s7") == Succeeded()


async def test_what_is_the_callers_own_fault_stops_nobody(world):
    await world.submit(many(20))
    world.invoker.behaviours["calc.double"] = failing("agent.error", retryable=False)
    for number in range(20):
        assert (await world.perform(f"s{number}")).code == "agent.error"
    assert len(world.invoker.calls) == 20
    assert world.shared.signals == []


async def test_a_step_that_gave_up_before_the_call_leaves_the_place_of_a_probe_free(world):
    await world.submit(many(9))
    world.invoker.behaviours["calc.double"] = failing("agent.unreachable")
    for number in range(5):
        await world.perform(f"s{number}")
    world.clock.advance(6)

    async def refuses(*_, **__):
        return False

    reserve, world.deps.budgets.reserve = world.deps.budgets.reserve, refuses
    for number in range(5, 8):
        assert await world.perform(f"s{number}") == Suspended(number=number - 4)
        await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))
    world.deps.budgets.reserve = reserve
    world.invoker.behaviours["calc.double"] = doubled
    assert await world.perform("s8") == Succeeded()


async def test_an_event_log_that_is_down_does_not_swallow_the_result_of_the_call(world):
    from engine.domain.errors import LivoaError

    await world.submit(many(5))
    append = world.deps.events.append

    async def down(*_, **__):
        raise LivoaError("store.busy", "busy", status=503)

    world.invoker.behaviours["calc.double"] = failing("agent.unreachable")
    for number in range(4):
        await world.perform(f"s{number}")
    world.deps.events.append = down
    outcome = await world.perform("s4")
    world.deps.events.append = append
    assert outcome.code == "agent.unreachable"
    assert (await world.audit())[-1] == "dispatch.result"


def error(code, retryable):
    return ExecuteFailed(error=ExecuteError(code=code, message="no", retryable=retryable))


@pytest.mark.parametrize(
    ("response", "given_s", "expected"),
    [
        (ExecuteSucceeded(output={}), 60, "success"),
        (error("agent.unreachable", True), 1, "failure"),
        (error("agent.error", True), 1, "failure"),
        (error("auth.keys_unavailable", True), 1, "failure"),
        (error("agent.timeout", True), 60, "failure"),
        (error("agent.timeout", True), 59.9, "neutral"),
        (error("agent.result_unknown", False), 60, "failure"),
        (error("agent.result_unknown", False), 59.9, "neutral"),
        (error("agent.error", False), 60, "neutral"),
        (error("auth.token_invalid", False), 60, "neutral"),
        (error("agent.contract_violation", False), 60, "neutral"),
        (error("agent.conflict", True), 60, "neutral"),
        (error("crm.locked", True), 60, "neutral"),
        (error("run.deadline", False), 60, "neutral"),
    ],
)
def test_only_what_is_wrong_with_the_agent_counts(response, given_s, expected):
    assert circuit_outcome(response, capability("calc.double", timeout_s=60), given_s) == expected


async def test_a_step_that_can_fall_back_does_so_at_once_when_the_circuit_is_open(world):
    frail = [step(f"s{n}", "calc.frail", retry={"max_attempts": 3}) for n in range(5)]
    await world.submit(plan_of(*frail, step("a", "calc.frail", on_failure="fallback")))
    world.invoker.behaviours["calc.frail"] = failing("agent.unreachable")
    for number in range(5):
        await world.perform(f"s{number}")
    held_off = await world.perform("a")
    assert (held_off.code, held_off.retryable, held_off.retry_after_s) == (OPEN_CODE, True, None)
    assert await world.perform("a", attempt=2) == Succeeded()
    assert [call.capability for call in world.invoker.calls] == ["calc.frail"] * 5 + ["calc.double"]
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert (record.capability, record.degraded) == ("calc.double", f"fallback: {OPEN_CODE}")
