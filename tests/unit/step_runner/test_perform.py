"""One attempt of one step: the order, the refusals, and what a second delivery changes (nothing)."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from engine.domain.audit import AuditType
from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteSucceeded, Usage
from engine.domain.outcomes import Cancelled, Denied, Failed, Skipped, Succeeded, Suspended, Waiting
from engine.domain.policy import PolicyDecision, Verdict
from engine.domain.run import StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.ports.invoker import LEAVE_RUNNING
from engine.ports.run_store import RunChange
from tests.support.world import World, failing, plan_of, step


@pytest.fixture
def world():
    return World()


async def test_a_step_runs_in_the_safe_order(world):
    await world.submit(plan_of(step("a", n=21)))
    assert await world.perform("a") == Succeeded()
    assert await world.output("a") == {"n": 42}
    assert await world.audit() == ["plan.validated", "dispatch.intended", "dispatch.result"]
    assert (await world.events())[-2:] == ["step.started", "step.succeeded"]
    (call,) = world.invoker.calls
    assert call.idempotency_key == "run-1/a"
    run = await world.runs.get("contoso", "run-1")
    assert call.plan_hash == run.plan_hash != "", "a grant is for a step of this plan"
    records = await world.deps.audit.read("contoso", after_seq=0, limit=10)
    assert not verify(records, tenant_id="contoso")


async def test_inputs_come_from_the_outputs_they_refer_to(world):
    await world.submit(plan_of(step("a", n=2), step("b", n={"$ref": "steps.a#/n"})))
    await world.perform("a")
    await world.perform("b")
    assert await world.output("b") == {"n": 8}


async def test_a_second_delivery_answers_from_the_record(world):
    await world.submit(plan_of(step("a")))
    first = await world.perform("a")
    before = (await world.events(), await world.audit())
    assert await world.perform("a") == first
    assert await world.perform("a", attempt=2) == first
    assert (await world.events(), await world.audit()) == before
    assert len(world.invoker.calls) == 1


async def test_two_deliveries_at_once_have_one_effect(world):
    await world.submit(plan_of(step("a")))
    outcomes = await asyncio.gather(*(world.perform("a") for _ in range(8)))
    assert set(outcomes) == {Succeeded()}
    assert list(world.invoker.effects) == ["run-1/a"]
    assert (await world.events()).count("step.succeeded") == 1
    run = await world.runs.get("contoso", "run-1")
    assert run.cost_micro_usd == 100


async def test_a_host_that_stops_leaves_the_execution_to_who_performs_the_step_next(world):
    begun, ended_with = asyncio.Event(), []

    class Holding:
        async def invoke(self, capability, request, **_):
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as err:
                ended_with.append(err.args)
                raise

    await world.submit(plan_of(step("a", n=21)))
    invoker = world.deps.invoker
    world.deps = dataclasses.replace(world.deps, invoker=Holding())
    performing = asyncio.create_task(world.perform("a"))
    await asyncio.wait_for(begun.wait(), 10)
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    assert ended_with == [(LEAVE_RUNNING,)]
    world.deps = dataclasses.replace(world.deps, invoker=invoker)
    assert await world.perform("a") == Succeeded()


async def test_a_crash_after_the_call_repeats_it_under_the_same_key(world):
    await world.submit(plan_of(step("a", "mail.send")))
    real_put = world.deps.payloads.put

    async def crash(*args, **kwargs):
        raise RuntimeError("power cut")

    world.deps.payloads.put = crash
    with pytest.raises(RuntimeError):
        await world.perform("a")
    world.deps.payloads.put = real_put
    assert await world.perform("a") == Succeeded()
    assert [call.idempotency_key for call in world.invoker.calls] == ["run-1/a", "run-1/a"]
    assert len(world.invoker.effects) == 1


async def test_without_a_durable_intent_there_is_no_call(world):
    await world.submit(plan_of(step("a")))

    async def refuse(entry):
        raise OSError("disk full")

    world.deps.audit.append = refuse
    assert await world.perform("a") == Failed(code="audit.unavailable", retryable=True)
    assert world.invoker.calls == []
    state = await world.deps.budgets.state("contoso", "run-1")
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 0)


@pytest.mark.parametrize("verdict", [Verdict.DENY, Verdict.ESCALATE, Verdict.TRANSFORM, Verdict.DEFERRED])
async def test_anything_but_a_clean_allow_is_a_denial(world, verdict):
    class Engine:
        async def decide_step(self, request):
            return PolicyDecision(verdict=verdict, code="policy.no", reasons=("because",))

    await world.submit(plan_of(step("a")))
    world.deps = dataclasses.replace(world.deps, policy=Engine())
    assert await world.perform("a") == Denied(code="policy.no")
    assert world.invoker.calls == []
    assert (await world.audit())[-1] == "policy.decision"
    assert (await world.events())[-1] == "step.denied"


async def test_the_tenant_is_asked_again_at_dispatch(world):
    """A capability that was taken away after planning does not run, whatever the plan says."""
    await world.submit(plan_of(step("a")))
    narrowed = world.tenant.model_copy(update={"enabled_capabilities": ()})

    async def get(tenant_id):
        return narrowed

    world.deps.tenants.get = get
    assert await world.perform("a") == Denied(code="policy.capability_not_enabled")
    assert world.invoker.calls == []


async def test_bound_inputs_are_checked_not_only_planned_ones(world):
    """An agent whose output lies about its type cannot smuggle a value into the next step."""
    await world.submit(plan_of(step("a"), step("b", n={"$ref": "steps.a#/n"})))
    world.invoker.behaviours["calc.double"] = lambda request: ExecuteSucceeded(output={"n": "DROP TABLE"})
    assert await world.perform("a") == Failed(code="agent.contract_violation")
    assert await world.perform("b") == Skipped(code="bind.no_output")


async def test_a_false_condition_skips(world):
    await world.submit(plan_of(step("a", when={"left": 1, "op": "gt", "right": 2})))
    assert await world.perform("a") == Skipped(code="step.when_false")
    assert (await world.runs.get_step("contoso", "run-1", "a")).status is StepStatus.SKIPPED


async def test_a_retryable_failure_waits_and_the_next_attempt_succeeds(world):
    await world.submit(plan_of(step("a", retry={"max_attempts": 2})))
    world.invoker.behaviours["calc.double"] = failing()
    assert await world.perform("a") == Failed(code="agent.unreachable", retryable=True)
    assert (await world.runs.get_step("contoso", "run-1", "a")).status is StepStatus.WAITING
    from tests.support.world import doubled

    world.invoker.behaviours["calc.double"] = doubled
    assert await world.perform("a", attempt=2) == Succeeded()
    assert await world.perform("a", attempt=1) == Succeeded()
    assert [e for e in await world.events() if e.startswith("step.")] == [
        "step.started",
        "step.retried",
        "step.started",
        "step.succeeded",
    ]


async def test_the_last_attempt_that_fails_is_a_failure(world):
    await world.submit(plan_of(step("a", retry={"max_attempts": 2})))
    world.invoker.behaviours["calc.double"] = failing()
    await world.perform("a")
    assert await world.perform("a", attempt=2) == Failed(code="agent.unreachable", retryable=True)
    assert (await world.events())[-1] == "step.failed"


async def test_a_late_first_attempt_does_not_overtake_the_second(world):
    await world.submit(plan_of(step("a", retry={"max_attempts": 3})))
    world.invoker.behaviours["calc.double"] = failing()
    await world.perform("a", attempt=2)
    assert await world.perform("a", attempt=1) == Failed(code="step.superseded")


async def test_a_fan_out_cannot_overshoot_the_budget():
    world = World(max_cost_micro_usd=1000)
    await world.submit(plan_of(*(step(f"s{i}") for i in range(9))), constraints={"max_cost_micro_usd": 900})
    await world.deps.budgets.reserve("contoso", "run-1", "someone-else", amount_micro_usd=450)
    outcomes = await asyncio.gather(*(world.perform(f"s{i}") for i in range(9)))
    assert outcomes.count(Succeeded()) == 4
    assert outcomes.count(Suspended(number=1)) == 5
    run = await world.runs.get("contoso", "run-1")
    assert (run.status, run.suspended_reason, run.suspensions) == (RunStatus.SUSPENDED, "budget", 1)
    assert (await world.events()).count("run.suspended") == 1
    assert len(world.invoker.calls) == 4


async def test_what_an_agent_spends_beyond_its_manifest_is_charged_and_stops_what_comes_next():
    world = World(max_cost_micro_usd=1000)
    await world.submit(plan_of(step("a"), step("b")), constraints={"max_cost_micro_usd": 200})
    world.invoker.behaviours["calc.double"] = lambda r: ExecuteSucceeded(
        output={"n": 1}, usage=Usage(cost_micro_usd=150)
    )
    assert await world.perform("a") == Succeeded()
    assert await world.perform("b") == Suspended(number=1)
    assert (await world.runs.get("contoso", "run-1")).cost_micro_usd == 150


async def test_an_exhausted_budget_stops_the_step_before_the_call():
    world = World(max_cost_micro_usd=1000)
    await world.submit(plan_of(step("a"), step("b")), constraints={"max_cost_micro_usd": 200})
    await world.deps.budgets.reserve("contoso", "run-1", "someone-else", amount_micro_usd=150)
    assert await world.perform("a") == Suspended(number=1)
    assert world.invoker.calls == []
    assert await world.runs.get_step("contoso", "run-1", "a") is None, "the attempt is not used up"
    assert "budget.exhausted" in await world.events()


async def test_a_run_that_is_cancelled_while_it_runs_out_of_budget_is_not_suspended_instead():
    world = World(max_cost_micro_usd=1000)
    await world.submit(plan_of(step("a")), constraints={"max_cost_micro_usd": 200})
    await world.deps.budgets.reserve("contoso", "run-1", "someone-else", amount_micro_usd=150)
    append = world.deps.audit.append

    async def cancelled_meanwhile(entry):
        if entry.type is AuditType.BUDGET_EXHAUSTED:
            await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLING))
        return await append(entry)

    world.deps.audit.append = cancelled_meanwhile
    assert await world.perform("a") == Cancelled()
    assert (await world.runs.get("contoso", "run-1")).status is RunStatus.CANCELLING


async def test_a_wait_is_over_at_an_instant_fixed_once(world):
    await world.submit(plan_of({"id": "w", "wait": {"for_s": 60}}))
    first = await world.perform("w")
    assert isinstance(first, Waiting)
    assert first.left_s == 60
    world.clock.advance(30)
    assert await world.perform("w") == first.model_copy(update={"left_s": 30.0})
    world.clock.advance(31)
    assert await world.perform("w") == Succeeded()


@pytest.mark.parametrize(("for_s", "back_s", "left_s"), [(60, 3_600, 60), (1_800, 900, 900), (60, 60, 60)])
async def test_a_clock_that_is_set_back_makes_a_length_of_time_longer_by_no_more_than_itself(
    world, for_s, back_s, left_s
):
    await world.submit(plan_of({"id": "w", "wait": {"for_s": for_s}}))
    await world.perform("w")
    world.clock.advance(for_s - back_s)  # it has waited long enough, and the clock was set back meanwhile
    again = await world.perform("w")
    until = world.clock.now() + timedelta(seconds=left_s)
    assert (again.left_s, again.until_at) == (left_s, iso_utc(until))
    assert (await world.perform("w")).until_at == again.until_at, "asked twice it is the same"
    world.clock.advance(left_s)
    assert await world.perform("w") == Succeeded()


async def test_an_instant_is_one_of_the_clock_and_comes_later_when_that_is_set_back(world):
    until = world.clock.now() + timedelta(seconds=600)
    await world.submit(plan_of({"id": "w", "wait": {"until": iso_utc(until)}}))
    assert (await world.perform("w")).left_s == 600
    world.clock.advance(-3_600)
    again = await world.perform("w")
    assert (again.until_at, again.left_s) == (iso_utc(until), 4_200)
    world.clock.advance(4_200)
    assert await world.perform("w") == Succeeded()


async def test_an_instant_far_ahead_stays_one_when_the_clock_is_set_back(world):
    """At first it was no more than 30 days ahead; that is decided once."""
    await world.submit(plan_of({"id": "w", "wait": {"until": iso_utc(world.clock.now() + timedelta(days=30))}}))
    assert isinstance(await world.perform("w"), Waiting)
    world.clock.advance(-3_600)
    assert isinstance(await world.perform("w"), Waiting)


async def test_nothing_starts_in_a_run_that_is_being_cancelled(world):
    await world.submit(plan_of(step("a")))
    await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLING))
    assert await world.perform("a") == Cancelled()
    assert world.invoker.calls == []


async def test_nothing_starts_in_a_run_that_ended_a_moment_ago(world):
    """The run ends between the step's look at it and the step's start: no call, nothing after the final event."""
    await world.submit(plan_of(step("a")))
    decide = world.deps.policy.decide_step

    async def end_meanwhile(request):
        await world.finish(RunStatus.CANCELLED, code="run.cancelled")
        return await decide(request)

    world.deps.policy.decide_step = end_meanwhile
    await world.perform("a")
    assert world.invoker.calls == []
    assert (await world.events())[-1] == "run.cancelled"
    state = await world.deps.budgets.state("contoso", "run-1")
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 0)


async def test_nothing_starts_after_the_deadline(world):
    await world.submit(plan_of(step("a")))
    world.clock.advance(timedelta(hours=2).total_seconds())
    assert await world.perform("a") == Failed(code="run.deadline")
    assert world.invoker.calls == []


async def test_another_tenants_task_finds_no_run(world):
    from engine.step_runner import StepTask, perform_step

    await world.submit(plan_of(step("a")))
    task = StepTask(tenant_id="fabrikam", run_id="run-1", step_id="a")
    assert await perform_step(task, world.deps) == Failed(code="run.not_found")


async def test_an_unknown_step_fails_without_a_call(world):
    await world.submit(plan_of(step("a")))
    assert await world.perform("zz") == Failed(code="step.unknown")


async def test_records_and_events_hold_no_content(world):
    """Inputs and outputs live in the payload store: a marker in them shows up nowhere else."""
    await world.submit(plan_of(step("a", n=424242)))
    await world.perform("a")
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert isinstance(record, StepRecord)
    told = [
        record.model_dump_json(),
        *(e.model_dump_json() for e in await world.deps.events.read("contoso", "run-1", after_seq=0, limit=100)),
        *(r.model_dump_json() for r in await world.deps.audit.read("contoso", after_seq=0, limit=100)),
    ]
    assert not any("424242" in text or "848484" in text for text in told)


async def test_an_attempt_that_failed_is_not_made_again(world):
    await world.submit(plan_of(step("a")))
    world.invoker.behaviours["calc.double"] = failing("agent.busy")
    await world.perform("a")
    assert await world.perform("a") == Failed(code="agent.busy", retryable=True)
    assert len(world.invoker.calls) == 1


async def test_the_outcome_is_that_of_the_delivery_that_was_first(world):
    await world.submit(plan_of(step("a")))
    answer = world.invoker.invoke

    async def slower(capability, request, *, traceparent=None, progress=None):
        world.invoker.invoke = answer
        assert await world.perform("a") == Succeeded()
        return failing("agent.refused", retryable=False)(request)

    world.invoker.invoke = slower
    assert await world.perform("a") == Succeeded()
    assert (await world.events()).count("step.succeeded") == 1
    assert "step.failed" not in await world.events()


async def test_a_record_that_was_written_counts_although_the_store_lost_its_answer(world):
    await world.submit(plan_of(step("a")))
    put_step = world.runs.put_step

    async def forgetful(record, events=(), **fields):
        written = await put_step(record, events, **fields)
        if record.status.is_final:
            raise LivoaError("store.unavailable", "the answer was lost", status=503)
        return written

    world.runs.put_step = forgetful
    assert await world.perform("a") == Succeeded()


async def test_a_later_attempt_releases_what_a_dead_one_had_reserved(world):
    await world.submit(plan_of(step("a")))
    invoke = world.invoker.invoke

    async def dies(*_, **__):
        raise asyncio.CancelledError

    world.invoker.invoke = dies
    with pytest.raises(asyncio.CancelledError):
        await world.perform("a")
    world.invoker.invoke = invoke
    assert await world.perform("a", attempt=2) == Succeeded()
    state = await world.deps.budgets.state("contoso", "run-1")
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 100)


async def test_a_raised_budget_lets_the_same_attempt_go_on():
    world = World(max_cost_micro_usd=1000)
    await world.submit(plan_of(step("a")), constraints={"max_cost_micro_usd": 200})
    await world.deps.budgets.reserve("contoso", "run-1", "someone-else", amount_micro_usd=150)
    assert await world.perform("a") == Suspended(number=1)
    assert await world.perform("a") == Suspended(number=1), "nobody has resumed it"
    await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))
    assert await world.perform("a") == Suspended(number=2), "resumed without a higher budget"
    await world.deps.budgets.raise_limit("contoso", "run-1", limit_micro_usd=400)
    await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING))
    assert await world.perform("a") == Succeeded()
    assert len(world.invoker.calls) == 1
    assert verify(await world.deps.audit.read("contoso", after_seq=0, limit=99), "contoso") == []


async def test_a_suspended_run_expands_collects_plans_and_composes_nothing(world):
    await world.submit(plan_of(step("a")))
    await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.SUSPENDED))
    assert await world.perform("a") == Suspended(number=1)
    assert world.invoker.calls == []
    assert await world.runs.get_step("contoso", "run-1", "a") is None
