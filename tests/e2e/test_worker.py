"""Steps over the bus in a real stack: a worker carries them out, and one that is killed in the middle loses nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.plans import fit, request_of
from tests.e2e.stack import Stack, rows, up


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose worker may be killed."""
    with up(tmp_path_factory.mktemp("bus")) as running:
        yield running


def workers(events: list) -> list[tuple[int, str]]:
    """Who took the step, by attempt."""
    told = [event["data"] for event in events if event["type"] == "step.progressed"]
    return [(data["attempt"], data["worker"]) for data in told if data.get("worker")]


def test_a_step_goes_to_a_worker_and_its_answer_comes_back(bus: Stack) -> None:
    client = bus.client()
    run_id = client.submit(request_of(fit("mix"), uses=["mix"]))
    for _ in client.follow(run_id):
        pass
    assert client.run(run_id)["status"] == "succeeded"
    assert workers(client.events(run_id)) == [(1, "worker-1")]
    assert client.output(run_id, "mix")["channels"]


def test_a_worker_that_is_killed_in_the_middle_is_survived_and_the_effect_is_there_once(bus: Stack) -> None:
    client = bus.client()
    before = bus.facts()
    os.kill(before["agents_pid"], signal.SIGSTOP)  # so that the call is under way for as long as it takes
    try:
        run_id = client.submit(request_of(fit("mix"), uses=["mix"]))
        client.until_event(run_id, "step.progressed", "mix")
        bus.kill_worker()
    finally:
        os.kill(before["agents_pid"], signal.SIGCONT)
    for _ in client.follow(run_id):
        pass
    assert client.run(run_id)["status"] == "succeeded"
    assert workers(client.events(run_id)) == [(1, "worker-1"), (2, "worker-1")]
    retried = [event["data"] for event in client.events(run_id) if event["type"] == "step.retried"]
    assert [data["code"] for data in retried] == ["agent.lease_lost"]
    after = bus.facts()
    assert after["host_pid"] == before["host_pid"]
    assert after["worker_pids"] != before["worker_pids"]
    assert [key for key in bus.executions() if key.startswith(run_id)] == [f"{run_id}/mix"]
    assignments = "SELECT status FROM assignments WHERE run_id = ?"
    assert rows(bus.data / "livoa.db", assignments, run_id) == [("finished",)]
