"""A host that is full: what it refuses, what it never refuses, and how it goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from local_host.durable.admission import Admission, Bounds, HostFullError, Load
from local_host.durable.client_ops import ConflictError
from local_host.durable.episodes import new_instance
from local_host.durable.protocol import to_stamp
from local_host.durable.records import ParentLink, start_instance
from local_host.durable.storage import Storage
from local_host.errors import HostError
from local_host.settings import read_host_config
from tests.unit.local_host.durable_app import START_AT, Bench, PlainApp, running


def make_app(gate: asyncio.Event) -> PlainApp:
    app = PlainApp()

    @app.activity
    async def held(value: Any) -> Any:
        await gate.wait()
        return value

    @app.orchestration
    def holds(context: Any) -> Any:
        return (yield context.task_all([context.call_activity("held", n) for n in range(context.get_input())]))

    @app.orchestration
    def quick(context: Any) -> Any:
        return "done"
        yield

    @app.orchestration
    def waits(context: Any) -> Any:
        wanted = yield context.wait_for_external_event("go")
        yield context.call_entity(context_entity(), "add", 1)
        child = yield context.call_sub_orchestrator("quick", None, "child")
        return [wanted, child, (yield context.call_activity("held", "last"))]

    @app.entity_function
    def counter(context: Any) -> None:
        context.set_state(context.get_state(lambda: 0) + context.get_input())
        context.set_result(True)

    return app


def context_entity() -> Any:
    from azure.durable_functions import EntityId

    return EntityId("counter", "c")


async def _until(bench: Bench, is_so: Callable[[Load], bool]) -> None:
    """Wait for real work of other tasks, not for a clock."""
    for _ in range(5_000):
        if is_so(bench.engine.admission.load):
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"never: {bench.engine.admission.load}")


async def test_open_activities_fill_the_host_and_their_end_empties_it(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with running(make_app(gate), tmp_path, bounds=Bounds(max_open_activities=3)) as bench:
        await bench.start("holds", 2, "first")
        await bench.start("holds", 2, "second")
        await bench.start("waits", None, "waiting")
        await _until(bench, lambda load: (load.open_activities, load.is_full, load.pending_starts) == (4, True, 0))
        with pytest.raises(HostFullError, match="4 of 3 open activities"):
            await bench.start("quick", None, "outside")
        assert await bench.engine.status("outside") is None
        # Work of what runs is taken all the same: events, entity calls, children, activities, starts from within.
        await bench.engine.raise_event("waiting", "go", '"\\"yes\\""')
        await bench.engine.start_new("quick", "within", from_within=True)
        await bench.engine.wait_for_end("within", 10)
        await bench.engine.wait_for_end("child", 10)
        await _until(bench, lambda load: load.open_activities == 5)
        heard: list[str] = []
        bench.engine.admission.when_room(lambda: heard.append("room"))
        gate.set()
        for instance_id in ("first", "second", "waiting"):
            ended = await bench.engine.wait_for_end(instance_id, 10)
            assert ended is not None
            assert ended.instance.status == "Completed", instance_id
        assert heard == ["room"]
        await bench.start("quick", None, "outside")
        ended = await bench.engine.wait_for_end("outside", 10)
        assert ended is not None
        assert ended.instance.status == "Completed"
        assert bench.engine.admission.load.refused_starts == 1
        assert not bench.engine.admission.load.is_full


async def test_of_starts_at_once_no_more_are_taken_than_there_are_places(tmp_path: Path) -> None:
    async with running(make_app(asyncio.Event()), tmp_path, bounds=Bounds(max_pending_starts=3)) as bench:
        starts = [bench.start("quick", None, f"run-{number}") for number in range(8)]
        answers = await asyncio.gather(*starts, return_exceptions=True)
        taken = [answer for answer in answers if isinstance(answer, str)]
        assert len(taken) == 3
        assert sum(isinstance(answer, HostFullError) for answer in answers) == 5
        await bench.settle()
        refused = {f"run-{number}" for number in range(8)} - set(taken)
        for instance_id in sorted(refused):  # who comes again later is served, one after the other
            await bench.run("quick", None, instance_id)
        for instance_id in taken:
            assert (await bench.run_to_end(instance_id)).status == "Completed"
        assert bench.engine.admission.load.pending_starts == 0


async def test_a_refused_duplicate_takes_no_place_and_gives_none_away(tmp_path: Path) -> None:
    async with running(make_app(asyncio.Event()), tmp_path, bounds=Bounds(max_pending_starts=2)) as bench:
        await bench.start("waits", None, "alive")
        await bench.settle()
        for _ in range(5):
            with pytest.raises(ConflictError):
                await bench.start("waits", None, "alive")
        assert bench.engine.admission.load.pending_starts == 0
        admission = bench.engine.admission
        assert admission.add("other")
        assert not admission.add("other")
        assert admission.room == 1


async def test_a_terminated_and_a_suspended_start_take_no_place(tmp_path: Path) -> None:
    async with running(make_app(asyncio.Event()), tmp_path, bounds=Bounds(max_pending_starts=2)) as bench:
        actor = bench.engine._runtime.actor("ended")
        async with actor.lock:  # no episode begins meanwhile
            await bench.start("quick", None, "ended")
            assert bench.engine.admission.load.pending_starts == 1
            terminating = asyncio.ensure_future(bench.engine.terminate("ended", "enough"))
        await terminating
        held = bench.engine._runtime.actor("held")
        async with held.lock:
            await bench.start("waits", None, "held")
            suspending = asyncio.ensure_future(bench.engine.suspend("held", "later"))
        await suspending
        await bench.settle()
        assert bench.engine.admission.load.pending_starts == 0


async def test_a_host_that_comes_back_counts_what_it_had_accepted_and_does_it(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "hub.db", synchronous="NORMAL")
    await storage.open()
    at = to_stamp(START_AT)
    for number in range(5):
        item = new_instance(f"accepted-{number}", "quick", None, None, at)
        await storage.write(lambda c, item=item: start_instance(c, item))  # type: ignore[misc]  # bound at once
    child = new_instance("child", "quick", None, None, at, ParentLink("accepted-0", "execution", 0))
    held = replace(new_instance("held", "quick", None, None, at), suspended=True)
    await storage.write(lambda c: start_instance(c, child))
    await storage.write(lambda c: start_instance(c, held))
    await storage.close()
    async with running(make_app(asyncio.Event()), tmp_path, bounds=Bounds(max_pending_starts=4)) as bench:
        assert bench.engine.admission.load.pending_starts == 5  # neither its own work nor what is put off
        with pytest.raises(HostFullError):
            await bench.start("quick", None, "new")
        for number in range(5):
            assert (await bench.run_to_end(f"accepted-{number}")).status == "Completed"
        assert await bench.run("quick", None, "new") == "done"


def test_the_log_says_once_that_the_host_is_full_and_once_that_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission(Bounds(max_pending_starts=1), lambda: 0)
    admission.add("a")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with pytest.raises(HostFullError):
                admission.require_room()
        admission.look()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        admission.remove("a")
        admission.remove("a")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9999999999", "\u0663"])
def test_a_bound_that_is_none_stops_the_host(tmp_path: Path, value: str) -> None:
    (tmp_path / "host.json").write_text("{}")
    with pytest.raises(HostError) as caught:
        read_host_config(tmp_path, {"LOCAL_HOST_MAX_OPEN_ACTIVITIES": value})
    assert (caught.value.code, caught.value.where) == ("host.unsupported_setting", "LOCAL_HOST_MAX_OPEN_ACTIVITIES")


def test_the_bounds_come_from_settings(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text("{}")
    assert read_host_config(tmp_path, {}).bounds == Bounds(1_000, 10_000)
    given = {"LOCAL_HOST_MAX_PENDING_STARTS": "7", "LOCAL_HOST_MAX_OPEN_ACTIVITIES": " 9 "}
    assert read_host_config(tmp_path, given).bounds == Bounds(7, 9)
