"""What every keeper of run keys promises: one key per run, destroyed for good, and which belong to nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from engine.ports.run_keys import RunKey, WrappedKey
from tests.contract.stores.builders import run
from tests.contract.stores.conftest import CosmosWorld, Stores

WRAPPED = WrappedKey("file:0011", b"\x00wrapped\xff")


def key(stores: Stores, run_id: str = "run-1", tenant_id: str = "contoso", key_id: str = "a" * 32) -> RunKey:
    return RunKey(tenant_id, run_id, key_id, WRAPPED, stores.clock.now())


async def test_a_key_is_kept_as_it_was(stores: Stores) -> None:
    assert await stores.run_keys.get("contoso", "run-1") is None
    made = key(stores)
    assert await stores.run_keys.create(made) == made
    assert await stores.run_keys.get("contoso", "run-1") == made
    assert await stores.run_keys.get("fabrikam", "run-1") is None


async def test_the_first_key_stands_however_many_are_made_at_once(stores: Stores) -> None:
    made = [key(stores, key_id=f"{number:032x}") for number in range(12)]
    found = await asyncio.gather(*(stores.run_keys.create(each) for each in made))
    assert len({each.key_id for each in found}) == 1
    assert await stores.run_keys.get("contoso", "run-1") == found[0]


async def test_a_destroyed_key_is_gone_and_none_can_follow(stores: Stores) -> None:
    made = await stores.run_keys.create(key(stores))
    at = stores.clock.now()
    gone = await stores.run_keys.destroy("contoso", "run-1", at)
    assert gone == replace(made, wrapped=None, destroyed_at=at)
    assert await stores.run_keys.destroy("contoso", "run-1", at + timedelta(hours=1)) == gone
    assert await stores.run_keys.create(key(stores, key_id="b" * 32)) == gone
    assert await stores.run_keys.get("contoso", "run-1") == gone


async def test_destroying_what_was_never_made_prevents_it(stores: Stores) -> None:
    gone = await stores.run_keys.destroy("contoso", "run-1", stores.clock.now())
    assert (gone.wrapped, gone.destroyed_at) == (None, stores.clock.now())
    assert (await stores.run_keys.create(key(stores))).wrapped is None


async def test_destroying_at_once_has_one_time(stores: Stores) -> None:
    await stores.run_keys.create(key(stores))
    now = stores.clock.now()
    gone = await asyncio.gather(
        *(stores.run_keys.destroy("contoso", "run-1", now + timedelta(seconds=n)) for n in range(5))
    )
    assert len(set(gone)) == 1


async def test_keys_without_a_run_are_found_once_they_are_old_enough(stores: Stores) -> None:
    for run_id in ("run-1", "lost-1", "lost-2", "gone"):
        await stores.run_keys.create(key(stores, run_id))
    await stores.run_keys.create(key(stores, "lost-1", "fabrikam"))
    await stores.run_keys.destroy("contoso", "gone", stores.clock.now())
    await stores.runs.create(run("run-1"), [], None)
    later = stores.clock.now() + timedelta(seconds=1)

    async def ownerless(before, limit: int = 10) -> list[str]:
        found = await stores.run_keys.ownerless("contoso", created_before=before, limit=limit)
        return sorted(each.run_id for each in found)

    assert await ownerless(later) == ["lost-1", "lost-2"]
    assert await ownerless(stores.clock.now()) == []
    assert len(await ownerless(later, limit=1)) == 1
    for run_id in ("lost-1", "lost-2"):
        await stores.run_keys.destroy("contoso", run_id, later)
    assert await ownerless(later) == []


async def test_a_key_whose_run_exists_is_looked_at_once(cosmos: CosmosWorld) -> None:
    stores = cosmos.open()
    for number in range(40):
        await stores.run_keys.create(key(stores, f"run-{number:02d}"))
        if number != 20:
            await stores.runs.create(run(f"run-{number:02d}"), [], None)
    later = stores.clock.now() + timedelta(seconds=1)

    async def ownerless() -> tuple[list[str], int]:
        before = sum(cosmos.fake.requests.values())
        found = await stores.run_keys.ownerless("contoso", created_before=later, limit=10)
        return [each.run_id for each in found], sum(cosmos.fake.requests.values()) - before

    assert (await ownerless())[0] == ["run-20"]
    found, requests = await ownerless()
    assert found == ["run-20"]
    assert requests <= 3, "however many runs there are"
    owned = await stores.run_keys.get("contoso", "run-05")
    assert owned is not None
    assert owned.wrapped is not None
    gone = await stores.run_keys.destroy("contoso", "run-05", later)
    assert gone.wrapped is None


async def test_one_pass_over_keys_is_bounded(cosmos: CosmosWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.adapters.cosmos.run_keys.PAGE", 4)
    monkeypatch.setattr("engine.adapters.cosmos.run_keys.MAX_LOOKED_AT", 8)
    stores = cosmos.open()
    for number in range(20):
        await stores.run_keys.create(key(stores, f"run-{number:02d}"))
        if number != 19:
            await stores.runs.create(run(f"run-{number:02d}"), [], None)
    later = stores.clock.now() + timedelta(seconds=1)
    passes = [await stores.run_keys.ownerless("contoso", created_before=later, limit=10) for _ in range(3)]
    assert [[each.run_id for each in found] for found in passes] == [[], [], ["run-19"]]


async def test_they_are_found_behind_any_number_of_runs(cosmos: CosmosWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.adapters.cosmos.run_keys.PAGE", 5)
    stores = cosmos.open()
    for number in range(12):
        await stores.run_keys.create(key(stores, f"run-{number:02d}"))
        if number not in (3, 7, 11):
            await stores.runs.create(run(f"run-{number:02d}"), [], None)
    later = stores.clock.now() + timedelta(seconds=1)
    found = await stores.run_keys.ownerless("contoso", created_before=later, limit=10)
    assert [each.run_id for each in found] == ["run-03", "run-07", "run-11"]
