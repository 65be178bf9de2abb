"""The relay: every lifecycle event reaches the topic, in its run's order, whatever fails in between."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from engine.adapters.memory import MemoryEventLog, MemoryOutbox, MemoryRunStore
from engine.domain.errors import LivoaError
from engine.domain.events import EventType, RunEvent, RunEventData, new_event
from engine.domain.run_messages import cloud_event_id
from engine.domain.status import RunStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import run
from tests.unit.triggers.world import World
from triggers.timer_run_events import LONGEST_S, MAX_EVENTS, RelayReport, relay


class Topic:
    """Keeps what is sent. ``failures`` are raised one after the other, before or (``late``) after the events went out."""

    def __init__(self) -> None:
        self.sent: list[RunEvent] = []
        self.failures: list[Exception | None] = []
        self.late = False
        self.calls = 0

    async def publish(self, events: Sequence[RunEvent]) -> None:
        assert len({event.run_id for event in events}) == 1
        assert 0 < len(events) <= MAX_EVENTS
        self.calls += 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None and not self.late:
            raise failure
        self.sent += events
        if failure is not None:
            raise failure

    def of(self, run_id: str) -> list[int]:
        """Numbers of a run's events in the order of their first arrival: what a consumer that takes an id once sees."""
        first: dict[str, int] = {}
        for event in self.sent:
            if event.run_id == run_id:
                first.setdefault(cloud_event_id(event), event.seq)
        return list(first.values())


class Relay:
    """A world whose runs have an outbox, and a topic."""

    def __init__(self) -> None:
        self.world, self.topic = World(), Topic()
        self.runs = MemoryRunStore(self.world.clock, outbox=True)
        self.log, self.outbox = MemoryEventLog(self.runs), MemoryOutbox(self.runs)
        self.world.with_deps(runs=self.runs, events=self.log, outbox=self.outbox, run_events=self.topic)

    async def accept(self, run_id: str) -> None:
        await self.runs.create(run(run_id), [new_event(EventType.RUN_ACCEPTED, RunEventData())], None)

    async def end(self, run_id: str) -> None:
        last = new_event(EventType.RUN_SUCCEEDED, RunEventData())
        await self.runs.change("contoso", run_id, RunChange(status=RunStatus.SUCCEEDED), [last])

    async def go(self) -> Any:
        return await relay(self.world.deps)


@pytest.fixture
def the() -> Relay:
    return Relay()


BUS_AWAY = LivoaError("bus.unavailable", "away", status=503)


async def test_everything_that_waits_is_sent_once_and_then_nothing_is(the: Relay) -> None:
    for run_id in ("run-1", "run-2"):
        await the.accept(run_id)
        await the.end(run_id)
    assert (await the.go()).sent == 4
    assert [(e.run_id, e.type.value) for e in the.topic.sent] == [
        ("run-1", "run.accepted"), ("run-1", "run.succeeded"), ("run-2", "run.accepted"), ("run-2", "run.succeeded"),
    ]  # fmt: skip
    assert (await the.go(), the.topic.calls) == (RelayReport(), 2)


async def test_a_bus_that_is_away_keeps_everything_for_the_next_pass(the: Relay) -> None:
    await the.accept("run-1")
    await the.accept("run-2")
    the.topic.failures = [BUS_AWAY]
    report = await the.go()
    assert (report.sent, report.is_unavailable, the.topic.calls) == (0, True, 1)
    assert (await the.go()).sent == 2


async def test_an_event_that_was_sent_without_an_answer_is_sent_again_under_its_id(the: Relay) -> None:
    await the.accept("run-1")
    the.topic.late, the.topic.failures = True, [BUS_AWAY]
    await the.go()
    await the.end("run-1")
    await the.go()
    assert [cloud_event_id(e) for e in the.topic.sent] == ["run-1.1", "run-1.1", "run-1.2"]
    assert the.topic.of("run-1") == [1, 2]


async def test_a_crash_between_sending_and_taking_out_sends_again(the: Relay) -> None:
    class Crashing(MemoryOutbox):
        async def told(self, tenant_id: str, run_id: str, *, through_seq: int) -> None:
            raise OSError("the process died here")

    await the.accept("run-1")
    await the.accept("run-2")
    the.world.with_deps(outbox=Crashing(the.runs))
    report = await the.go()
    assert (report.failed_runs, [e.run_id for e in the.topic.sent]) == (2, ["run-1", "run-2"])
    the.world.with_deps(outbox=the.outbox)
    assert (await the.go()).sent == 2
    assert await the.outbox.runs_waiting(9) == ()


async def test_one_runs_failure_does_not_keep_the_others_waiting(the: Relay) -> None:
    await the.accept("run-1")
    await the.accept("run-2")
    the.topic.failures = [ValueError("something about this run")]
    report = await the.go()
    assert (report.sent, report.failed_runs) == (1, 1)
    assert [waiting.run_id for waiting in await the.outbox.runs_waiting(9)] == ["run-1"]


async def test_a_long_backlog_is_sent_in_parts_and_a_pass_has_an_end(the: Relay) -> None:
    await the.accept("run-1")
    for number in range(2 * MAX_EVENTS):
        kind = EventType.RUN_SUSPENDED if number % 2 else EventType.RUN_RESUMED
        await the.log.append("contoso", "run-1", [new_event(kind, RunEventData(), f"k{number}")])
    assert (await the.go()).sent == 2 * MAX_EVENTS + 1
    assert the.topic.calls == 3

    class Slow(Topic):
        async def publish(self, events: Sequence[RunEvent]) -> None:
            the.world.clock.pass_s(LONGEST_S)
            await super().publish(events)

    for number in (2, 3):
        await the.accept(f"run-{number}")
    the.world.with_deps(run_events=Slow())
    assert (await the.go()).sent == 1


@pytest.mark.parametrize("seed", range(25))
async def test_under_any_failures_each_runs_events_arrive_in_order_and_none_is_missing(the: Relay, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"run-{number}" for number in range(4)]
    for name in names:
        await the.accept(name)
    for turn in range(12):
        name = chance.choice(names)
        await the.log.append("contoso", name, [new_event(EventType.RUN_SUSPENDED, RunEventData(), f"k{turn}")])
        the.topic.late = chance.random() < 0.5
        the.topic.failures = [chance.choice([None, BUS_AWAY, OSError("lost")]) for _ in range(chance.randrange(4))]
        if chance.random() < 0.7:
            await the.go()
    the.topic.failures = []
    await the.go()
    for name in names:
        logged = [event.seq for event in await the.log.read("contoso", name, after_seq=0, limit=99)]
        assert the.topic.of(name) == logged
