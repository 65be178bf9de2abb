"""One step of a worker in virtual time: the lease decides, heartbeats keep it, the answer is stored before it is told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from datetime import timedelta

import pytest

from bus_worker.step import Held, NothingToDo, Poison, Received, StepWorker
from engine.adapters.memory import MemoryCatalog
from engine.domain.bus import AssignmentStatus, StepResult, command_of
from engine.domain.errors import LivoaError
from engine.domain.execute import EXECUTE_RESPONSE, ExecuteFailed, ExecuteProgress, ExecuteSucceeded
from engine.domain.outcomes import Dispatched, Failed, Succeeded
from engine.domain.status import RunStatus, StepStatus
from engine.ports.invoker import LEAVE_RUNNING
from engine.step_runner import take_back
from local_host.durable.clock import VirtualClock
from tests.support.world import CAPABILITIES, START, World, plan_of, step

KEY = "run-1/fit"
OF = ("contoso", "run-1", KEY)


class SlowInvoker:
    """An agent that takes its virtual time, and counts effects by key."""

    def __init__(self, clock):
        self.clock, self.seconds, self.calls, self.effects = clock, 5.0, [], {}
        self.cancelled_with, self.error = [], None

    async def invoke(self, capability, request, *, traceparent=None, progress=None):
        self.calls.append(request)
        try:
            for fraction in (0.25, 0.5, 0.75, 1.0):
                await self.clock.sleep_s(self.seconds / 4)
                await progress(ExecuteProgress(fraction=fraction, message="fitting"))
        except asyncio.CancelledError as err:
            self.cancelled_with.append(err.args[0] if err.args else None)
            raise
        if self.error is not None:
            raise self.error
        answer = ExecuteSucceeded(output={"n": 2 * request.inputs["n"]})
        return self.effects.setdefault(request.idempotency_key, answer)


class SentResults:
    def __init__(self):
        self.sent, self.error = [], None

    async def send(self, result, *, traceparent=None):
        if self.error is not None:
            raise self.error
        self.sent.append(result)


class Desk:
    """A step that was handed on, and workers in one virtual time."""

    def __init__(self, **changed):
        self.clock = VirtualClock(START)
        self.world = World()
        self.invoker, self.results = SlowInvoker(self.clock), SentResults()
        catalog = MemoryCatalog([one.model_copy(update=changed) for one in CAPABILITIES])
        self.world.deps = dataclasses.replace(self.world.deps, clock=self.clock, invoker=self.invoker, catalog=catalog)
        self.worker = self.another("w1")

    @property
    def deps(self):
        return self.world.deps

    def another(self, name, **changed):
        deps = dataclasses.replace(self.world.deps, **changed)
        return StepWorker(deps, self.results, name, sleep=self.clock.sleep_s)

    async def begin(self, **fields):
        await self.world.submit(plan_of(step("fit", "calc.fit", n=4, retry={"max_attempts": 3}), uses=["fit"]))
        assert isinstance(await self.world.perform("fit"), Dispatched)

    async def row(self):
        return await self.deps.assignments.get(*OF)

    async def command(self, **other):
        return Received(command_of((await self.row()).model_copy(update=other)).model_dump_json().encode())

    async def taken(self, worker=None):
        return await (worker or self.worker).take(await self.command())

    async def until(self, task, most_s=100_000):
        """Let virtual time pass until a task is done."""
        end_at = self.clock.now() + timedelta(seconds=most_s)
        while not task.done():
            for _ in range(30):
                await asyncio.sleep(0)
            if not task.done():
                assert self.clock.next_alarm_at is not None, "nothing can happen any more"
                assert self.clock.next_alarm_at <= end_at, "it takes too long"
                self.clock.advance_to_next()
        return task.result()

    async def pass_s(self, seconds):
        end_at = self.clock.now() + timedelta(seconds=seconds)
        while True:
            for _ in range(30):
                await asyncio.sleep(0)
            if self.clock.next_alarm_at is None or self.clock.next_alarm_at > end_at:
                break
            self.clock.advance_to_next()
        self.clock.advance_to(end_at)

    async def done(self, held, worker=None):
        await self.until(asyncio.ensure_future((worker or self.worker).carry_out(held)))

    async def response(self):
        row = await self.row()
        return EXECUTE_RESPONSE.validate_json(await self.deps.payloads.get(*OF[:2], row.response_ref))


@pytest.fixture
async def desk():
    built = Desk()
    await built.begin()
    return built


async def test_from_the_command_to_the_steps_success(desk):
    held = await desk.taken()
    assert isinstance(held, Held)
    assert (await desk.row()).worker == "w1"
    await desk.done(held)
    assert (await desk.row()).status is AssignmentStatus.FINISHED
    (result,) = desk.results.sent
    assert await take_back(result, desk.deps) is not None
    assert await desk.world.perform("fit") == Succeeded()
    assert await desk.world.output("fit") == {"n": 8}
    log = await desk.deps.events.read(*OF[:2], after_seq=0, limit=100)
    told = [event.data for event in log if event.type.value == "step.progressed"]
    assert [one.get("worker") for one in told] == ["w1", None, None, None, None]
    assert [one.get("progress") for one in told[1:]] == [0.25, 0.5, 0.75, 1.0]
    (request,) = desk.invoker.calls
    assert (request.idempotency_key, request.attempt, request.inputs) == (KEY, 1, {"n": 4})


async def test_a_command_delivered_twice_is_one_call(desk):
    first = await desk.taken()
    assert await desk.taken() == NothingToDo("held")
    assert await desk.taken(desk.another("w2")) == NothingToDo("held")
    await desk.done(first)
    assert await desk.taken() == NothingToDo("ended")
    assert len(desk.invoker.calls) == 1


@pytest.mark.parametrize(
    ("received", "code"),
    [
        (Received(b"nonsense"), "bus.command_invalid"),
        (Received(b"{}"), "bus.command_invalid"),
        (Received(json.dumps({"version": 1, "canary": 1}).encode()), "bus.command_invalid"),
    ],
)
async def test_what_is_no_command_is_poison_and_its_content_is_not_told(desk, received, code):
    answer = await desk.worker.take(received)
    assert isinstance(answer, Poison)
    assert answer.code == code
    assert "canary" not in answer.message


async def test_a_command_that_nobody_gave_or_that_lies_in_anothers_place_is_poison(desk):
    for other in ({"token": 5}, {"key": "run-1/other"}, {"tenant_id": "fabrikam"}, {"run_id": "run-2"}):
        answer = await desk.worker.take(await desk.command(**other))
        assert isinstance(answer, Poison), other
        assert answer.code == "bus.command_unknown"
    body = (await desk.command()).body
    for received in (Received(body, tenant_id="fabrikam"), Received(body, session_id="fabrikam--3")):
        answer = await desk.worker.take(received)
        assert isinstance(answer, Poison)
        assert answer.code == "bus.command_misplaced"
    at = await desk.row()
    assert isinstance(await desk.worker.take(Received(body, at.session_id, "contoso")), Held)


async def test_ten_virtual_hours_of_work_with_heartbeats():
    desk = Desk(timeout_s=11 * 3600.0)
    plan = plan_of(step("fit", "calc.fit", n=4), uses=["fit"])
    await desk.world.submit(plan)
    stored = desk.world.runs._runs[OF[:2]]
    stored.run = stored.run.model_copy(update={"deadline_at": START + timedelta(hours=20)})
    await desk.world.perform("fit")
    desk.invoker.seconds = 10 * 3600.0
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    for _ in range(20):
        await desk.pass_s(1_790)
        assert isinstance(await desk.world.perform("fit"), Dispatched), "looking does not take it back"
    await desk.until(task)
    assert desk.clock.now() - START >= timedelta(hours=10)
    assert await desk.world.perform("fit") == Succeeded()


async def test_a_worker_that_dies_loses_the_step_within_one_lease_and_the_next_attempt_repeats_no_effect(desk):
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    await desk.pass_s(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    died_at = desk.clock.now()
    await desk.pass_s(held.assignment.lease_s)
    assert await desk.world.perform("fit") == Failed(code="agent.lease_lost", retryable=True)
    assert desk.clock.now() - died_at <= timedelta(seconds=held.assignment.lease_s)
    await desk.world.perform("fit", attempt=2)
    again = await desk.taken(desk.another("w2"))
    assert again.assignment.token == 2
    await desk.done(again)
    assert await desk.world.perform("fit", attempt=2) == Succeeded()
    assert len(desk.invoker.effects) == 1


async def test_a_refused_heartbeat_cancels_the_call_and_nothing_is_answered(desk):
    desk.invoker.seconds = 300
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    await desk.pass_s(1)
    await desk.world.finish(RunStatus.CANCELLED, steps={"cancelled": ["fit"]})
    await desk.until(task, most_s=held.assignment.lease_s / 3)
    assert desk.invoker.cancelled_with == [None], "the agent is to stop"
    assert desk.results.sent == []


@pytest.mark.parametrize("cancelled", [False, True])
async def test_who_stood_still_and_was_replaced_leaves_the_execution_to_the_next_attempt(desk, cancelled):
    desk.invoker.seconds = 300
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    await desk.pass_s(1)
    await desk.deps.assignments.void(*held.of, now=desk.clock.now(), lapsed_only=False)
    await desk.world.perform("fit")
    await desk.world.perform("fit", attempt=2)
    if cancelled:
        await desk.world.finish(RunStatus.CANCELLED, steps={"cancelled": ["fit"]})
    await desk.until(task, most_s=held.assignment.lease_s / 3)
    assert desk.invoker.cancelled_with == ([None] if cancelled else [LEAVE_RUNNING])
    assert desk.results.sent == []
    row = await desk.row()
    assert (row.token, row.worker) == (2, None), "what was taken from it is not handed back by it"


@pytest.mark.parametrize("end", [None, "the run is cancelled", "the step is undone", "the step is over"])
async def test_who_wakes_between_two_attempts_leaves_the_execution_to_the_next_one_unless_nobody_wants_it(desk, end):
    desk.invoker.seconds = 300
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    await desk.pass_s(1)
    # It stands still for longer than its lease, and is taken back. No attempt has followed yet.
    lapsed_at = desk.clock.now() + timedelta(seconds=held.assignment.lease_s)
    await desk.deps.assignments.void(*held.of, now=lapsed_at, lapsed_only=True)
    if end == "the run is cancelled":
        await desk.world.finish(RunStatus.CANCELLED, steps={"cancelled": ["fit"]})
    elif end == "the step is undone":
        await desk.deps.assignments.void(*held.of, now=lapsed_at, lapsed_only=False)
    elif end == "the step is over":
        record = await desk.deps.runs.get_step("contoso", "run-1", "fit")
        over = {"status": StepStatus.FAILED, "finished_at": lapsed_at}
        await desk.deps.runs.put_step(record.model_copy(update=over), [])
    await desk.until(task, most_s=held.assignment.lease_s / 3)
    assert desk.invoker.cancelled_with == ([LEAVE_RUNNING] if end is None else [None])
    assert desk.results.sent == []


async def test_heartbeats_that_cannot_be_made_do_not_end_the_work(desk):
    desk.invoker.seconds = 55
    held = await desk.taken()
    heartbeat, failed = desk.deps.assignments.heartbeat, []

    async def fails(*of, **options):
        failed.append(desk.clock.now())
        if len(failed) < 3:
            raise OSError
        return await heartbeat(*of, **options)

    desk.deps.assignments.heartbeat = fails
    await desk.done(held)
    assert len(failed) == 2
    assert await desk.world.perform("fit") == Succeeded()


@pytest.mark.parametrize("part", ["put", "finish", "send"])
async def test_an_answer_survives_a_store_or_a_bus_that_is_away_for_a_while(desk, part):
    desk.invoker.seconds = 1
    held = await desk.taken()
    owner = {"put": desk.deps.payloads, "finish": desk.deps.assignments, "send": desk.results}[part]
    works, tries = getattr(owner, part), []

    async def fails(*of, **options):
        tries.append(1)
        if len(tries) < 5:
            raise LivoaError("store.unavailable", "no", status=503)
        return await works(*of, **options)

    setattr(owner, part, fails)
    await desk.done(held)
    assert len(tries) == 5
    assert (await desk.row()).status is AssignmentStatus.FINISHED
    assert len(desk.results.sent) == 1


async def test_an_answer_that_takes_long_to_tell_is_told_although_its_heartbeats_are_refused_by_now(desk):
    send = desk.results.send

    async def slowly(result, **options):
        await desk.clock.sleep_s(100)
        await send(result, **options)

    desk.results.send = slowly
    await desk.done(await desk.taken())
    assert len(desk.results.sent) == 1


async def test_an_answer_that_cannot_be_stored_is_told_all_the_same_and_stored_by_who_hears_it(desk):
    held = await desk.taken()
    finish = desk.deps.assignments.finish

    async def fails(*of, **options):
        raise LivoaError("store.unavailable", "no", status=503)

    desk.deps.assignments.finish = fails
    await desk.done(held)
    desk.deps.assignments.finish = finish
    (result,) = desk.results.sent
    assert (await take_back(result, desk.deps)).status is AssignmentStatus.FINISHED


async def test_an_answer_that_cannot_be_told_is_in_the_store(desk):
    desk.results.error = LivoaError("bus.unavailable", "no", status=503)
    await desk.done(await desk.taken())
    assert (await desk.row()).status is AssignmentStatus.FINISHED


async def test_a_step_that_is_handed_back_costs_no_attempt_and_its_call_goes_on(desk):
    desk.invoker.seconds = 300
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    await desk.pass_s(25)
    await desk.worker.give_back(held)
    await desk.until(task)
    assert desk.invoker.cancelled_with == [LEAVE_RUNNING]
    row = await desk.row()
    assert (row.status, row.token, row.worker, row.attempt) == (AssignmentStatus.QUEUED, 1, None, 1)
    assert desk.world.queue.ids == [f"{KEY}#1", f"{KEY}#1.1"]
    desk.invoker.seconds = 1
    other = desk.another("w2")
    await desk.done(await desk.taken(other), other)
    assert await desk.world.perform("fit") == Succeeded()


async def test_a_step_that_is_done_while_it_is_handed_back_is_answered(desk):
    held = await desk.taken()
    task = asyncio.ensure_future(desk.worker.carry_out(held))
    await desk.pass_s(1)
    for _ in range(100):
        if not held.call.done():
            desk.clock.advance_s(0.5)
            await asyncio.sleep(0)
    assert held.call.done()
    await desk.worker.give_back(held)
    await desk.until(task)
    assert await desk.world.perform("fit") == Succeeded()


async def test_what_cannot_be_asked_is_the_steps_error(desk):
    unknown = desk.another("w1", catalog=MemoryCatalog(CAPABILITIES[:1]))
    await desk.done(await desk.taken(unknown), unknown)
    assert isinstance(await desk.response(), ExecuteFailed)
    assert await desk.world.perform("fit") == Failed(code="bus.capability_unknown")


async def test_a_request_that_is_not_the_assigned_one_is_not_asked(desk):
    other = {"tenant_id": "contoso", "run_id": "run-1", "step_id": "other", "attempt": 1, "capability": "calc.fit"}
    body = json.dumps(
        other | {"inputs": {"n": 1}, "idempotency_key": KEY, "deadline_at": "2026-11-22T13:00:00Z", "plan_hash": "x"}
    ).encode()
    ref = await desk.deps.payloads.put(*OF[:2], body)
    rows = desk.deps.assignments._rows
    rows[OF] = rows[OF].model_copy(update={"request_ref": ref})
    await desk.done(await desk.taken())
    assert desk.invoker.calls == []
    assert (await desk.response()).error.code == "bus.request_invalid"


async def test_a_client_that_raises_is_an_error_of_the_call_and_its_words_are_not_told(desk, caplog):
    desk.invoker.error = RuntimeError("canary")
    with caplog.at_level(logging.INFO):
        await desk.done(await desk.taken())
    response = await desk.response()
    assert (response.error.code, response.error.retryable) == ("agent.error", True)
    assert "canary" not in response.error.message


async def test_no_secret_of_a_lease_reaches_a_log(desk, caplog):
    with caplog.at_level(logging.DEBUG):
        held = await desk.taken()
        await desk.done(held)
    (result,) = desk.results.sent
    assert isinstance(result, StepResult)
    assert len(held.nonce) >= 32
    assert all(held.nonce not in str(record.__dict__) for record in caplog.records)
