"""What other systems are to be told of, over every store: with the event or not at all, in order, until it has been sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.adapters.cosmos import CosmosEventLog, CosmosOutbox, CosmosRunStore, RunPartitions
from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database, SqlOutbox, SqlRunStore
from engine.domain.errors import ConflictError
from engine.domain.events import AnswerEventData, EventType, NewEvent, RunEventData, new_event
from engine.domain.run_messages import LIFECYCLE_EVENTS
from engine.domain.status import RunStatus
from engine.ports.run_messages import WaitingRun
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import approval, claim, event, run, step
from tests.contract.stores.conftest import CosmosWorld, Stores

RUN = ("contoso", "run-1")


def of_run(event_type: EventType) -> NewEvent:
    return new_event(event_type, RunEventData())


async def created(stores: Stores, run_id: str = "run-1", tenant_id: str = "contoso") -> None:
    await stores.runs.create(run(run_id, tenant_id), [of_run(EventType.RUN_ACCEPTED)], None)


async def waiting(stores: Stores, run_id: str = "run-1", tenant_id: str = "contoso") -> list[tuple[int, str]]:
    return [(e.seq, e.type.value) for e in await stores.outbox.waiting(tenant_id, run_id, 100)]


async def test_lifecycle_events_wait_and_others_do_not(stores: Stores) -> None:
    await created(stores)
    await stores.runs.put_step(step(), [event()])
    await stores.events.append(*RUN, [new_event(EventType.ANSWER_DELTA, AnswerEventData(text="hello"), "d")])
    change = RunChange(status=RunStatus.SUCCEEDED)
    await stores.runs.change(*RUN, change, [of_run(EventType.RUN_SUCCEEDED)])
    assert await waiting(stores) == [(1, "run.accepted"), (4, "run.succeeded")]
    logged = {e.seq: e for e in await stores.events.read(*RUN, after_seq=0, limit=9)}
    for told in await stores.outbox.waiting(*RUN, 9):
        assert told == logged[told.seq]


async def test_every_way_of_writing_an_event_is_covered(stores: Stores) -> None:
    await created(stores)
    await stores.approvals.request(approval(stores.clock.now()))
    await stores.events.append(*RUN, [of_run(EventType.RUN_SUSPENDED)])
    await stores.runs.put_step(step(), [of_run(EventType.RUN_RESUMED)])
    types = {kind for _, kind in await waiting(stores)}
    assert types == {"run.accepted", "approval.requested", "run.suspended", "run.resumed"}
    logged = await stores.events.read(*RUN, after_seq=0, limit=99)
    assert types == {e.type.value for e in logged if e.type in LIFECYCLE_EVENTS}


async def test_a_write_that_changes_nothing_tells_nothing(stores: Stores) -> None:
    await created(stores)
    await stores.runs.create(run(), [of_run(EventType.RUN_ACCEPTED)], None)  # the same once more
    await stores.events.append(*RUN, [of_run(EventType.RUN_ACCEPTED)])  # a known key
    change, only = RunChange(status=RunStatus.RUNNING), frozenset({RunStatus.PLANNING})
    with pytest.raises(ConflictError):
        await stores.runs.change(*RUN, change, [of_run(EventType.RUN_SUSPENDED)], only_from=only)
    assert await waiting(stores) == [(1, "run.accepted")]


async def test_what_was_told_is_gone_and_what_came_meanwhile_is_not(stores: Stores) -> None:
    await created(stores)
    seen = await stores.outbox.waiting(*RUN, 9)
    await stores.events.append(*RUN, [of_run(EventType.RUN_SUSPENDED)])
    for _ in range(2):  # the second time there is nothing to take out
        await stores.outbox.told(*RUN, through_seq=seen[-1].seq)
    assert await waiting(stores) == [(2, "run.suspended")]
    await stores.outbox.told(*RUN, through_seq=2)
    assert await stores.outbox.runs_waiting(9) == ()
    assert len(await stores.events.read(*RUN, after_seq=0, limit=9)) == 2, "the log itself keeps everything"


async def test_the_run_that_waits_longest_is_first_and_each_is_named_once(stores: Stores) -> None:
    await created(stores, "run-9")
    stores.clock.advance(1)
    await created(stores, "run-1", "fabrikam")
    stores.clock.advance(1)
    await created(stores)
    stores.clock.advance(1)
    await stores.events.append("contoso", "run-9", [of_run(EventType.RUN_SUSPENDED)])
    order = [WaitingRun("contoso", "run-9"), WaitingRun("fabrikam", "run-1"), WaitingRun(*RUN)]
    assert list(await stores.outbox.runs_waiting(9)) == order
    assert list(await stores.outbox.runs_waiting(2)) == order[:2]
    await stores.outbox.told("fabrikam", "run-1", through_seq=1)
    assert list(await stores.outbox.runs_waiting(9)) == [order[0], order[2]]


async def test_a_long_backlog_of_one_run_comes_in_order_and_in_parts(stores: Stores) -> None:
    await created(stores)
    for number in range(12):
        kind = EventType.RUN_SUSPENDED if number % 2 else EventType.RUN_RESUMED
        await stores.events.append(*RUN, [new_event(kind, RunEventData(), f"k{number}")])
    told: list[int] = []
    while part := await stores.outbox.waiting(*RUN, 5):
        assert len(part) == 5 or len(told) == 10
        told += [e.seq for e in part]
        await stores.outbox.told(*RUN, through_seq=part[-1].seq)
    assert told == list(range(1, 14))


async def test_several_events_of_one_write_are_told_in_their_order(stores: Stores) -> None:
    first = [of_run(EventType.RUN_ACCEPTED), event("other"), of_run(EventType.RUN_SUSPENDED)]
    await stores.runs.create(run(), first, claim())
    assert await waiting(stores) == [(1, "run.accepted"), (3, "run.suspended")]


async def test_without_a_bus_nothing_is_kept(sql_url: str, cosmos: CosmosWorld) -> None:
    clock = FixedClock()
    database = Database(sql_url, clock)
    await SqlRunStore(database, clock).create(run(), [of_run(EventType.RUN_ACCEPTED)], None)
    assert await SqlOutbox(database).runs_waiting(9) == ()
    await database.dispose()
    connection = cosmos.connect()
    partitions = RunPartitions(connection, clock)
    await CosmosRunStore(partitions).create(run(), [of_run(EventType.RUN_ACCEPTED)], None)
    await CosmosEventLog(partitions).append(*RUN, [of_run(EventType.RUN_SUSPENDED)])
    assert await CosmosOutbox(connection).runs_waiting(9) == ()


async def test_another_process_finds_what_a_dead_one_left(open_sql: Callable[[], Stores], cosmos: CosmosWorld) -> None:
    openers: tuple[Callable[[], Any], ...] = (open_sql, cosmos.open)
    for another in openers:
        await created(another())
        assert await waiting(another()) == [(1, "run.accepted")]
