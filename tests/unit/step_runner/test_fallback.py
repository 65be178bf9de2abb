"""``on_failure: fallback``: when something else is called instead, under which key, and how that is told."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest

from engine.domain.execute import ExecuteSucceeded, Usage
from engine.domain.outcomes import Denied, Failed, Succeeded, Suspended
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.support.world import World, failing, plan_of, step

FRAIL = {"capability_name": "calc.frail", "on_failure": "fallback"}


@pytest.fixture
def world() -> World:
    return World()


async def record(world: World, step_id: str = "a", item: int | None = None) -> Any:
    return await world.runs.get_step("contoso", "run-1", step_id, item)


async def started(world: World, **more: Any) -> None:
    answer = await world.submit(plan_of(step("a", **(FRAIL | more))))
    assert answer["status"] == "planned", answer


def called(world: World) -> list[tuple[str, str]]:
    return [(call.capability, call.idempotency_key) for call in world.invoker.calls]


async def test_the_attempts_of_the_step_come_first_and_the_fallback_is_one_more(world: World) -> None:
    await started(world, retry={"max_attempts": 2})
    world.invoker.behaviours["calc.frail"] = failing()
    for attempt in (1, 2):
        assert await world.perform("a", attempt=attempt) == Failed(code="agent.unreachable", retryable=True)
        assert (await record(world)).status is StepStatus.WAITING
    assert await world.perform("a", attempt=3) == Succeeded()
    assert called(world) == [
        ("calc.frail", "run-1/a"),
        ("calc.frail", "run-1/a"),
        ("calc.double", "run-1/a/fallback"),
    ]
    assert await world.output("a") == {"n": 2}
    done = await record(world)
    assert (done.capability, done.degraded) == ("calc.double", "fallback: agent.unreachable")
    assert (await world.events()).count("degraded.entered") == 1
    told = [
        r for r in await world.deps.audit.read("contoso", after_seq=0, limit=99) if r.type.value == "degraded.entered"
    ]
    assert [(r.body["step"], r.body["attempt"], r.body["reason"]) for r in told] == [
        ("a", 3, "fallback: agent.unreachable")
    ]


async def test_what_repeating_does_not_help_falls_back_at_once(world: World) -> None:
    await started(world)
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    assert await world.perform("a") == Failed(code="agent.broken", retryable=True)
    assert await world.perform("a") == Failed(code="agent.broken", retryable=True), "a second delivery calls nobody"
    assert await world.perform("a", attempt=2) == Succeeded()
    assert [name for name, _ in called(world)] == ["calc.frail", "calc.double"]


async def test_the_fallback_delivered_twice_is_one_effect(world: World) -> None:
    await started(world)
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    await world.perform("a")
    runs: Any = world.deps.runs
    put_step, runs.put_step = runs.put_step, _dying(runs.put_step)
    with pytest.raises(OSError, match="died"):
        await world.perform("a", attempt=2)
    runs.put_step = put_step
    assert await world.perform("a", attempt=2) == Succeeded()
    assert called(world)[1:] == [("calc.double", "run-1/a/fallback")] * 2
    assert len(world.invoker.effects) == 1


def _dying(put_step: Any) -> Any:
    async def dying(written: Any, *more: Any, **fields: Any) -> Any:
        if written.status is StepStatus.SUCCEEDED:
            raise OSError("died")
        return await put_step(written, *more, **fields)

    return dying


async def test_a_fallback_that_fails_too_is_tried_as_long_as_there_are_attempts_and_then_the_step_has_failed(
    world: World,
) -> None:
    await started(world, retry={"max_attempts": 2})
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    world.invoker.behaviours["calc.double"] = failing("agent.busy")
    assert (await world.perform("a")).retryable
    assert await world.perform("a", attempt=2) == Failed(code="agent.busy", retryable=True)
    assert await world.perform("a", attempt=3) == Failed(code="agent.busy", retryable=True)
    assert (await record(world)).status is StepStatus.FAILED
    assert [name for name, _ in called(world)] == ["calc.frail", "calc.double", "calc.double"]


async def test_a_plan_whose_fallback_the_tenant_may_not_use_is_rejected(world: World) -> None:
    """The tenant may not use it; the check of the plan says so already."""
    refused = await world.submit(plan_of(step("a", "calc.frail_secret", on_failure="fallback")))
    assert (refused["status"], refused["code"]) == ("rejected", "plan.rejected")


async def test_a_denied_step_does_not_fall_back(world: World) -> None:
    await started(world)
    policy = world.deps.policy

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(policy, name)

        async def decide_step(self, request: Any) -> Any:
            from engine.domain.policy import PolicyDecision, Verdict

            return PolicyDecision(verdict=Verdict.DENY, code="policy.x", policy_ids=("x",), reasons=("no",))

    world.deps = dataclasses.replace(world.deps, policy=Refusing())
    assert await world.perform("a") == Denied(code="policy.x")
    assert called(world) == []


async def test_a_success_that_breaks_its_contract_is_paid_for_before_something_else_is_called(world: World) -> None:
    await started(world)
    world.invoker.behaviours["calc.frail"] = lambda request: ExecuteSucceeded(
        output={"n": "no number"}, usage=Usage(cost_micro_usd=70)
    )
    assert (await world.perform("a")).code == "agent.contract_violation"
    state = await world.deps.budgets.state("contoso", "run-1")
    assert state is not None
    assert (state.spent_micro_usd, state.reserved_micro_usd) == (70, 0)
    assert await world.perform("a", attempt=2) == Succeeded()


async def test_a_fallback_without_budget_waits_like_any_step(world: World) -> None:
    world = World(max_cost_micro_usd=1_000)
    await world.submit(plan_of(step("a", **FRAIL)), constraints={"max_cost_micro_usd": 150})
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    await world.perform("a")
    await world.deps.budgets.reserve("contoso", "run-1", "someone-else", amount_micro_usd=100)
    assert await world.perform("a", attempt=2) == Suspended(number=1)
    await world.deps.budgets.raise_limit("contoso", "run-1", limit_micro_usd=500)
    await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))
    assert await world.perform("a", attempt=2) == Succeeded()


async def test_an_attempt_that_nobody_knows_the_end_of_counts_and_the_last_one_falls_back(world: World) -> None:
    await started(world, retry={"max_attempts": 1})

    class DiedError(BaseException):
        """Nothing catches it: the process is gone, with its reservation."""

    def dies(request: Any) -> Any:
        raise DiedError

    world.invoker.behaviours["calc.frail"] = dies
    with pytest.raises(DiedError):
        await world.perform("a")
    assert (await record(world)).status is StepStatus.RUNNING
    assert await world.perform("a", attempt=2) == Succeeded()
    assert (await record(world)).degraded == "fallback: activity.crashed"
    state = await world.deps.budgets.state("contoso", "run-1")
    assert state is not None
    assert state.reserved_micro_usd == 0


async def test_inputs_that_do_not_come_together_are_no_reason_to_call_something_else(world: World) -> None:
    await world.submit(plan_of(step("z"), step("a", **FRAIL, n={"$ref": "steps.z#/n"})))
    outcome = await world.perform("a")
    assert outcome.status == "skipped"
    assert called(world) == []


async def test_the_intent_of_a_fallback_says_what_it_is_for(world: World) -> None:
    await started(world)
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    await world.perform("a")
    await world.perform("a", attempt=2)
    records = await world.deps.audit.read("contoso", after_seq=0, limit=99)
    intents = [r.body for r in records if r.type.value == "dispatch.intended"]
    assert [(body["capability"], body.get("purpose")) for body in intents] == [
        ("calc.frail", None),
        ("calc.double", "fallback"),
    ]


async def test_policy_is_asked_again_when_the_fallback_is_due_and_its_no_is_the_end(world: World) -> None:
    from engine.domain.policy import PolicyDecision, Verdict

    await started(world)
    world.invoker.behaviours["calc.frail"] = failing("agent.broken", retryable=False)
    policy = world.deps.policy

    class NoFallbacks:
        async def decide_step(self, request: Any) -> Any:
            if request.purpose == "fallback":
                return PolicyDecision(verdict=Verdict.DENY, code="policy.x", policy_ids=("x",), reasons=("no",))
            return await policy.decide_step(request)

    world.deps = dataclasses.replace(world.deps, policy=cast(Any, NoFallbacks()))
    await world.perform("a")
    assert await world.perform("a", attempt=2) == Denied(code="policy.x")
    assert [name for name, _ in called(world)] == ["calc.frail"]


async def test_the_last_attempt_falls_back_even_when_those_before_it_left_no_trace(world: World) -> None:
    await started(world, retry={"max_attempts": 1})
    assert await world.perform("a", attempt=2) == Succeeded()
    assert [name for name, _ in called(world)] == ["calc.double"]
    assert (await record(world)).degraded == "fallback: activity.crashed"
