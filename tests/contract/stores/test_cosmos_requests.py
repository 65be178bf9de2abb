"""What a write asks Cosmos DB for: no query where this process knows, or the database refuses by itself; and the same answers."""

from __future__ import annotations

import asyncio

import pytest

from engine.adapters.cosmos.definitions import AUDIT
from engine.domain.events import EventType
from engine.domain.run import Run
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from engine.ports.run_store import RunChange
from tests.contract.stores.builders import entry, event, run, step
from tests.contract.stores.conftest import CosmosWorld, Stores


def queries(world: CosmosWorld) -> int:
    return sum(count for name, count in world.fake.requests.items() if "query" in name.lower())


async def keys_of(stores: Stores) -> list[int]:
    return [each.seq for each in await stores.events.read("contoso", "run-1", after_seq=0, limit=1_000)]


async def test_a_step_is_written_without_a_query(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    await stores.runs.create(run(), [event("accepted")], None)
    before = queries(cosmos)
    for number in range(5):
        await stores.runs.put_step(step(f"s{number}", status=StepStatus.RUNNING), [event(f"started/{number}")])
        await stores.audit.append(entry(f"intended/{number}"))
        await stores.audit.append(entry(f"result/{number}"))
        await stores.runs.put_step(step(f"s{number}", status=StepStatus.SUCCEEDED), [event(f"ended/{number}")])
    assert queries(cosmos) == before


async def test_events_of_another_process_are_known_before_ones_own_are_written(cosmos: CosmosWorld) -> None:
    one, other = cosmos.open(), cosmos.open()
    await one.runs.create(run(), [event("accepted")], None)
    for number in range(12):
        writer = one if number % 2 else other
        for _ in range(2):  # the second time it is known, whoever wrote it
            await one.events.append("contoso", "run-1", [event(f"e{number}")])
            await writer.events.append("contoso", "run-1", [event(f"e{number}"), event(f"f{number}")])
    assert await keys_of(one) == list(range(1, 26))


async def test_a_process_that_comes_late_asks_once_and_repeats_nothing(cosmos: CosmosWorld) -> None:
    one, late = cosmos.open(), cosmos.open()
    await one.runs.create(run(), [event("accepted")], None)
    for number in range(20):
        await one.events.append("contoso", "run-1", [event(f"e{number}")])
    before = queries(cosmos)
    for number in range(25):
        await late.events.append("contoso", "run-1", [event(f"e{number}")])
    asked = queries(cosmos) - before
    assert 1 <= asked <= 5, "pages of one query"
    assert await keys_of(late) == list(range(1, 27))


async def test_a_log_that_is_too_long_to_be_held_is_asked(cosmos: CosmosWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.adapters.cosmos.event_keys.MAX_KEYS", 5)
    stores = cosmos.open()
    await stores.runs.create(run(), [event("accepted")], None)
    for number in range(10):
        for _ in range(2):
            await stores.events.append("contoso", "run-1", [event(f"e{number}", EventType.STEP_RETRIED)])
    assert await keys_of(stores) == list(range(1, 12))


async def test_many_writers_of_one_run_repeat_nothing(cosmos: CosmosWorld) -> None:
    processes = [cosmos.open() for _ in range(3)]
    await processes[0].runs.create(run(), [event("accepted")], None)
    await asyncio.gather(
        *(p.events.append("contoso", "run-1", [event(f"e{number}")]) for p in processes for number in range(6))
    )
    assert await keys_of(processes[0]) == list(range(1, 8))


async def test_without_the_unique_key_a_known_entry_is_looked_for(cosmos: CosmosWorld) -> None:
    container = cosmos.fake.account.databases["livoa"][AUDIT.name]
    del container.properties["uniqueKeyPolicy"]
    stores = cosmos.open()
    before = queries(cosmos)
    first = await stores.audit.append(entry("a"))
    assert await stores.audit.append(entry("a")) == first
    assert await cosmos.open().audit.append(entry("a")) == first
    assert queries(cosmos) > before


async def test_beyond_the_first_span_a_known_entry_is_found_in_any(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()  # spans of 25 records
    records = [await stores.audit.append(entry(f"e{number}")) for number in range(60)]
    again = [await cosmos.open().audit.append(entry(f"e{number}")) for number in (0, 24, 25, 49, 59)]
    assert again == [records[number] for number in (0, 24, 25, 49, 59)]
    found = await stores.audit.read("contoso", after_seq=0, limit=100)
    assert len(found) == 60
    assert verify(found, "contoso") == []


async def test_processes_that_append_at_once_make_one_chain_and_lose_nothing(cosmos: CosmosWorld) -> None:
    processes = [cosmos.open() for _ in range(4)]
    made = await asyncio.gather(
        *(p.audit.append(entry(f"p{number}/e{n}")) for n in range(8) for number, p in enumerate(processes))
    )
    records = await processes[0].audit.read("contoso", after_seq=0, limit=100)
    assert {record.entry_id for record in records} == {f"p{number}/e{n}" for number in range(4) for n in range(8)}
    assert sorted(made, key=lambda record: record.seq) == list(records), "what was acknowledged is what is there"
    assert verify(records, "contoso") == []


async def test_processes_that_append_the_same_at_once_make_one_record(cosmos: CosmosWorld) -> None:
    processes = [cosmos.open() for _ in range(3)]
    made = await asyncio.gather(*(p.audit.append(entry(f"e{n}")) for p in processes for n in range(10)))
    assert len({record.seq for record in made}) == 10
    assert verify(await processes[0].audit.read("contoso", after_seq=0, limit=100), "contoso") == []


@pytest.mark.parametrize("ends", [RunStatus.CANCELLING, RunStatus.CANCELLED])
async def test_a_step_that_was_done_before_its_run_was_cancelled_is_not_read_as_open(
    cosmos: CosmosWorld, monkeypatch: pytest.MonkeyPatch, ends: RunStatus
) -> None:
    stores, other = cosmos.open(), cosmos.open()
    await stores.runs.create(run(), [], None)
    await stores.runs.put_step(step(status=StepStatus.RUNNING))
    get, get_step, was_read = stores.runs.get, stores.runs.get_step, asyncio.Event()

    async def slow_get(tenant_id: str, run_id: str) -> Run | None:
        await was_read.wait()
        await other.runs.put_step(step(status=StepStatus.SUCCEEDED))
        await other.runs.change("contoso", "run-1", RunChange(status=ends))
        return await get(tenant_id, run_id)

    async def quick_get_step(*of: str) -> object:
        found = await get_step(*of)
        was_read.set()
        return found

    monkeypatch.setattr(stores.runs, "get", slow_get)
    monkeypatch.setattr(stores.runs, "get_step", quick_get_step)
    found, record = await stores.runs.get_with_step("contoso", "run-1", "spend")
    assert found is not None
    assert record is not None
    assert (found.status, record.status) == (ends, StepStatus.SUCCEEDED)
