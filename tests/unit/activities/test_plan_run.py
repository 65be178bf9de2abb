"""Planning a run: checked, vetted, stored once; a refusal says why; a second delivery answers the same."""

import asyncio
import dataclasses
from datetime import timedelta

import pytest

from activities.plan_run import plan_run
from engine.adapters.memory import MemoryTenantDirectory
from engine.domain.errors import LivoaError, Violation
from engine.domain.policy import PolicyDecision, Verdict
from engine.domain.skeleton import from_wire
from engine.domain.status import RunStatus
from engine.domain.tenant import Bounds, Budgets
from engine.ports.planner import NoPlan, PlanProposal, Route, RouteHop
from engine.ports.run_store import RunChange
from tests.support.world import World, plan_of, step

REF = {"tenant_id": "contoso", "run_id": "run-1"}


async def test_a_good_plan_is_stored_and_its_skeleton_returned():
    world = World()
    answer = await world.submit(plan_of(step("a"), step("b", n={"$ref": "steps.a#/n"})))
    assert answer["status"] == "planned"
    skeleton = from_wire(answer["skeleton"])
    assert [(s.id, s.needs) for s in skeleton.steps] == [("a", ()), ("b", (0,))]
    run = await world.runs.get("contoso", "run-1")
    assert (run.status, run.plan_hash) == (RunStatus.RUNNING, skeleton.plan_hash)
    assert await world.events() == ["run.accepted", "plan.proposed", "plan.vetted"]
    assert not run.degraded


async def test_a_second_delivery_plans_nothing_again():
    world = World()
    first = await world.submit(plan_of(step("a")))
    before = (await world.events(), await world.audit())
    assert await plan_run(REF, world.deps) == first
    assert (await world.events(), await world.audit()) == before


async def test_a_plan_with_faults_is_rejected_with_every_code():
    world = World()
    answer = await world.submit(plan_of(step("a", "calc.secret"), step("b", n="63"), step("c", "calc.nothing")))
    assert answer == {"status": "rejected", "code": "plan.rejected"}
    log = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=10)
    assert {"plan.capability_not_enabled", "plan.unknown_capability"} <= set(log[-1].data["codes"])
    assert (await world.runs.get("contoso", "run-1")).plan_ref is None
    assert await world.audit() == ["plan.rejected"]


async def test_a_denied_plan_is_kept_for_reading_and_stays_denied():
    class Engine:
        async def decide_plan(self, request):
            return PolicyDecision(verdict=Verdict.DENY, code="policy.no", reasons=("because",))

    world = World()
    world.deps = dataclasses.replace(world.deps, policy=Engine())
    assert await world.submit(plan_of(step("a"))) == {"status": "denied", "code": "policy.no"}
    run = await world.runs.get("contoso", "run-1")
    assert run.plan_ref is not None
    assert run.error.message == "because"
    assert await plan_run(REF, world.deps) == {"status": "denied", "code": "policy.no"}


async def test_an_intent_nobody_can_serve_says_what_could_be_asked():
    world = World()
    assert await world.submit(None) == {"status": "failed", "code": "plan.no_capability"}
    run = await world.runs.get("contoso", "run-1")
    assert run.degraded
    assert "degraded.entered" in await world.events()


async def test_a_run_cancelled_before_planning_is_not_planned():
    world = World()
    await world.submit(None, run_id="run-0")
    world2 = World()
    submit = world2.runs.create

    async def cancelled(run, events, claim):
        result = await submit(run, events, claim)
        await world2.runs.change("contoso", run.run_id, RunChange(status=RunStatus.CANCELLING))
        return result

    world2.runs.create = cancelled
    # Retryable: the orchestration asks again until the cancel has reached it, and then ends the run as cancelled.
    expected = {"status": "failed", "code": "run.cancelled", "retryable": True}
    assert await world2.submit(plan_of(step("a"))) == expected
    assert (await world2.runs.get("contoso", "run-1")).plan_ref is None


async def test_an_unknown_run_is_a_failure_value():
    assert await plan_run(REF, World().deps) == {"status": "failed", "code": "run.not_found"}


async def test_a_store_that_is_down_is_worth_another_attempt():
    world = World()

    async def down(*args, **kwargs):
        raise LivoaError("store.unavailable", "down", status=503)

    world.deps.budgets.open = down
    assert await world.submit(plan_of(step("a"))) == {
        "status": "failed",
        "code": "store.unavailable",
        "retryable": True,
    }


async def test_who_planned_is_in_the_event_the_record_and_the_run():
    route = Route("calc", (), True, 0.9, "lexical", fallbacks=(RouteHop("small", "model.timeout"),))

    class Planner:
        async def propose(self, task, review):
            attempts = ((Violation(code="plan.input_type", pointer="", message="no"),),)
            waiting = step("b", needs=["a"])
            return PlanProposal(
                plan_of(step("a"), waiting),
                "model",
                route=route,
                model="gpt",
                violations_by_attempt=attempts,
                seen_integrity=0,
            )

    world = World()
    world.deps = dataclasses.replace(world.deps, planner=Planner())
    assert (await world.submit(None))["status"] == "planned"
    told = {
        "source": "model",
        "model": "gpt",
        "router": "lexical",
        "fallbacks": ["small: model.timeout"],
        "attempts": 2,
        "serial_edges": 1,
    }
    log = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=10)
    proposed = next(event for event in log if event.type.value == "plan.proposed")
    assert told.items() <= proposed.data.items()
    (record,) = await world.deps.audit.read("contoso", after_seq=0, limit=10)
    assert {name: record.body[name] for name in told} == told
    made = (await world.runs.get("contoso", "run-1")).provenance
    assert (made.model, made.router, made.attempts, made.seen_integrity) == ("gpt", "lexical", 2, 0)
    assert made.fallbacks == ("small: model.timeout",)


