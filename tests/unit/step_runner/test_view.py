"""What steps see is read once and kept within bounds, however many steps begin together."""

import asyncio

import pytest

from engine.domain.run import PayloadRef
from engine.step_runner import view
from tests.support.world import World, plan_of, step


@pytest.fixture
def cache(monkeypatch):
    fresh = view._PayloadCache()
    monkeypatch.setattr(view, "_CACHE", fresh)
    return fresh


async def _slowly(world, reads):
    real = world.deps.payloads.get

    async def get(tenant_id, run_id, ref: PayloadRef):
        reads.append(ref.sha256)
        for _ in range(5):
            await asyncio.sleep(0)
        return await real(tenant_id, run_id, ref)

    world.deps.payloads.get = get


async def test_steps_that_begin_together_read_the_plan_once(cache):
    world = World()
    await world.submit(plan_of(*(step(f"s{i}") for i in range(20))))
    reads: list[str] = []
    await _slowly(world, reads)
    await asyncio.gather(*(world.perform(f"s{i}") for i in range(20)))
    assert len(reads) == 2  # the plan and the request


async def test_the_cache_never_counts_more_than_it_holds(cache):
    """Counted twice, an entry would stay on the books after it was dropped, until nothing could be kept any more."""
    value = {"n": 1}
    for _ in range(3):
        cache._keep(("contoso", "run-1", "0" * 64, "json"), view._CACHE_BYTES // 2, value)
    for number in range(5):
        cache._keep(("contoso", "run-1", f"{number:064}", "plan"), view._CACHE_BYTES // 2, value)
    assert cache._size == sum(size for size, _ in cache._entries.values()) <= view._CACHE_BYTES


async def test_a_caller_who_gives_up_does_not_spoil_the_reading_for_the_others(cache):
    world = World()
    await world.submit(plan_of(step("a"), step("b")))
    await _slowly(world, [])
    first = asyncio.create_task(world.perform("a"))
    second = asyncio.create_task(world.perform("b"))
    for _ in range(4):
        await asyncio.sleep(0)
    first.cancel()
    assert (await second).status == "succeeded"


async def test_a_reading_that_failed_is_tried_again(cache):
    world = World()
    await world.submit(plan_of(step("a")))
    real = world.deps.payloads.get

    async def fails(*_):
        raise OSError("disk")

    world.deps.payloads.get = fails
    with pytest.raises(OSError, match="disk"):
        await world.perform("a")
    world.deps.payloads.get = real
    assert (await world.perform("a")).status == "succeeded"
    assert not cache._readings
