"""The event log as clients follow it: live, cut off and resumed at every place, silent, as pages; streaming host or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client import FINAL, Client, SseEvent
from tests.e2e.plans import SAMPLE_INTENT, pause, request_of, search
from tests.e2e.stack import Stack

SLOW = request_of(search("a"), pause("nap", 1.0, "a"), search("b", "nap"), pause("nap2", 1.0, "b"), search("c", "nap2"))
QUIET_S = 12.0  # longer than the pause between two heartbeats


class Silence(threading.Thread):
    """Reads the stream of a run in which nothing happens for a while, beside the other tests of this module."""

    def __init__(self, client: Client) -> None:
        super().__init__(daemon=True)
        self._client = client
        self.read: list[SseEvent] = []

    def run(self) -> None:
        run_id = self._client.submit(request_of(pause("silence", QUIET_S)))
        with self._client.stream(run_id) as (_, events):
            self.read.extend(events)


@pytest.fixture(scope="module", autouse=True)
def silence(stack: Stack) -> Iterator[Silence]:
    thread = Silence(stack.client())
    thread.start()
    yield thread
    thread.join(40)  # other modules count what is in the stores, so nothing may be going on behind their backs


@pytest.fixture(scope="module", params=["streaming", "whole"])
def client(request: pytest.FixtureRequest, stack: Stack, whole: Stack) -> Client:
    return (stack if request.param == "streaming" else whole).client()


@pytest.fixture(scope="module")
def finished(client: Client) -> tuple[str, list[dict[str, Any]]]:
    """A finished run with its log, read as pages."""
    run_id = client.submit({"intent": SAMPLE_INTENT})
    return run_id, client.events(run_id)


def test_the_first_events_arrive_while_the_run_is_going_on(stack: Stack) -> None:
    client = stack.client()
    run_id = client.submit(SLOW)
    with client.stream(run_id) as (status, events):
        assert status == 200
        early = [next(events) for _ in range(4)]
        still = client.run(run_id)["status"]
        late = list(events)
    assert still not in FINAL
    assert [event.id for event in early + late] == list(range(1, len(early + late) + 1))
    assert late[-1].type == "run.succeeded"


def test_a_stream_is_marked_as_one_that_nobody_may_hold_back(stack: Stack) -> None:
    client = stack.client()
    run_id = client.submit(request_of(search("a")))
    answer = client.get(f"/api/runs/{run_id}/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"


def follow_with_cuts(client: Client, run_id: str) -> list[SseEvent]:
    """As an EventSource does it, on a line that breaks after each event: reconnect with the last id until told to stay away."""
    read: list[SseEvent] = []
    until = time.monotonic() + 40
    while time.monotonic() < until:
        with client.stream(run_id, last_id=read[-1].id if read else None) as (status, events):
            if status == 204:
                return read
            assert status == 200
            read += [event for event in [next(events, None)] if event is not None and event.id is not None]
    raise AssertionError("the stream does not end")


def test_a_live_stream_that_breaks_after_each_event_loses_and_repeats_nothing(client: Client) -> None:
    run_id = client.submit(SLOW)
    read = follow_with_cuts(client, run_id)
    assert [event.data for event in read] == client.events(run_id)
    assert read[-1].type == "run.succeeded"


def test_a_log_resumed_at_any_place_goes_on_with_the_next_event(
    client: Client, finished: tuple[str, list[dict[str, Any]]]
) -> None:
    run_id, log = finished
    assert len(log) > 25
    for position in range(len(log)):
        with client.stream(run_id, last_id=position) as (status, events):
            assert status == 200
            rest = [(event.id, event.type, event.data) for event in events]
        assert rest == [(entry["seq"], entry["type"], entry) for entry in log[position:]]
    with client.stream(run_id, last_id=len(log)) as (status, _):
        assert status == 204


def test_pages_of_any_size_make_up_the_same_log(client: Client, finished: tuple[str, list[dict[str, Any]]]) -> None:
    run_id, log = finished
    for limit in (1, 7, 500):
        read, after, ended = [], 0, False
        while not ended:
            page = client.get(f"/api/runs/{run_id}/events?after={after}&limit={limit}", Accept="application/json").json
            assert len(page["events"]) <= limit
            read += page["events"]
            after, ended = page["next_after"], page["ended"]
        assert read == log


def test_a_long_poll_answers_when_something_happens_and_not_before(client: Client) -> None:
    run_id = client.submit(request_of(pause("nap", 1.5), search("a", "nap")))
    seen = client.until_event(run_id, "step.started", "nap")
    page = client.page(run_id, after=seen[-1]["seq"], wait_s=20)
    assert [event["seq"] for event in page["events"]][:1] == [seen[-1]["seq"] + 1]
    assert client.page(run_id, after=seen[-1]["seq"], wait_s=0)["events"][: len(page["events"])] == page["events"]
    client.finished(run_id)


def test_a_page_without_waiting_is_empty_at_the_end_of_a_live_log(client: Client) -> None:
    run_id = client.submit(request_of(pause("nap", 1.5)))
    seen = client.until_event(run_id, "step.started", "nap")
    page = client.page(run_id, after=seen[-1]["seq"])
    assert page == {"events": [], "next_after": seen[-1]["seq"], "ended": False}
    client.finished(run_id)


@pytest.mark.parametrize("position", ["-1", "x", "1.5", "9" * 13, "1,2"])
def test_a_position_that_is_none_is_refused(
    client: Client, finished: tuple[str, list[dict[str, Any]]], position: str
) -> None:
    answer = client.get(f"/api/runs/{finished[0]}/events", Last_Event_ID=position)
    assert (answer.status, answer.code) == (400, "events.position_invalid")


def test_a_silent_stream_carries_heartbeats(silence: Silence) -> None:
    """Last in this module: the silence has lasted while the other tests ran."""
    silence.join(40)
    assert not silence.is_alive()
    types = [event.type for event in silence.read]
    assert types[-1] == "run.succeeded"
    before, after = types.index("step.started"), types.index("step.succeeded")
    assert "comment" in types[before:after]
    assert [event.id for event in silence.read if event.id] == list(range(1, len(types) - types.count("comment") + 1))
