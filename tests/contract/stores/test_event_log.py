"""What every event log promises: one order, no gaps, no repeats, and waking whoever waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

import pytest

from engine.domain.errors import LivoaError, NotFoundError
from engine.domain.events import EventType, StepEventData, new_event
from engine.domain.run import StepRecord
from engine.domain.status import StepStatus
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import broken_event, event, run, step
from tests.contract.stores.conftest import Stores


async def test_events_are_read_back_in_order_with_their_data(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    data = StepEventData(step_id="spend", attempt=2, message='ü"\\ \u2028 \x00')
    appended = await stores.events.append(
        "contoso", "run-1", [new_event(EventType.STEP_FAILED, data, "a"), event("b"), event("c")]
    )
    assert [(e.seq, e.type, e.at) for e in appended] == [
        (1, EventType.STEP_FAILED, stores.clock.now()),
        (2, EventType.STEP_STARTED, stores.clock.now()),
        (3, EventType.STEP_STARTED, stores.clock.now()),
    ]
    assert appended[0].data == data.model_dump(mode="json", exclude_none=True)
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=10) == appended
    assert await stores.events.read("contoso", "run-1", after_seq=1, limit=1) == appended[1:2]
    assert await stores.events.read("contoso", "run-1", after_seq=3, limit=10) == ()


async def test_a_known_key_is_not_appended_again(stores: Stores) -> None:
    await stores.runs.create(run(), [event("a")], None)
    assert await stores.events.append("contoso", "run-1", [event("a")]) == ()
    appended = await stores.events.append("contoso", "run-1", [event("b"), event("a"), event("b"), event("c")])
    assert [e.seq for e in appended] == [2, 3]
    assert await stores.runs.put_step(step(), [event("c"), event("d")])
    assert [e.seq for e in await stores.events.read("contoso", "run-1", after_seq=0, limit=10)] == [1, 2, 3, 4]


async def test_the_same_key_in_two_runs_is_two_events(stores: Stores) -> None:
    for run_id in ("run-1", "run-2"):
        await stores.runs.create(run(run_id), [], None)
        assert len(await stores.events.append("contoso", run_id, [event("a")])) == 1


async def test_many_events_fit_into_one_append(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    await stores.events.append("contoso", "run-1", [event(f"k{n}") for n in range(700)])
    appended = await stores.events.append("contoso", "run-1", [event(f"k{n}") for n in range(1200)])
    assert [e.seq for e in appended] == list(range(701, 1201))


async def test_appending_to_a_run_that_is_not_there_is_refused(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    for tenant_id, run_id in (("contoso", "run-9"), ("fabrikam", "run-1")):
        with pytest.raises(NotFoundError) as caught:
            await stores.events.append(tenant_id, run_id, [event()])
        assert caught.value.code == "run.not_found"


async def test_an_append_that_fails_in_the_middle_appends_nothing(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    with pytest.raises(LivoaError):
        await stores.events.append("contoso", "run-1", [event("a"), broken_event()])
    assert await stores.events.read("contoso", "run-1", after_seq=0, limit=10) == ()
    assert [e.seq for e in await stores.events.append("contoso", "run-1", [event("a")])] == [1]


async def test_another_tenant_reads_nothing_and_is_not_woken(stores: Stores) -> None:
    await stores.runs.create(run(), [event()], None)
    assert await stores.events.read("fabrikam", "run-1", after_seq=0, limit=10) == ()
    assert not await stores.events.wait("fabrikam", "run-1", after_seq=0, timeout_s=0)


async def test_fifty_writers_at_once_leave_no_gap(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)

    async def write(number: int) -> None:
        record: StepRecord = step(f"s{number}", status=StepStatus.RUNNING)
        await stores.runs.put_step(record, [event(f"a{number}"), event("shared")])
        await stores.events.append("contoso", "run-1", [event(f"b{number}"), event("shared")])

    await asyncio.gather(*map(write, range(50)))
    events = await stores.events.read("contoso", "run-1", after_seq=0, limit=1000)
    assert [e.seq for e in events] == list(range(1, 102))


async def test_a_page_of_events_is_bounded(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    await stores.events.append("contoso", "run-1", [event(f"k{n}") for n in range(1100)])
    assert len(await stores.events.read("contoso", "run-1", after_seq=0, limit=10**9)) == 1000
    assert len(await stores.events.read("contoso", "run-1", after_seq=0, limit=0)) == 1


async def test_waiting_ends_at_once_when_the_event_is_there(stores: Stores) -> None:
    await stores.runs.create(run(), [event()], None)
    assert await stores.events.wait("contoso", "run-1", after_seq=0, timeout_s=0)


async def test_waiting_ends_without_an_event_when_the_time_is_over(stores: Stores) -> None:
    await stores.runs.create(run(), [event()], None)
    assert not await stores.events.wait("contoso", "run-1", after_seq=1, timeout_s=0.05)


@pytest.mark.parametrize("writer", ["append", "put_step", "change"])
async def test_a_writer_of_this_process_wakes_whoever_waits(
    stores: Stores, writer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Polling is switched off: only the wake-up can end the wait in time."""
    monkeypatch.setattr("engine.adapters.wakeups.FIRST_POLL_S", 1000.0)
    monkeypatch.setattr("engine.adapters.wakeups.LONGEST_POLL_S", 1000.0)
    await stores.runs.create(run(), [], None)
    waits = [asyncio.create_task(stores.events.wait("contoso", "run-1", after_seq=0, timeout_s=60)) for _ in range(3)]
    await asyncio.sleep(0.05)
    assert not any(w.done() for w in waits)
    if writer == "append":
        await stores.events.append("contoso", "run-1", [event()])
    elif writer == "put_step":
        await stores.runs.put_step(step(), [event()])
    else:
        await stores.runs.change("contoso", "run-1", RunChange(), [event()])
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waits) == [True] * 3


