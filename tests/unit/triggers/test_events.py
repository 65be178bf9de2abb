"""The event log over HTTP: pages, streams, finite streams; resuming anywhere loses nothing and repeats nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.domain.events import EventType, RunEventData, StepEventData, new_event
from engine.domain.status import RunStatus
from engine.ports.run_store import RunChange
from tests.unit.triggers.world import World

JSON = {"accept": "application/json"}


async def append(world: World, run_id: str, count: int) -> None:
    first = len(await world.deps.events.read("contoso", run_id, after_seq=0, limit=1_000))
    data = [StepEventData(step_id=f"s{number}", message="line\nbreak") for number in range(first, first + count)]
    events = [new_event(EventType.STEP_STARTED, entry, entry.step_id) for entry in data]
    await world.deps.events.append("contoso", run_id, events)


async def finish(world: World, run_id: str) -> None:
    events = [new_event(EventType.RUN_SUCCEEDED, RunEventData())]
    await world.runs.change("contoso", run_id, RunChange(status=RunStatus.SUCCEEDED), events)


def parse_sse(body: bytes) -> list[dict[str, Any]]:
    """Events as an EventSource would deliver them; checks that ids and names agree with the data."""
    events = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if "data" in fields:
            data = json.loads(fields["data"])
            assert (int(fields["id"]), fields["event"]) == (data["seq"], data["type"])
            events.append(data)
    return events


def seqs(events: list[dict[str, Any]]) -> list[int]:
    return [event["seq"] for event in events]


@pytest.fixture
def streaming() -> World:
    return World(streaming=True)


async def test_a_page_says_where_to_go_on_and_whether_more_will_come(world: World) -> None:
    run_id = await world.submitted()
    await append(world, run_id, 4)

    page = (await world.get(f"/api/runs/{run_id}/events?limit=3", headers=JSON)).json
    assert (seqs(page["events"]), page["next_after"], page["ended"]) == ([1, 2, 3], 3, False)
    page = (await world.get(f"/api/runs/{run_id}/events?after=3", headers=JSON)).json
    assert (seqs(page["events"]), page["next_after"], page["ended"]) == ([4, 5], 5, False)
    await finish(world, run_id)
    page = (await world.get(f"/api/runs/{run_id}/events?after=5", headers=JSON)).json
    assert (seqs(page["events"]), page["ended"]) == ([6], True)
    page = (await world.get(f"/api/runs/{run_id}/events?after=6&wait_s=9", headers=JSON)).json
    assert (page["events"], page["next_after"], page["ended"]) == ([], 6, True)
    assert "contoso" not in json.dumps(page)


async def test_a_page_can_wait_for_the_next_event(world: World) -> None:
    run_id = await world.submitted()
    world.with_deps(settings=type(world.deps.settings)(environment="local", long_poll_s=5))
    waiting = asyncio.create_task(world.get(f"/api/runs/{run_id}/events?after=1&wait_s=5", headers=JSON))
    await asyncio.sleep(0)
    assert not waiting.done()
    await append(world, run_id, 1)
    assert seqs((await asyncio.wait_for(waiting, 4)).json["events"]) == [2]


async def test_waiting_is_bounded_by_us_not_by_the_caller(world: World) -> None:
    run_id = await world.submitted()
    answer = await asyncio.wait_for(world.get(f"/api/runs/{run_id}/events?after=1&wait_s=100000", headers=JSON), 5)
    assert (answer.json["events"], answer.json["next_after"], answer.json["ended"]) == ([], 1, False)


async def test_a_finite_stream_carries_what_there_is_and_asks_to_come_back_soon(world: World) -> None:
    run_id = await world.submitted()
    await append(world, run_id, 2)
    answer = await world.get(f"/api/runs/{run_id}/events")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.body.startswith(b"retry: 250\n\n")
    assert seqs(parse_sse(answer.body)) == [1, 2, 3]
    quiet = await world.get(f"/api/runs/{run_id}/events", headers={"last-event-id": "3"})
    assert quiet.body == b"retry: 250\n\n: heartbeat\n\n"


@pytest.mark.parametrize("mode", [False, True])
async def test_a_client_that_has_seen_the_end_is_told_to_stay_away(mode: bool) -> None:
    world = World(streaming=mode)
    run_id = await world.submitted()
    await finish(world, run_id)
    assert seqs(parse_sse((await world.get(f"/api/runs/{run_id}/events")).body)) == [1, 2]
    answer = await world.get(f"/api/runs/{run_id}/events", headers={"last-event-id": "2"})
    assert (answer.status, answer.body) == (204, b"")


async def test_a_terminated_run_ends_its_stream_without_a_last_event(streaming: World) -> None:
    run_id = await streaming.submitted()
    await streaming.runs.change("contoso", run_id, RunChange(status=RunStatus.TERMINATED))
    answer = await asyncio.wait_for(streaming.get(f"/api/runs/{run_id}/events"), 4)
    assert seqs(parse_sse(answer.body)) == [1]


async def test_a_stream_delivers_as_it_happens_and_ends_with_the_run(streaming: World) -> None:
    run_id = await streaming.submitted()
    response = await streaming.open("GET", f"/api/runs/{run_id}/events")
    assert not isinstance(response.body, bytes)
    assert await anext(response.body) == b"retry: 1000\n\n"
    assert b"run.accepted" in await anext(response.body)
    assert await anext(response.body) == b": heartbeat\n\n"
    await append(streaming, run_id, 1)
    while (part := await anext(response.body)) == b": heartbeat\n\n":
        pass
    assert b"id: 2\n" in part
    await finish(streaming, run_id)
    rest = b"".join([part async for part in response.body])
    assert seqs(parse_sse(rest)) == [3]


async def test_a_stream_does_not_outlive_its_limit(streaming: World) -> None:
    settings = type(streaming.deps.settings)(
        environment="local", http_streaming=True, stream_limit_s=0.05, heartbeat_s=0.01
    )
    streaming.with_deps(settings=settings)
    run_id = await streaming.submitted()
    answer = await asyncio.wait_for(streaming.get(f"/api/runs/{run_id}/events"), 4)
    assert seqs(parse_sse(answer.body)) == [1]
    assert b": heartbeat\n\n" in answer.body


async def test_the_header_of_a_resuming_client_wins_over_its_unchanged_url(world: World) -> None:
    run_id = await world.submitted()
    await append(world, run_id, 5)
    answer = await world.get(f"/api/runs/{run_id}/events?after=1", headers={"last-event-id": "4"})
    assert seqs(parse_sse(answer.body)) == [5, 6]


@pytest.mark.parametrize("mode", [False, True])
@given(cuts=st.lists(st.integers(1, 7), max_size=6), total=st.integers(0, 20))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_resumes_where_they_were_cut_off_sees_each_event_once(mode: bool, cuts: list[int], total: int) -> None:
    async def scenario() -> None:
        world = World(streaming=mode)
        run_id = await world.submitted()
        await append(world, run_id, total)
        await finish(world, run_id)
        seen: list[int] = []
        for keep in [*cuts, 10**6]:
            headers = {"last-event-id": str(seen[-1])} if seen else {}
            answer = await world.get(f"/api/runs/{run_id}/events", headers=headers)
            seen += seqs(parse_sse(answer.body))[:keep] if answer.status == 200 else []
        assert seen == list(range(1, total + 3))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("target", "headers", "code"),
    [
        ("?after=-1", {}, "query.invalid"),
        ("?after=x", {}, "query.invalid"),
        ("?after=" + "9" * 16, {}, "query.invalid"),
        ("?limit=501", {}, "query.invalid"),
        ("?wait_s=1.5", JSON, "query.invalid"),
        ("", {"last-event-id": "run-1"}, "events.position_invalid"),
        ("", {"last-event-id": "-1"}, "events.position_invalid"),
        ("", {"last-event-id": "9" * 13}, "events.position_invalid"),
        ("", {"last-event-id": "²"}, "events.position_invalid"),
    ],
)
async def test_a_bad_position_is_refused(world: World, target: str, headers: dict[str, str], code: str) -> None:
    run_id = await world.submitted()
    answer = await world.get(f"/api/runs/{run_id}/events{target}", headers=headers)
    assert (answer.status, answer.code) == (400, code)
