"""Steps that a worker carries out: the whole gate first, then one assignment, and one conclusion of whatever came of it."""

from __future__ import annotations

import dataclasses

import pytest

from engine.adapters.memory import MemoryCatalog
from engine.domain.bus import AssignmentStatus
from engine.domain.errors import LivoaError
from engine.domain.execute import MAY_HAVE_HAD_ITS_EFFECT, ExecuteError, ExecuteFailed, ExecuteRequest, ExecuteSucceeded
from engine.domain.outcomes import Cancelled, Denied, Dispatched, Failed, Succeeded
from engine.domain.status import RunStatus, StepStatus
from engine.ports.assignments import Finished, NoAssignments, NotLeased
from engine.ports.run_store import RunChange
from engine.ports.step_queue import NoStepQueue
from engine.step_runner import StepTask, perform_step
from tests.support.world import World, capability, plan_of, step

KEY = "run-1/fit"
OF = ("contoso", "run-1", KEY)
NONCE = "n" * 43


@pytest.fixture
async def world():
    built = World()
    await built.submit(plan_of(step("fit", "calc.fit", n=4, retry={"max_attempts": 3}), uses=["fit"]))
    return built


async def assigned(world):
    return await world.deps.assignments.get(*OF)


async def taken(world, token=1, nonce=NONCE):
    now = world.clock.now()
    return await world.deps.assignments.lease(*OF, token, worker="w", nonce=nonce, now=now)


async def answered(world, response=None, token=1, nonce=NONCE):
    """What a worker does that has a lease."""
    found = await assigned(world)
    request = ExecuteRequest.model_validate_json(await world.deps.payloads.get(*OF[:2], found.request_ref))
    response = response or ExecuteSucceeded(output={"n": 2 * request.inputs["n"]})
    ref = await world.deps.payloads.put(*OF[:2], response.model_dump_json().encode())
    now = world.clock.now()
    return await world.deps.assignments.finish(*OF, token, nonce=nonce, response_ref=ref, now=now)


async def record(world):
    return await world.deps.runs.get_step("contoso", "run-1", "fit")


async def test_a_step_passes_the_gate_and_is_handed_on_without_its_content(world):
    outcome = await world.perform("fit")
    found = await assigned(world)
    assert outcome == Dispatched(event=found.event, look_by="2026-11-22T12:10:00.000000Z", left_s=600.0)
    assert (await record(world)).status is StepStatus.RUNNING
    assert "dispatch.intended" in await world.audit()
    (command,) = world.queue.sent
    assert (command.key, command.token, command.capability) == (KEY, 1, "calc.fit")
    request = ExecuteRequest.model_validate_json(await world.deps.payloads.get(*OF[:2], found.request_ref))
    assert (request.inputs, request.idempotency_key, request.attempt) == ({"n": 4}, KEY, 1)
    assert (found.waiter, found.lease_s, found.plan_hash) == ("run-1", 60, (await world.runs.get(*OF[:2])).plan_hash)
    assert world.invoker.calls == []
    assert (await world.deps.budgets.state("contoso", "run-1")).reserved_micro_usd == 100


async def test_looking_changes_nothing_while_it_is_open_and_asks_policy_once(world):
    first = await world.perform("fit")
    audit = await world.audit()
    await taken(world)
    for _ in range(3):
        assert await world.perform("fit") == first
    assert await world.audit() == audit
    assert len(world.queue.sent) == 1


async def test_what_came_of_it_is_checked_stored_and_recorded_once(world):
    await world.perform("fit")
    await taken(world)
    world.clock.advance(40)
    assert isinstance(await answered(world), Finished)
    assert await world.perform("fit") == Succeeded()
    assert await world.perform("fit") == Succeeded()
    assert await world.output("fit") == {"n": 8}
    assert (await world.audit()).count("dispatch.result") == 1
    state = await world.deps.budgets.state("contoso", "run-1")
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 100)
    stored = await record(world)
    assert stored.duration_ms == 40_000
    assert stored.input_sha256 is not None


