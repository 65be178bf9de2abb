"""Progress of a call in the event log: seldom, boundedly often, once, and never in the way."""

from __future__ import annotations

import pytest

from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteProgress, ExecuteSucceeded
from engine.domain.outcomes import Succeeded
from engine.step_runner.progress import MAX_WORDS, ProgressReporter
from engine.step_runner.task import StepTask
from tests.support.world import World, plan_of, step


@pytest.fixture
def world() -> World:
    return World()


async def told(world: World) -> list[tuple[float | None, str | None]]:
    events = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=1_000)
    found = [event.data for event in events if event.type == "step.progressed"]
    return [(data.get("progress"), data.get("message")) for data in found]


async def reporter(world: World, attempt: int = 1) -> ProgressReporter:
    return ProgressReporter(
        StepTask(tenant_id="contoso", run_id="run-1", step_id="a", attempt=attempt), "calc.double", world.deps
    )


async def test_what_an_agent_says_while_it_works_is_in_the_log_before_the_step_ends(world: World) -> None:
    await world.submit(plan_of(step("a")))

    async def working(capability, request, *, traceparent=None, progress=None):  # type: ignore[no-untyped-def]
        for percent in (10, 60):
            await progress(ExecuteProgress(fraction=percent / 100, message=f"{percent} done"))
            world.clock.advance(2)
        return ExecuteSucceeded(output={"n": 2})

    world.invoker.invoke = working  # type: ignore[method-assign]
    assert await world.perform("a") == Succeeded()
    events = await world.deps.events.read("contoso", "run-1", after_seq=0, limit=100)
    kinds = [event.type.value for event in events if event.type.value.startswith("step.")]
    assert kinds == ["step.started", "step.progressed", "step.progressed", "step.succeeded"]
    assert await told(world) == [(0.1, "10 done"), (0.6, "60 done")]


async def test_a_flood_is_one_event_a_second_and_a_hundred_at_most(world: World) -> None:
    await world.submit(plan_of(step("a")))
    tell = await reporter(world)
    for _ in range(500):
        await tell(ExecuteProgress(message="busy"))
    assert len(await told(world)) == 1
    for _ in range(500):
        world.clock.advance(2)
        await tell(ExecuteProgress(message="busy"))
    assert len(await told(world)) == MAX_WORDS
    for number in range(5_000):
        world.clock.advance(2)
        await tell(ExecuteProgress(fraction=number / 5_000))
    assert len(await told(world)) == MAX_WORDS + 100, "one for each percent"


async def test_progress_goes_on_when_the_clock_is_set_back(world: World) -> None:
    await world.submit(plan_of(step("a")))
    tell = await reporter(world)
    await tell(ExecuteProgress(fraction=0.1))
    world.clock.advance(-3_600)
    await tell(ExecuteProgress(fraction=0.5))
    assert [fraction for fraction, _ in await told(world)] == [0.1, 0.5]


async def test_progress_does_not_go_back_and_a_repeated_delivery_repeats_nothing(world: World) -> None:
    await world.submit(plan_of(step("a")))
    for _ in range(2):
        tell = await reporter(world)
        for fraction in (0.5, 0.2, 0.5, 0.7):
            world.clock.advance(2)
            await tell(ExecuteProgress(fraction=fraction))
    assert await told(world) == [(0.5, None), (0.7, None)]
    tell = await reporter(world, attempt=2)
    await tell(ExecuteProgress(fraction=0.1))
    assert (await told(world))[-1] == (0.1, None), "another attempt begins anew"


async def test_a_fraction_is_recorded_as_people_write_it(world: World) -> None:
    await world.submit(plan_of(step("a")))
    await (await reporter(world))(ExecuteProgress(fraction=0.8500000000000001))
    assert [repr(fraction) for fraction, _ in await told(world)] == ["0.85"]


async def test_words_cannot_move_a_cursor(world: World) -> None:
    await world.submit(plan_of(step("a")))
    await (await reporter(world))(ExecuteProgress(message="\x1b[2Jdone\r\nrun.succeeded\u202e"))
    (found,) = await told(world)
    assert found == (None, "[2Jdone  run.succeeded")


async def test_a_log_in_trouble_does_not_stop_the_call(world: World) -> None:
    await world.submit(plan_of(step("a")))

    class Broken:
        async def append(self, *_: object) -> None:
            raise LivoaError("store.unavailable", "no", status=503)

    tell = await reporter(world)
    tell._deps = type("Deps", (), {"clock": world.clock, "events": Broken()})()  # type: ignore[assignment]
    await tell(ExecuteProgress(fraction=0.1))