async def test_a_writer_of_another_process_is_noticed(open_sql: Callable[[], Stores]) -> None:
    here, there = open_sql(), open_sql()
    await here.runs.create(run(), [], None)
    waiting = asyncio.create_task(here.events.wait("contoso", "run-1", after_seq=0, timeout_s=30))
    await asyncio.sleep(0.05)
    started = time.monotonic()
    await there.events.append("contoso", "run-1", [event()])
    assert await waiting
    assert time.monotonic() - started < 5


async def test_waiting_long_is_not_a_busy_loop(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the waiter is woken for something else in between."""
    asked = 0
    wakeups, real = stores.wakeups, stores.wakeups.wait

    async def counting(key: Hashable, holds: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
        async def counted() -> bool:
            nonlocal asked
            asked += 1
            if asked == 2:
                wakeups.notify(key)
            return await holds()

        return await real(key, counted, timeout_s)

    monkeypatch.setattr(wakeups, "wait", counting)
    await stores.runs.create(run(), [], None)
    assert not await stores.events.wait("contoso", "run-1", after_seq=0, timeout_s=1.0)
    assert 3 <= asked <= 12


async def test_the_order_of_a_log_is_that_of_its_numbers_whatever_the_clock_did(stores: Stores) -> None:
    await stores.runs.create(run(), [], None)
    for number, seconds in enumerate((60.0, -120.0, 30.0, -5.0, 0.0)):  # set back, and forwards, by whoever keeps time
        stores.clock.advance(seconds)
        await stores.events.append("contoso", "run-1", [event(f"k{number}"), event(f"l{number}")])
    whole = await stores.events.read("contoso", "run-1", after_seq=0, limit=100)
    assert [e.seq for e in whole] == list(range(1, 11))
    paged, after = [], 0
    while page := await stores.events.read("contoso", "run-1", after_seq=after, limit=3):
        paged += page
        after = page[-1].seq
    assert paged == list(whole)
