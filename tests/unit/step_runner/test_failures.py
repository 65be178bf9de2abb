"""When something below the step breaks: there is always a result on record, with a code, and nothing is paid for twice."""

import pytest

from engine.domain.errors import LivoaError
from engine.domain.execute import MAY_HAVE_HAD_ITS_EFFECT, RESULT_UNKNOWN, ExecuteError, ExecuteFailed, ExecuteSucceeded
from engine.domain.outcomes import Failed, Skipped, Succeeded
from engine.domain.status import StepStatus
from tests.support.world import World, failing, plan_of, step


@pytest.fixture
def world():
    return World()


async def _down(*_, **__):
    raise LivoaError("store.busy", "busy", status=503)


async def test_a_success_that_could_not_be_stored_is_paid_for_once(world):
    """The agent answers the next attempt with the success of the first."""
    await world.submit(plan_of(step("a", retry={"max_attempts": 2})))
    put, world.deps.payloads.put = world.deps.payloads.put, _down
    assert await world.perform("a") == Failed(code="store.busy", retryable=True)
    world.deps.payloads.put = put
    assert await world.perform("a", attempt=2) == Succeeded()
    assert (await world.runs.get("contoso", "run-1")).cost_micro_usd == 100
    assert (await world.deps.budgets.state("contoso", "run-1")).spent_micro_usd == 100


async def test_the_last_attempt_pays_for_what_could_not_be_stored(world):
    await world.submit(plan_of(step("a", "mail.send")))
    world.deps.payloads.put = _down
    assert (await world.perform("a")).code == "store.busy"
    assert (await world.runs.get("contoso", "run-1")).cost_micro_usd == 100


async def test_an_invoker_that_raises_leaves_a_result_and_no_reservation(world):
    async def raises(*_, **__):
        raise RuntimeError("ana@contoso.example")

    await world.submit(plan_of(step("a", retry={"max_attempts": 2})))
    world.invoker.invoke = raises
    assert await world.perform("a") == Failed(code="agent.error", retryable=True)
    assert (await world.audit())[-2:] == ["dispatch.intended", "dispatch.result"]
    assert (await world.deps.budgets.state("contoso", "run-1")).reserved_micro_usd == 0
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert "ana@" not in record.model_dump_json()


async def test_a_store_that_fails_keeps_its_code(world):
    await world.submit(plan_of(step("a")))
    world.deps.budgets.reserve = _down
    assert await world.perform("a") == Failed(code="store.busy", retryable=True)
    assert world.invoker.calls == []


@pytest.mark.parametrize("output", [{"n": "\ud800"}, {"n": float("nan")}, {"n": {1, 2}}])
async def test_an_output_that_is_no_json_breaks_the_contract(world, output, monkeypatch):
    """Through HTTP it cannot arrive; an in-process capability may hand over anything."""
    monkeypatch.setattr("engine.step_runner.call.validate_output", lambda *_: ())
    await world.submit(plan_of(step("a")))
    world.invoker.behaviours["calc.double"] = lambda _: ExecuteSucceeded(output=output)
    assert await world.perform("a") == Failed(code="agent.contract_violation")


async def test_a_failure_the_plan_can_do_without_is_a_skip_everywhere(world):
    """Record, event and outcome say the same, with the code of the failure; attempts that are left are used first."""
    await world.submit(plan_of(step("a", on_failure="skip", retry={"max_attempts": 2})))
    world.invoker.behaviours["calc.double"] = failing("agent.busy")
    assert await world.perform("a") == Failed(code="agent.busy", retryable=True)
    assert await world.perform("a", attempt=2) == Skipped(code="agent.busy")
    assert await world.perform("a", attempt=2) == Skipped(code="agent.busy")
    record = await world.runs.get_step("contoso", "run-1", "a")
    assert (record.status, record.error.code) == (StepStatus.SKIPPED, "agent.busy")
    assert (await world.events())[-4:] == ["step.started", "step.retried", "step.started", "step.skipped"]


async def test_an_agents_own_words_stand_masked_in_the_record_and_in_no_event(world):
    """It may quote what it was given. Our own words about a failure are told in the log too."""
    await world.submit(plan_of(step("a"), step("b")))
    said = ExecuteError(code="agent.refused", message="no such customer as Ann, ann@contoso.example")
    world.invoker.behaviours["calc.double"] = lambda request: ExecuteFailed(error=said)
    assert await world.perform("a") == Failed(code="agent.refused")
    stored = await world.runs.get_step("contoso", "run-1", "a")
    assert stored.error.message == "no such customer as Ann, [redacted: email]"
    world.invoker.behaviours["calc.double"] = lambda request: ExecuteSucceeded(output="not an object")
    assert await world.perform("b") == Failed(code="agent.contract_violation")
    events = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=100)
    told = {one.data["step_id"]: one.data for one in events if one.type.value == "step.failed"}
    assert (told["a"]["code"], "message" in told["a"]) == ("agent.refused", False)
    assert "schema" in told["b"]["message"]
    assert "Ann" not in str([one.data for one in events])


@pytest.mark.parametrize(
    ("capability", "code", "warned"),
    [
        ("mail.send", "agent.timeout", True),
        ("mail.send", "agent.unreachable", True),
        ("mail.send", "agent.execution_lost", True),
        ("mail.send", RESULT_UNKNOWN, True),
        ("mail.send", "agent.refused", False),
        ("calc.double", "agent.timeout", False),
    ],
)
async def test_a_failure_that_leaves_an_effect_open_says_so_however_long_its_reason(world, capability, code, warned):
    await world.submit(plan_of(step("a", capability)))
    error = ExecuteError(code=code, message="The agent " + "did " * 200, retryable=False)
    world.invoker.behaviours[capability] = lambda request: ExecuteFailed(error=error)
    assert (await world.perform("a")).code == code
    message = (await world.runs.get_step("contoso", "run-1", "a")).error.message
    assert message.startswith("The agent did")
    assert message.endswith(f". {MAY_HAVE_HAD_ITS_EFFECT}") == warned
    assert (MAY_HAVE_HAD_ITS_EFFECT in message) == warned
