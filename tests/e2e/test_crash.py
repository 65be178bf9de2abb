"""``kill -9`` in the middle of a run: it goes on where it was.

Nothing that was finished runs again, and no event is lost or doubled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.plans import fit, pause, request_of, search
from tests.e2e.stack import Stack, up

# When `mix` has started, three steps are finished, one call is under way, one wait is open and one step has not begun.
PLAN = request_of(
    search("a"),
    pause("short", 0.5, "a"),
    search("b", "short", query={"$template": "notes on {it}", "it": {"$ref": "steps.a#/passages/0/title"}}),
    pause("long", 4, "b"),
    fit("mix", "b"),
    search("c", "long", "mix"),
    uses=["a", "b", "mix", "c"],
)
STEPS = {"a", "short", "b", "long", "mix", "c"}
DONE_BEFORE = {"a", "short", "b"}


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that may be killed."""
    with up(tmp_path_factory.mktemp("fragile")) as running:
        yield running


class Interrupted:
    """A run up to the moment before the kill."""

    def __init__(self, stack: Stack) -> None:
        client = stack.client()
        self.run_id = client.submit(PLAN)
        self.seen = client.until_event(self.run_id, "step.started", "mix")
        self.executed = stack.executions()
        self.outputs = {step_id: client.output(self.run_id, step_id) for step_id in sorted(DONE_BEFORE)}
        self.killed_at = ""

    def kill(self, how: Callable[[], None]) -> None:
        self.killed_at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        how()

    def check(self, stack: Stack, client: Client) -> None:
        """The run has finished as if nothing had happened."""
        events = client.events(self.run_id)
        run = client.run(self.run_id)
        assert run["status"] == "succeeded", run
        assert {step["status"] for step in client.steps(self.run_id).values()} == {"succeeded"}
        assert events[: len(self.seen)] == self.seen
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert count(events, "step.succeeded") == dict.fromkeys(STEPS, 1)
        started = [event["data"] for event in events if event["type"] == "step.started"]
        assert {data["step_id"] for data in started if data["attempt"] > 1} <= {"mix"}
        assert set(Counter((data["step_id"], data["attempt"]) for data in started).values()) == {1}
        assert [event["type"] for event in events].count("run.succeeded") == 1
        self._check_agents(stack)
        self._check_in_the_middle(events)
        assert self.outputs == {step_id: client.output(self.run_id, step_id) for step_id in sorted(DONE_BEFORE)}
        assert client.output(self.run_id, "c")["passages"]

    def _check_in_the_middle(self, events: list[dict[str, Any]]) -> None:
        before = {event["data"].get("step_id") for event in self.seen if event["type"] == "step.succeeded"}
        after = {event["data"].get("step_id") for event in events if event["at"] > self.killed_at}
        assert before == DONE_BEFORE
        assert {"long", "c"} <= after

    def _check_agents(self, stack: Stack) -> None:
        own = {key: token for key, token in stack.executions().items() if key.startswith(self.run_id)}
        finished = {f"{self.run_id}/{step_id}" for step_id in ("a", "b")}
        assert finished <= self.executed.keys()
        assert {key: own[key] for key in finished} == {key: self.executed[key] for key in finished}
        assert own.keys() == {f"{self.run_id}/{step_id}" for step_id in ("a", "b", "mix", "c")}


def count(events: list[dict[str, Any]], kind: str) -> Counter[str]:
    """How often each step has an event of a kind, whatever the attempt."""
    return Counter(event["data"]["step_id"] for event in events if event["type"] == kind)


def test_a_run_outlives_the_kill_of_its_host_on_the_same_address(fragile: Stack) -> None:
    before = fragile.facts()
    run = Interrupted(fragile)

    run.kill(fragile.kill_host)
    client = fragile.client()
    for _ in client.follow(run.run_id):
        pass

    after = fragile.facts()
    assert after["url"] == before["url"]
    assert after["agents_pid"] == before["agents_pid"]
    assert after["host_pid"] != before["host_pid"]
    run.check(fragile, client)


def test_a_run_outlives_the_kill_of_everything_once_the_stack_is_up_again(fragile: Stack) -> None:
    run = Interrupted(fragile)

    run.kill(fragile.kill_everything)
    with up(fragile.data) as again:
        client = again.client()
        # The step that a worker had comes back when its lease is over and the sweep has looked: half a minute, if nobody is busy.
        for _ in client.follow(run.run_id, patience_s=110):
            pass
        run.check(again, client)
        assert {entry["status"] for entry in client.get("/api/runs").json["runs"]} == {"succeeded"}