async def test_a_wrong_output_breaks_the_contract_as_from_any_agent(world):
    await world.perform("fit")
    await taken(world)
    await answered(world, ExecuteSucceeded(output={"n": "eight"}))
    assert await world.perform("fit") == Failed(code="agent.contract_violation")


async def test_an_answer_that_is_none_breaks_the_contract(world):
    await world.perform("fit")
    await taken(world)
    ref = await world.deps.payloads.put(*OF[:2], b'{"status": "fine"}')
    await world.deps.assignments.finish(*OF, 1, nonce=NONCE, response_ref=ref, now=world.clock.now())
    assert await world.perform("fit") == Failed(code="agent.contract_violation")


async def test_a_worker_that_falls_silent_loses_the_step_to_the_next_attempt_under_the_same_key(world):
    first = await world.perform("fit")
    await taken(world)
    world.clock.advance(60)
    assert await world.perform("fit") == Failed(code="agent.lease_lost", retryable=True)
    assert (await assigned(world)).status is AssignmentStatus.VOID
    assert await answered(world) == NotLeased("lapsed"), "too late"
    second = await world.perform("fit", attempt=2)
    assert isinstance(second, Dispatched)
    assert second.event != first.event
    assert [(c.key, c.token) for c in world.queue.sent] == [(KEY, 1), (KEY, 2)]
    assert await answered(world) == NotLeased("superseded")
    await taken(world, 2, "m" * 43)
    await answered(world, token=2, nonce="m" * 43)
    assert await world.perform("fit", attempt=2) == Succeeded()
    state = await world.deps.budgets.state("contoso", "run-1")
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 100)


async def test_what_nobody_takes_in_time_has_timed_out(world):
    await world.perform("fit")
    world.clock.advance(600)
    assert await world.perform("fit") == Failed(code="agent.timeout", retryable=True)
    assert "no worker took it" in (await record(world)).error.message


@pytest.mark.parametrize(("was_taken", "waits_s"), [(True, 600), (True, 60), (False, 600)])
async def test_what_a_worker_had_begun_may_have_had_its_effect_and_what_nobody_took_has_not(was_taken, waits_s):
    effect = {"side_effect": "external", "idempotent": False}
    catalog = MemoryCatalog((capability("calc.fit", delivery="service_bus", timeout_s=600, lease_s=60, **effect),))
    world = World()
    world.deps = dataclasses.replace(world.deps, catalog=catalog)
    await world.submit(plan_of(step("fit", "calc.fit", n=4), uses=["fit"]))
    await world.perform("fit")
    if was_taken:
        await taken(world)
    world.clock.advance(waits_s)
    assert isinstance(await world.perform("fit"), Failed)
    assert ((await record(world)).error.message.endswith(MAY_HAVE_HAD_ITS_EFFECT)) == was_taken


async def test_an_error_of_the_agent_is_the_steps(world):
    await world.perform("fit")
    await taken(world)
    await answered(world, ExecuteFailed(error=ExecuteError(code="mmm.no_data", message="no rows")))
    assert await world.perform("fit") == Failed(code="mmm.no_data")


async def test_a_bus_that_is_down_delays_the_step_and_a_look_sends_it(world):
    world.queue.error = "bus.unavailable"
    first = await world.perform("fit")
    assert isinstance(first, Dispatched)
    assert ((await assigned(world)).sent_at, world.queue.sent) == (None, [])
    world.queue.error = None
    assert await world.perform("fit") == first
    assert (len(world.queue.sent), (await assigned(world)).sends) == (1, 1)


@pytest.mark.parametrize("ports", [{"step_queue": NoStepQueue()}, {"assignments": NoAssignments()}])
async def test_without_a_bus_the_step_fails_at_once_and_gives_its_money_back(world, ports):
    world.deps = dataclasses.replace(world.deps, **ports)
    assert await world.perform("fit") == Failed(code="bus.not_configured")
    assert (await world.deps.budgets.state("contoso", "run-1")).reserved_micro_usd == 0
    assert (await world.audit()).count("dispatch.result") == 1


