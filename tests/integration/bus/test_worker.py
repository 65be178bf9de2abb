"""A worker on the real SDK and the emulator: from the queue to the answer, poison, a bus that goes away, and a stop."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bus_worker import receiving
from bus_worker.receiving import Service
from bus_worker.step import Held, StepWorker
from engine.adapters.bus_settings import BusSettings, WorkerSettings
from engine.adapters.service_bus import BusConnection, BusMessage, ServiceBusResults, ServiceBusStepQueue
from engine.domain.bus import AssignmentStatus, session_of
from engine.domain.errors import LivoaError
from engine.domain.outcomes import Dispatched, Succeeded
from engine.step_runner import StepTask, parse_result, perform_step, take_back
from local_host.queues import EntityOptions
from tests.support.bus_emulator import Emulator
from tests.support.world import World, plan_of, step

WAIT_S = 60
STEPS = 6
QUEUES = {
    "with-sessions": EntityOptions(sessions=True, lock_s=30, max_delivery_count=3),
    "plain": EntityOptions(lock_s=30, max_delivery_count=3),
    "step-results": EntityOptions(),
}


class Stage:
    """A run of a few steps for workers, and everything they need."""

    def __init__(self, emulator: Emulator, *, sessions: bool) -> None:
        self.emulator = emulator
        self.queue = "with-sessions" if sessions else "plain"
        settings = BusSettings(connection=emulator.connection_string, commands_queue=self.queue, sessions=sessions)
        self.connection = BusConnection(settings)
        self.world = World()
        self.world.deps = dataclasses.replace(self.world.deps, step_queue=ServiceBusStepQueue(self.connection))
        self.ids = [f"s{number}" for number in range(STEPS)]
        self.service: Service | None = None
        self._serving: asyncio.Task[None] | None = None

    def serve(self, **settings: float) -> Service:
        worker = StepWorker(self.world.deps, ServiceBusResults(self.connection), "w1")
        self.service = Service(self.connection, worker, WorkerSettings(**settings))
        self._serving = asyncio.create_task(self.service.run())
        return self.service

    async def begin(self) -> None:
        steps = [step(step_id, "calc.fit_fast", n=number) for number, step_id in enumerate(self.ids)]
        await self.world.submit(plan_of(*steps, uses=self.ids))
        for step_id in self.ids:
            assert isinstance(await self.perform(step_id), Dispatched)

    async def perform(self, step_id: str) -> object:
        task = StepTask(tenant_id="contoso", run_id="run-1", step_id=step_id, attempt=1)
        return await perform_step(task, self.world.deps)

    async def statuses(self) -> list[AssignmentStatus]:
        found = [await self.world.deps.assignments.get("contoso", "run-1", f"run-1/{step_id}") for step_id in self.ids]
        return [one.status for one in found]

    async def until(self, condition) -> None:
        async with asyncio.timeout(WAIT_S):
            while not await condition():  # noqa: ASYNC110 - it is the store that changes, and a store has no event
                await asyncio.sleep(0.05)

    async def all_done(self) -> bool:
        return set(await self.statuses()) == {AssignmentStatus.FINISHED}

    async def stop(self) -> None:
        if self.service is not None:
            self.service.stopping.set()
            await asyncio.wait_for(self._serving, WAIT_S)
            self.service = None

    def dead(self) -> list[tuple[str | None, str | None]]:
        found = self.emulator.broker.receive(f"{self.queue}/$DeadLetterQueue", 100)
        return [(one.dead_letter_reason, one.dead_letter_description) for one in found]


@pytest.fixture
def emulator(tmp_path: Path):
    built = Emulator(tmp_path, QUEUES)
    yield built
    built.close()


@pytest.fixture(params=[True, False], ids=["sessions", "plain"])
async def stage(request: pytest.FixtureRequest, emulator: Emulator) -> AsyncIterator[Stage]:
    built = Stage(emulator, sessions=request.param)
    yield built
    await built.stop()
    await built.connection.close()


async def test_steps_go_from_the_queue_to_an_agent_and_their_answers_come_back(stage):
    await stage.begin()
    service = stage.serve(concurrency=4)
    await stage.until(stage.all_done)
    assert service.connected == {stage.queue}
    results: list = []

    async def arrived() -> bool:
        results.extend(stage.emulator.broker.receive("step-results", 10))
        return len(results) == STEPS

    await stage.until(arrived)
    for one in results:
        assert await take_back(parse_result(one.message.body), stage.world.deps) is not None
    for number, step_id in enumerate(stage.ids):
        assert await stage.perform(step_id) == Succeeded()
        assert await stage.world.output(step_id) == {"n": 2 * number}
    assert len(stage.world.invoker.calls) == STEPS
    await stage.stop()
    assert stage.dead() == []
    assert not stage.emulator.broker.peek(stage.queue, 0, 10)


async def test_poison_is_a_dead_letter_with_its_reason_and_keeps_nobody_waiting(stage):
    session = "contoso--1" if stage.queue == "with-sessions" else None
    await stage.connection.send(stage.queue, BusMessage(b"\x00", "m-1", session_id=session))
    await stage.connection.send(stage.queue, BusMessage(b'{"version": 1}', "m-2", session_id=session))
    await stage.begin()
    stage.serve(concurrency=2, receivers=1)
    await stage.until(stage.all_done)
    await stage.stop()
    dead = stage.dead()
    assert [reason for reason, _ in dead] == ["bus.command_invalid", "bus.command_invalid"]
    assert "tenant_id" in dead[1][1]


@pytest.mark.parametrize(("receivers", "accepted"), [(2, 1), (1, 3)])
async def test_an_empty_session_is_kept_while_another_receiver_is_free_for_the_next_one(
    emulator, monkeypatch, receivers, accepted
):
    """Three commands of one session, each after a pause. With one receiver, another tenant may be waiting for it."""
    monkeypatch.setattr(receiving, "RECEIVE_S", 0.3)
    monkeypatch.setattr(receiving, "TURN_S", 120.0)
    stage = Stage(emulator, sessions=True)
    session_of_first = session_of("contoso", "run-1/s0")
    names = (f"s{number}" for number in range(1_000))
    stage.ids = [name for name in names if session_of("contoso", f"run-1/{name}") == session_of_first][:3]
    taken, accept = [], emulator.broker.accept_session

    def counting(name, session_id=None):
        lock = accept(name, session_id)
        taken.extend([lock.session_id] if lock is not None else [])
        return lock

    monkeypatch.setattr(emulator.broker, "accept_session", counting)
    stage.serve(receivers=receivers)
    await stage.until(lambda: asyncio.sleep(0, stage.queue in stage.service.connected or stage.service._accepting))
    await stage.world.submit(plan_of(*(step(one, "calc.fit_fast", n=1) for one in stage.ids), uses=stage.ids))
    for count, step_id in enumerate(stage.ids, start=1):
        await stage.perform(step_id)
        await stage.until(lambda count=count: _finished(stage, count))
        await asyncio.sleep(1.5)  # empty for several looks
    await stage.stop()
    await stage.connection.close()
    assert taken == [session_of_first] * accepted


async def _finished(stage, count):
    found = [await stage.world.deps.assignments.get("contoso", "run-1", f"run-1/{one}") for one in stage.ids[:count]]
    return all(one is not None and one.status is AssignmentStatus.FINISHED for one in found)


async def test_a_store_that_is_away_uses_up_no_deliveries(stage, monkeypatch):
    monkeypatch.setattr(receiving, "PUT_OFF_PAUSES_S", (0.2,))
    await stage.begin()
    service, failures = stage.serve(concurrency=4), dict.fromkeys(stage.ids, 5)  # the queue allows three deliveries
    take = service.worker.take

    async def failing(received):
        step_id = json.loads(received.body)["key"].removeprefix("run-1/")
        if failures[step_id]:
            failures[step_id] -= 1
            raise LivoaError("store.unavailable", "away", status=503)
        return await take(received)

    monkeypatch.setattr(StepWorker, "take", lambda _, received: failing(received))
    await stage.until(stage.all_done)
    await stage.stop()
    assert set(failures.values()) == {0}
    assert stage.dead() == []
    assert len(stage.world.invoker.effects) == STEPS


@pytest.mark.parametrize("leased", [False, True], ids=["before the lease", "after the lease"])
async def test_a_store_that_hangs_longer_than_a_lock_costs_no_delivery_and_no_lease(stage, monkeypatch, leased):
    """The messages are put off while their locks hold; a lease that the store gave after all is made use of."""
    monkeypatch.setattr(receiving, "PUT_OFF_PAUSES_S", (0.2,))
    monkeypatch.setattr(receiving, "TAKE_S", 0.1)
    await stage.begin()
    service, back, waiting, taken = stage.serve(concurrency=4), asyncio.Event(), 0, []
    take = service.worker.take

    async def hanging(received):
        nonlocal waiting
        waiting += 1
        found = await take(received) if leased else None
        await back.wait()
        found = found if leased else await take(received)
        taken.append(found)
        return found

    put_off, really = [], Service._put_off

    async def counted(*arguments):
        await really(*arguments)
        put_off.append(arguments)

    monkeypatch.setattr(Service, "_put_off", counted)
    monkeypatch.setattr(StepWorker, "take", lambda _, received: hanging(received))
    await stage.until(lambda: asyncio.sleep(0, waiting == 4))  # each slot has one, and nothing else is received
    await stage.until(lambda: asyncio.sleep(0, len(put_off) == 4 and _held_by_nobody(stage)))
    assert waiting == 4
    back.set()
    await stage.until(stage.all_done)
    await stage.stop()
    assert sum(isinstance(one, Held) for one in taken) == STEPS
    assert stage.dead() == []
    assert len(stage.world.invoker.effects) == STEPS


def _held_by_nobody(stage):
    return stage.emulator.broker.counts(stage.queue).locked == 0


async def test_a_worker_whose_store_hangs_can_be_stopped(stage, monkeypatch):
    monkeypatch.setattr(receiving, "TAKE_S", 0.1)
    await stage.begin()
    service, waiting = stage.serve(concurrency=2, drain_s=1), []

    async def hanging(received):
        waiting.append(received)
        await asyncio.Event().wait()

    monkeypatch.setattr(StepWorker, "take", lambda _, received: hanging(received))
    await stage.until(lambda: asyncio.sleep(0, len(waiting) == 2))
    await stage.stop()
    assert not service._late


async def test_a_command_is_not_put_off_for_ever(stage, monkeypatch):
    monkeypatch.setattr(receiving, "PUT_OFF_PAUSES_S", (0.1,))
    monkeypatch.setattr(receiving, "MAX_PUT_OFF", 2)
    taken = []

    async def failing(received):
        taken.append(received)
        raise LivoaError("store.unavailable", "away", status=503)

    monkeypatch.setattr(StepWorker, "take", lambda _, received: failing(received))
    stage.ids = stage.ids[:1]
    await stage.begin()
    stage.serve()
    await stage.until(lambda: asyncio.sleep(0, stage.emulator.broker.counts(stage.queue).dead_letter == 1))
    await stage.stop()
    assert stage.dead() == [("store.unavailable", "away")]
    assert len(taken) == 3


@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "plain"])
async def test_queues_that_have_nothing_keep_no_slots_from_one_that_has(tmp_path, sessions):
    """Whoever looks into a queue has a slot meanwhile: for twenty seconds where there are sessions, else for one."""
    idle = {f"idle-{number}": EntityOptions(sessions=sessions) for number in range(3)}
    emulator = Emulator(tmp_path, QUEUES | idle)
    stage = Stage(emulator, sessions=sessions)
    try:
        service = stage.serve(concurrency=4, queues=(*idle, stage.queue))
        await stage.until(lambda: asyncio.sleep(0, service._slots.locked()))
        await stage.begin()
        async with asyncio.timeout(receiving.ACCEPT_S - 5):
            await stage.until(stage.all_done)
    finally:
        await stage.stop()
        await stage.connection.close()
        emulator.close()


@pytest.mark.parametrize("sessions", [True, False], ids=["sessions", "plain"])
async def test_a_queue_is_served_soon_though_there_are_more_queues_than_slots(tmp_path, sessions, monkeypatch):
    """Whoever waits for a session would wait for as long as this test may take, and gives way with its slot."""
    monkeypatch.setattr(receiving, "ACCEPT_S", 10 * WAIT_S)
    idle = {f"idle-{number}": EntityOptions(sessions=sessions) for number in range(4)}
    emulator = Emulator(tmp_path, QUEUES | idle)
    stage = Stage(emulator, sessions=sessions)
    try:
        service = stage.serve(concurrency=1, queues=(*idle, stage.queue))
        await stage.until(lambda: asyncio.sleep(0, service._slots.locked()))
        await stage.begin()
        await stage.until(stage.all_done)
        assert len(stage.world.invoker.effects) == STEPS
    finally:
        await stage.stop()
        assert service._slots._value == 1, "each slot was given back once"
        await stage.connection.close()
        emulator.close()


async def test_a_session_that_is_found_without_a_slot_is_left_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(receiving, "GIVE_WAY_S", 0.05)
    monkeypatch.setattr(receiving, "ACCEPT_S", 10 * WAIT_S)
    long = EntityOptions(sessions=True, lock_s=5 * WAIT_S)  # it does not come free by itself
    emulator = Emulator(tmp_path, QUEUES | {"with-sessions": long, "other": long})
    stage = Stage(emulator, sessions=True)
    stage.ids, opened = stage.ids[:1], []
    try:
        service = stage.serve(concurrency=1, queues=("with-sessions", "other"))
        await stage.until(lambda: asyncio.sleep(0, service._accepting.total() == 2))
        await service._slots.acquire()  # what a long step has
        open_session = Service._open

        async def counted(self, queue, receiver):
            await open_session(self, queue, receiver)
            opened.append(queue)

        monkeypatch.setattr(Service, "_open", counted)
        await stage.begin()
        await stage.until(lambda: asyncio.sleep(0, service._accepting["with-sessions"] == 0))
        await stage.until(lambda: asyncio.sleep(0, emulator.broker.accept_session("with-sessions") is not None))
        assert opened == [], "it does not look again before it has a slot"
    finally:
        service._slots.release()
        await stage.stop()
        await stage.connection.close()
        emulator.close()


@pytest.mark.parametrize(
    ("queues", "slots", "look_s"), [(1, 50, 1.0), (4, 4, 1.0), (4, 2, 0.5), (20, 2, 0.1), (100, 1, 0.1)]
)
def test_looks_are_shorter_where_queues_share_slots(queues, slots, look_s):
    settings = WorkerSettings(concurrency=slots, queues=tuple(f"q{number}" for number in range(queues)))
    service = Service(BusConnection(BusSettings(connection="Endpoint=sb://x")), None, settings)
    assert service.look_s == pytest.approx(look_s)


async def test_a_bus_that_goes_away_and_comes_back_loses_no_step(stage):
    await stage.begin()
    stage.emulator.stop()
    service = stage.serve(concurrency=2)
    await asyncio.sleep(0.3)
    assert service.connected == set()
    stage.emulator.start()
    await stage.until(stage.all_done)
    assert len(stage.world.invoker.effects) == STEPS


async def test_a_stop_hands_back_what_does_not_end_in_time_and_the_next_worker_takes_it_up(stage):
    begun = asyncio.Event()

    class Stuck:
        async def invoke(self, capability, request, **_):
            begun.set()
            await asyncio.Event().wait()

    invoker = stage.world.deps.invoker
    stage.world.deps = dataclasses.replace(stage.world.deps, invoker=Stuck())
    await stage.begin()
    stage.serve(concurrency=1, drain_s=0)
    await asyncio.wait_for(begun.wait(), WAIT_S)
    await stage.stop()
    assert set(await stage.statuses()) == {AssignmentStatus.QUEUED}
    stage.world.deps = dataclasses.replace(stage.world.deps, invoker=invoker)
    stage.serve(concurrency=4)
    await stage.until(stage.all_done)
    assert {(one.attempt, one.token) for one in stage.world.deps.assignments._rows.values()} == {(1, 1)}