async def test_the_account_that_pays_for_model_calls_is_open_before_the_planner_is_asked():
    world = World()
    seen = []

    class Planner:
        async def propose(self, task, review):
            seen.append(await world.deps.budgets.state("contoso", task.run_id))
            return NoPlan(code="plan.no_capability", message="no")

    world.deps = dataclasses.replace(world.deps, planner=Planner())
    await world.submit(None)
    assert seen[0].limit_micro_usd == world.tenant.bounds.max_cost_micro_usd


@pytest.mark.parametrize(
    ("limits", "covered", "beyond"),
    [
        ({"bounds": Bounds(max_cost_micro_usd=1_000)}, (1_000, 0), (1_001, 0)),
        ({"bounds": Bounds(max_tokens=2_000)}, (0, 2_000), (0, 2_001)),
        ({"budgets": Budgets(daily_cost_micro_usd=500)}, (500, 0), (501, 0)),
        ({"budgets": Budgets(daily_tokens=700)}, (0, 700), (0, 701)),
    ],
)
async def test_the_account_has_the_limits_of_the_run_and_of_its_tenants_day(limits, covered, beyond):
    world = World()
    world.deps = dataclasses.replace(
        world.deps, tenants=MemoryTenantDirectory([world.tenant.model_copy(update=limits)])
    )
    await world.submit(plan_of(step("a")))
    for (cost, tokens), granted in ((beyond, False), (covered, True)):
        key = f"model/1/plan/{cost}/{tokens}"
        assert granted is await world.deps.budgets.reserve(
            "contoso", "run-1", key, amount_micro_usd=cost, tokens=tokens
        )


@pytest.mark.parametrize(("deadline_s", "planning_s"), [(3_600, 240), (100, 100)])
async def test_planning_has_four_minutes_at_most_and_never_more_than_the_run(deadline_s, planning_s):
    world = World()
    seen = []

    class Planner:
        async def propose(self, task, review):
            seen.append((task.deadline_at - world.clock.now()).total_seconds())
            return by_model("a")

    world.deps = dataclasses.replace(world.deps, planner=Planner())
    create = world.runs.create

    async def shorter(run, events, claim):
        deadline_at = world.clock.now() + timedelta(seconds=deadline_s)
        return await create(run.model_copy(update={"deadline_at": deadline_at}), events, claim)

    world.runs.create = shorter
    await world.submit(None)
    assert seen == [planning_s]


class Answers:
    """A planner that says these things, one after the other."""

    def __init__(self, *answers, gate=None):
        self.left, self.gate = list(answers), gate

    async def propose(self, task, review):
        answer = self.left.pop(0)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def by_model(name):
    return PlanProposal(plan_of(step(name)), "model", model="gpt")


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (NoPlan(code="plan.unplannable", message="no", degraded_reason="model.timeout"), "failed"),
        (PlanProposal(plan_of(step("a", "calc.secret")), "playbook", playbook="double_it"), "rejected"),
    ],
)
async def test_a_refusal_that_is_on_record_stands_and_nobody_is_asked_again(first, status):
    world = World()
    planner = Answers(first, by_model("a"))
    world.deps = dataclasses.replace(world.deps, planner=planner)
    answer = await world.submit(None)
    assert answer["status"] == status
    before = (await world.events(), await world.audit())
    assert await plan_run(REF, world.deps) == answer
    assert len(planner.left) == 1
    assert (await world.events(), await world.audit()) == before


async def test_a_refusal_is_on_record_before_it_stands():
    world = World()
    world.deps = dataclasses.replace(world.deps, planner=Answers(NoPlan(code="plan.unplannable", message="no")))
    append = world.deps.audit.append

    async def down(entry):
        raise LivoaError("store.unavailable", "down", status=503)

    world.deps.audit.append = down
    assert (await world.submit(None))["retryable"]
    assert (await world.runs.get("contoso", "run-1")).error is None
    world.deps.audit.append = append


@pytest.mark.parametrize(
    "second", [by_model("b"), NoPlan(code="plan.unplannable", message="no")], ids=["plan", "refusal"]
)
async def test_of_two_deliveries_at_once_the_first_plan_stands_for_both(second):
    world = World()
    world.deps = dataclasses.replace(world.deps, planner=Answers(LivoaError("store.unavailable", "no", status=503)))
    await world.submit(None)
    gates = [asyncio.Event(), asyncio.Event()]
    both = [
        asyncio.create_task(plan_run(REF, dataclasses.replace(world.deps, planner=Answers(answer, gate=gate))))
        for answer, gate in zip((by_model("a"), second), gates, strict=True)
    ]
    await asyncio.sleep(0.01)
    gates[0].set()
    planned = await both[0]
    gates[1].set()
    late = await both[1]
    if isinstance(second, NoPlan):
        assert late == {"status": "failed", "code": "run.conflict", "retryable": True}
    else:
        assert late == planned
    run = await world.runs.get("contoso", "run-1")
    assert (run.status, run.error) == (RunStatus.RUNNING, None)
    assert run.plan_hash == from_wire(planned["skeleton"]).plan_hash
    assert await plan_run(REF, world.deps) == planned
    assert "plan.rejected" not in await world.events()