async def test_without_a_bus_a_short_call_is_made_from_here():
    world = World()
    await world.submit(plan_of(step("fit", "calc.fit_fast", n=4), uses=["fit"]))
    assert isinstance(await world.perform("fit"), Dispatched)
    await world.submit(plan_of(step("fit", "calc.fit_fast", n=4), uses=["fit"]), run_id="run-2")
    world.deps = dataclasses.replace(world.deps, step_queue=NoStepQueue())
    task = StepTask(tenant_id="contoso", run_id="run-2", step_id="fit", attempt=1)
    assert await perform_step(task, world.deps) == Succeeded()
    assert [call.capability for call in world.invoker.calls] == ["calc.fit_fast"]
    assert isinstance(await world.perform("fit"), Dispatched), "what was handed on before stays with its worker"


async def test_a_delivery_that_died_after_assigning_is_made_up_for(world):
    put_step = world.deps.assignments.sent

    async def dies(*args):
        raise ConnectionError

    world.deps.assignments.sent = dies
    with pytest.raises(ConnectionError):
        await world.perform("fit")
    world.deps.assignments.sent = put_step
    assert isinstance(await world.perform("fit"), Dispatched)
    assert [command.token for command in world.queue.sent] == [1, 1]
    assert (await world.audit()).count("dispatch.intended") == 1


async def test_a_store_that_fails_while_assigning_fails_the_attempt(world):
    async def fails(assignment):
        raise LivoaError("store.unavailable", "no", status=503)

    world.deps.assignments.assign = fails
    assert await world.perform("fit") == Failed(code="store.unavailable", retryable=True)
    del world.deps.assignments.assign
    assert isinstance(await world.perform("fit", attempt=2), Dispatched)


async def test_the_end_of_the_run_takes_it_back_and_says_that_nobody_knows_what_came_of_it(world):
    await world.perform("fit")
    await taken(world)
    await world.finish(RunStatus.CANCELLED, steps={"cancelled": ["fit"]})
    assert (await assigned(world)).status is AssignmentStatus.VOID
    assert await answered(world) == NotLeased("ended")
    assert (await world.audit()).count("result.unknown") == 1
    assert isinstance(await world.perform("fit"), Cancelled)


async def test_what_was_taken_back_is_tried_again_unless_the_run_ends(world):
    await world.perform("fit")
    await world.deps.assignments.void(*OF, 1, now=world.clock.now(), lapsed_only=False)
    assert await world.perform("fit") == Failed(code="agent.lease_lost", retryable=True)


async def test_a_cancel_keeps_what_a_worker_has_answered_and_waits_for_nothing_else(world):
    await world.perform("fit")
    await taken(world)
    await world.runs.change("contoso", "run-1", RunChange(status=RunStatus.CANCELLING))
    assert await world.perform("fit") == Cancelled()
    await answered(world)
    assert await world.perform("fit") == Succeeded()
    assert (await world.deps.budgets.state("contoso", "run-1")).spent_micro_usd == 100
    await world.finish(RunStatus.CANCELLED, code="run.cancelled")
    audit = await world.audit()
    assert audit.count("dispatch.result") == 1
    assert "result.unknown" not in audit


async def test_an_old_attempt_does_not_conclude_a_new_one(world):
    await world.perform("fit")
    world.clock.advance(600)
    await world.perform("fit")
    await world.perform("fit", attempt=2)
    await taken(world, 2)
    await answered(world, token=2)
    assert await world.perform("fit") == Failed(code="step.superseded")
    assert await world.perform("fit", attempt=2) == Succeeded()


