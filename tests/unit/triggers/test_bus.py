"""Answers of workers, and what the sweep makes up for: the store is the truth, an event is a hint."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.domain.bus import AssignmentStatus, StepResult
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteResponse, ExecuteSucceeded
from engine.domain.outcomes import Failed, Succeeded, Suspended
from engine.domain.run import StepRecord
from engine.domain.run_messages import POSTPONED
from engine.domain.status import RunStatus, StepStatus
from engine.ports.run_store import RunChange
from tests.support.world import World, plan_of, step
from tests.unit.triggers.world import FakeEngine
from triggers import bus_step_results
from triggers.bus_step_results import take_result
from triggers.timer_sweep import sweep

KEY = "run-1/fit"
OF = ("contoso", "run-1", KEY)
NONCE = "n" * 43
TOLD = ("run-1", "step-finished.")


class DeadLetters:
    """Stands for the queue: keeps what is put aside."""

    def __init__(self) -> None:
        self.letters: list[tuple[str, str, str]] = []
        self.put_off: list[tuple[bytes, str, int, float]] = []
        self.is_away = False

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        if self.is_away:
            raise LivoaError("bus.unavailable", "away", status=503)
        self.letters.append((lock_token, reason, description))

    async def postpone(self, body: bytes, message_id: str, *, times: int, delay_s: float) -> None:
        if self.is_away:
            raise LivoaError("bus.unavailable", "away", status=503)
        self.put_off.append((body, message_id, times, delay_s))


class Desk:
    """A step that is handed on, and a durable engine that hears."""

    def __init__(self) -> None:
        self.world, self.engine = World(), FakeEngine()
        self.engine.instances["run-1"] = ("run_orchestrator", None)
        self.dead = DeadLetters()
        self.world.deps = replace(self.world.deps, step_results=self.dead)

    async def begin(self) -> None:
        plan = plan_of(step("fit", "calc.fit", n=4, retry={"max_attempts": 3}), uses=["fit"])
        await self.world.submit(plan)
        await self.world.perform("fit")

    async def lease(self, token: int = 1, nonce: str = NONCE) -> None:
        now = self.world.clock.now()
        await self.world.deps.assignments.lease(*OF, token, worker="w", nonce=nonce, now=now)

    async def result(
        self, token: int = 1, nonce: str = NONCE, response: ExecuteResponse | None = None, **other: str
    ) -> StepResult:
        response = response or ExecuteSucceeded(output={"n": 8})
        ref = await self.world.deps.payloads.put(*OF[:2], response.model_dump_json().encode())
        of = {"tenant_id": "contoso", "run_id": "run-1", "key": KEY} | other
        return StepResult(**of, token=token, nonce=nonce, response_ref=ref)

    async def take(self, body: bytes | StepResult, put_off: object = None) -> None:
        data = body if isinstance(body, bytes) else body.model_dump_json().encode()
        message = SimpleNamespace(
            get_body=lambda: data,
            lock_token="held-1",
            message_id="m-1",
            application_properties=None if put_off is None else {POSTPONED: put_off},
        )
        await take_result(message, self.world.deps, self.engine)

    async def status(self) -> AssignmentStatus:
        found = await self.world.deps.assignments.get(*OF)
        return found.status

    async def record(self) -> StepRecord:
        found = await self.world.deps.runs.get_step("contoso", "run-1", "fit")
        assert found is not None
        return found

    async def swept(self):
        return (await sweep(self.world.deps, self.engine)).steps


@pytest.fixture
async def desk():
    built = Desk()
    await built.begin()
    return built


async def test_an_answer_is_stored_and_who_waits_is_told(desk):
    await desk.lease()
    await desk.take(await desk.result())
    assert await desk.status() is AssignmentStatus.FINISHED
    ((waiter, event),) = desk.engine.events
    assert (waiter, event) == ("run-1", (await desk.world.deps.assignments.get(*OF)).event)
    assert await desk.world.perform("fit") == Succeeded()


async def test_an_answer_that_comes_while_the_store_is_away_is_put_off_and_uses_up_no_delivery(desk, monkeypatch):
    """The worker could not store it either: the message is all there is of it."""
    await desk.lease()
    result = await desk.result()
    real = desk.world.deps.assignments.finish

    async def away(*_, **__):
        raise LivoaError("store.unavailable", "away", status=503)

    monkeypatch.setattr(desk.world.deps.assignments, "finish", away)
    for put_off, times, delay_s in (
        (None, 1, 5.0),
        (1, 2, 10.0),
        (7, 8, 60.0),
        ("x", 1, 5.0),
        (-3, 1, 5.0),
        (True, 1, 5.0),
    ):
        await desk.take(result, put_off)
        assert desk.dead.put_off.pop() == (result.model_dump_json().encode(), "m-1", times, delay_s)
    assert desk.engine.events == desk.dead.letters == []
    monkeypatch.setattr(desk.world.deps.assignments, "finish", real)
    await desk.take(result, 8)
    assert await desk.status() is AssignmentStatus.FINISHED
    assert len(desk.engine.events) == 1


async def test_an_answer_for_a_store_that_hangs_is_put_off_while_its_lock_holds(desk, monkeypatch):
    monkeypatch.setattr(bus_step_results, "STORE_ANSWERS_S", 0.01)
    await desk.lease()
    result = await desk.result()

    async def hangs(*_, **__):
        await asyncio.Event().wait()

    monkeypatch.setattr(desk.world.deps.assignments, "finish", hangs)
    async with asyncio.timeout(30):
        await desk.take(result)
    assert len(desk.dead.put_off) == 1


async def test_an_answer_is_not_put_off_for_ever_and_is_delivered_again_when_it_cannot_be(desk, monkeypatch):
    await desk.lease()
    result = await desk.result()

    async def away(*_, **__):
        raise LivoaError("store.unavailable", "away", status=503)

    monkeypatch.setattr(desk.world.deps.assignments, "finish", away)
    for much in (bus_step_results.MAX_PUT_OFF, 10**9):
        await desk.take(result, much)
        assert desk.dead.letters.pop() == ("held-1", "store.unavailable", "away")
    assert desk.dead.put_off == []
    desk.dead.is_away = True
    with pytest.raises(LivoaError, match="away"):
        await desk.take(result)


async def test_the_same_answer_twice_is_stored_once_and_told_twice(desk):
    await desk.lease()
    result = await desk.result()
    await desk.take(result)
    await desk.take(result)
    assert len(desk.engine.events) == 2
    assert "result.refused" not in await desk.world.audit()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version": 1}',
        b'{"version": 1, "version": 2}',
        json.dumps({"version": 1, "tenant_id": "contoso", "run_id": "../x", "key": KEY, "token": 1}).encode(),
        b" " * 70_000,
    ],
)
async def test_a_message_that_is_no_answer_is_a_dead_letter_at_once_with_its_reason_and_changes_nothing(desk, body):
    await desk.take(body)
    ((lock_token, reason, description),) = desk.dead.letters
    assert (lock_token, reason) == ("held-1", "bus.result_invalid")
    assert description
    assert await desk.status() is AssignmentStatus.QUEUED
    assert desk.engine.events == []


async def test_what_cannot_be_put_aside_is_delivered_again(desk):
    desk.dead.is_away = True
    with pytest.raises(LivoaError, match="away"):
        await desk.take(b"[]")


async def test_an_answer_with_a_wrong_secret_an_old_or_future_token_or_for_another_run_does_not_count(desk):
    await desk.lease()
    await desk.take(await desk.result(nonce="f" * 43))
    await desk.take(await desk.result(token=7))
    await desk.take(await desk.result(run_id="run-2"))
    await desk.take(await desk.result(tenant_id="fabrikam"))
    desk.world.clock.advance(60)
    await desk.world.perform("fit")
    await desk.world.perform("fit", attempt=2)
    await desk.take(await desk.result())
    assert await desk.status() is AssignmentStatus.QUEUED
    assert desk.engine.events == []
    records = await desk.world.deps.audit.read("contoso", after_seq=0, limit=100)
    refused = [record.body for record in records if record.type.value == "result.refused"]
    assert [(one["reason"], one["token"]) for one in refused] == [("unknown", 1), ("superseded", 1)], "forged ones: one"
    assert "nnnn" not in json.dumps(refused)


async def suspended(desk: Desk) -> None:
    change = RunChange(status=RunStatus.SUSPENDED, suspended_reason="request")
    await desk.world.deps.runs.change("contoso", "run-1", change, [])


async def resumed(desk: Desk) -> None:
    await desk.world.deps.runs.change("contoso", "run-1", RunChange(status=RunStatus.RUNNING), [])


async def test_a_step_that_ends_while_its_run_is_suspended_is_recorded_then_and_not_when_it_is_resumed(desk):
    await desk.lease()
    await suspended(desk)
    assert await desk.world.perform("fit") == Suspended(number=1), "it is not over"
    await desk.take(await desk.result())
    record = await desk.record()
    assert (record.status, record.finished_at) == (StepStatus.SUCCEEDED, desk.world.clock.now())
    assert (await desk.world.audit()).count("dispatch.result") == 1
    assert (await desk.world.events()).count("step.succeeded") == 1
    assert len(desk.engine.events) == 1
    await resumed(desk)
    assert await desk.world.perform("fit") == Succeeded()
    assert (await desk.world.audit()).count("dispatch.result") == 1


async def test_a_failure_during_a_suspension_is_recorded_and_nothing_is_tried_again_before_its_end(desk):
    await desk.lease()
    await suspended(desk)
    failure = ExecuteFailed(error=ExecuteError(code="agent.busy", retryable=True))
    await desk.take(await desk.result(response=failure))
    record = await desk.record()
    assert (record.status, record.error.code) == (StepStatus.WAITING, "agent.busy")
    assert await desk.world.perform("fit", attempt=2) == Suspended(number=1)
    assert (await desk.world.deps.assignments.get(*OF)).attempt == 1
    await resumed(desk)
    assert await desk.world.perform("fit") == Failed(code="agent.busy", retryable=True)


async def test_the_sweep_records_what_ended_in_a_suspended_run_without_a_message(desk):
    await desk.lease()
    await suspended(desk)
    result = await desk.result()
    now = desk.world.clock.now()
    await desk.world.deps.assignments.finish(*OF, 1, nonce=NONCE, response_ref=result.response_ref, now=now)
    desk.world.clock.advance(10)
    assert (await desk.swept()).told == 1
    assert (await desk.record()).status is StepStatus.SUCCEEDED


async def test_nothing_begins_in_a_suspended_run_though_the_assignment_is_gone_when_it_is_looked_at_again(
    desk, monkeypatch
):
    await desk.lease()
    await suspended(desk)
    now, ref = desk.world.clock.now(), (await desk.result()).response_ref
    await desk.world.deps.assignments.finish(*OF, 1, nonce=NONCE, response_ref=ref, now=now)
    ended, sent = [await desk.world.deps.assignments.get(*OF)], len(desk.world.queue.sent)

    async def once(*_):
        return ended.pop() if ended else None

    monkeypatch.setattr(desk.world.deps.assignments, "get", once)
    assert await desk.world.perform("fit") == Suspended(number=1)
    assert len(desk.world.queue.sent) == sent


async def test_a_worker_that_dies_while_the_run_is_suspended_is_on_record_then(desk):
    await desk.lease()
    await suspended(desk)
    desk.world.clock.advance(60)
    assert (await desk.swept()).taken_back == 1
    record = await desk.record()
    assert (record.status, record.error.code) == (StepStatus.WAITING, "agent.lease_lost")


@pytest.mark.parametrize("error", [LivoaError("store.unavailable", "away", status=503), OSError("nobody expected it")])
async def test_what_fails_while_a_suspended_run_is_looked_at_keeps_nobody_from_being_told(desk, monkeypatch, error):
    await desk.lease()
    await suspended(desk)
    result = await desk.result()

    async def away(*_):
        raise error

    monkeypatch.setattr(desk.world.deps.runs, "get", away)
    await desk.take(result)
    assert len(desk.engine.events) == 1
    monkeypatch.undo()
    desk.world.clock.advance(10)
    await desk.swept()
    assert (await desk.record()).status is StepStatus.SUCCEEDED


async def test_an_answer_that_cannot_be_announced_is_announced_by_the_sweep_until_the_step_goes_on(desk):
    await desk.lease()
    desk.engine.down = True
    await desk.take(await desk.result())
    desk.engine.down = False
    assert (await desk.swept()).told == 0, "the trigger may still be at it"
    desk.world.clock.advance(10)
    assert (await desk.swept()).told == 1
    await desk.world.perform("fit")
    assert (await desk.swept()).told == 0


async def test_a_lease_that_ran_out_is_taken_back_and_its_waiter_told(desk):
    await desk.lease()
    desk.world.clock.advance(59)
    assert (await desk.swept()).taken_back == 0
    desk.world.clock.advance(1)
    assert (await desk.swept()).taken_back == 1
    assert await desk.status() is AssignmentStatus.VOID
    assert len(desk.engine.events) == 1
    assert await desk.world.perform("fit") == Failed(code="agent.lease_lost", retryable=True)
    assert (await desk.swept()).taken_back == 0


async def test_what_no_worker_took_before_its_deadline_is_taken_back(desk):
    desk.world.clock.advance(600)
    assert (await desk.swept()).taken_back == 1
    assert await desk.world.perform("fit") == Failed(code="agent.timeout", retryable=True)


async def test_a_command_that_could_not_be_sent_is_sent_by_the_sweep_once():
    desk = Desk()
    desk.world.queue.error = "bus.unavailable"
    await desk.begin()
    desk.world.clock.advance(16)
    report = await desk.swept()
    assert (report.sent, report.failed) == (0, 1)
    desk.world.queue.error = None
    assert (await desk.swept()).sent == 1
    assert (await desk.swept()).sent == 0
    assert [command.token for command in desk.world.queue.sent] == [1]


async def test_a_command_that_nobody_takes_is_sent_again_ever_later_and_never_as_a_duplicate(desk):
    sent_after = []
    for second in range(0, 600, 15):
        if (await desk.swept()).sent:
            sent_after.append(second)
        desk.world.clock.advance(15)
    assert sent_after == [330], "five minutes, and the grace of a young one; the next would be ten minutes later"
    assert desk.world.queue.ids == [f"{KEY}#1", f"{KEY}#1.1"]


async def test_without_a_bus_the_sweep_sends_nothing(desk):
    desk.world.queue.is_configured = False
    desk.world.clock.advance(400)
    assert (await desk.swept()).sent == 0


async def test_one_step_that_cannot_be_helped_does_not_stop_the_sweep(desk):
    other = plan_of(step("fit", "calc.fit", n=4), uses=["fit"])
    await desk.world.submit(other, run_id="run-2")
    from engine.step_runner import StepTask, perform_step

    await perform_step(StepTask(tenant_id="contoso", run_id="run-2", step_id="fit", attempt=1), desk.world.deps)
    desk.world.clock.advance(600)
    void = desk.world.deps.assignments.void

    async def failing(tenant_id, run_id, *rest, **options):
        if run_id == "run-1":
            raise OSError
        return await void(tenant_id, run_id, *rest, **options)

    desk.world.deps.assignments.void = failing
    report = await desk.swept()
    assert (report.failed, report.taken_back) == (1, 1)


async def test_the_end_of_a_run_is_nothing_to_tell(desk):
    await desk.lease()
    await desk.world.finish(RunStatus.CANCELLED, steps={"cancelled": ["fit"]})
    desk.world.clock.advance(20)
    assert (await desk.swept()).told == 0
    assert desk.engine.events == []


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_step_that_failed_because_its_assignment_seemed_lost_is_never_sent(monkeypatch, attempts):
    desk = Desk()
    assign = desk.world.deps.assignments.assign

    async def answer_lost(assignment):
        await assign(assignment)
        raise LivoaError("store.unavailable", "its answer is lost", status=503)

    monkeypatch.setattr(desk.world.deps.assignments, "assign", answer_lost)
    plan = plan_of(step("fit", "calc.fit", n=4, retry={"max_attempts": attempts}), uses=["fit"])
    await desk.world.submit(plan)
    assert await desk.world.perform("fit") == Failed(code="store.unavailable", retryable=True)
    assert await desk.status() is AssignmentStatus.QUEUED
    desk.world.clock.advance(16)
    report = await desk.swept()
    assert (report.sent, report.taken_back, report.failed) == (0, 1, 0)
    assert (await desk.status(), desk.world.queue.sent) == (AssignmentStatus.VOID, [])
    monkeypatch.undo()
    if attempts > 1:
        await desk.world.perform("fit", attempt=2)
        assert [command.token for command in desk.world.queue.sent] == [2], "the next attempt is"