async def test_what_is_denied_is_never_handed_on():
    world = World()
    await world.submit(plan_of(step("fit", "calc.fit", n=4)))
    world.tenant = world.tenant.model_copy(update={"enabled_capabilities": ("calc.double",)})
    world.deps.tenants._tenants["contoso"] = world.tenant
    outcome = await world.perform("fit")
    assert isinstance(outcome, Denied)
    assert (await assigned(world), world.queue.sent) == (None, [])


async def test_a_result_of_a_worker_is_remembered_for_a_step_that_may_reuse_it():
    world = World()
    await world.submit(plan_of(step("fit", "calc.fit", n=4, cache=True), step("again", "calc.fit", n=4, cache=True)))
    await world.perform("fit")
    await taken(world)
    await answered(world)
    await world.perform("fit")
    assert await world.perform("again") == Succeeded()
    assert await world.output("again") == {"n": 8}
    assert len(world.queue.sent) == 1


async def test_an_answer_that_cannot_be_read_for_a_while_is_read_later_and_nothing_is_done_again(world):
    await world.perform("fit")
    await taken(world)
    await answered(world)
    found, get = await assigned(world), world.deps.payloads.get

    async def fails(tenant_id, run_id, ref):
        if ref == found.response_ref:
            raise LivoaError("payload.unavailable", "no", status=503)
        return await get(tenant_id, run_id, ref)

    world.deps.payloads.get = fails
    assert isinstance(await world.perform("fit"), Dispatched)
    assert (await record(world)).status is StepStatus.RUNNING
    world.deps.payloads.get = get
    assert await world.perform("fit") == Succeeded()
    assert len(world.queue.sent) == 1


async def test_an_answer_that_is_nowhere_breaks_the_contract_and_gives_the_money_back(world):
    await world.perform("fit")
    await taken(world)
    found = await assigned(world)
    nowhere = found.request_ref.model_copy(update={"sha256": "0" * 64})
    await world.deps.assignments.finish(*OF, 1, nonce=NONCE, response_ref=nowhere, now=world.clock.now())
    assert await world.perform("fit") == Failed(code="agent.contract_violation")
    assert (await record(world)).status is StepStatus.FAILED
    assert (await world.deps.budgets.state("contoso", "run-1")).reserved_micro_usd == 0
    assert (await world.audit()).count("dispatch.result") == 1


async def test_remembering_is_never_in_the_way_of_a_step_that_has_succeeded():
    world = World()
    await world.submit(plan_of(step("fit", "calc.fit", n=4, cache=True), uses=["fit"]))
    await world.perform("fit")
    await taken(world)
    await answered(world)
    found, get = await assigned(world), world.deps.payloads.get

    async def fails(tenant_id, run_id, ref):
        if ref == found.request_ref:
            raise LivoaError("payload.not_found", "no", status=404)
        return await get(tenant_id, run_id, ref)

    world.deps.payloads.get = fails
    assert await world.perform("fit") == Succeeded()


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("mmm.no_data", "mmm.no_data"),
        ("payload.not_found", "payload.not_found"),
        ("ana@contoso.example is not known", "agent.error"),
        ("policy.denied", "agent.error"),
    ],
)
async def test_a_code_of_a_worker_is_a_code_and_no_decision_of_ours(world, code, kept):
    await world.perform("fit")
    await taken(world)
    await answered(world, ExecuteFailed(error=ExecuteError(code=code)))
    assert await world.perform("fit") == Failed(code=kept)


async def test_a_cost_that_no_account_could_hold_breaks_the_contract(world):
    await world.perform("fit")
    await taken(world)
    body = b'{"status": "succeeded", "output": {"n": 8}, "usage": {"cost_micro_usd": 100000000000000000000}}'
    ref = await world.deps.payloads.put(*OF[:2], body)
    await world.deps.assignments.finish(*OF, 1, nonce=NONCE, response_ref=ref, now=world.clock.now())
    assert await world.perform("fit") == Failed(code="agent.contract_violation")
