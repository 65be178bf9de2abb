"""An agent that goes away and comes back: its circuit opens for everybody to see, and closes again by itself."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.client import Client
from tests.e2e.plans import request_of, search
from tests.e2e.stack import Stack, host_without_streaming


class Cable:
    """A way to the agents that can be cut: connections to it are refused then, as to a machine whose service is down."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._listener: socket.socket | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]

    def plug(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._listener is None:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def cable(stack: Stack) -> Iterator[Cable]:
    made = Cable(stack.facts()["agents_url"])
    yield made
    made.cut()


@pytest.fixture(scope="module")
def cabled(stack: Stack, cable: Cable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A host that reaches the agents by the cable only."""
    data: Path = tmp_path_factory.mktemp("cabled")
    with host_without_streaming(data, beside=stack, agents_url=f"http://127.0.0.1:{cable.port}") as running:
        yield running.client("contoso")


def circuit(client: Client) -> Any:
    shown = client.get("/api/breakers").json["breakers"]
    return next(each for each in shown if each["capability"] == "rag.search")


def test_an_agent_that_dies_opens_its_circuit_and_one_that_returns_closes_it(cabled: Client, cable: Cable) -> None:
    cable.plug()
    assert cabled.finished(cabled.submit(request_of(search("a"))))["status"] == "succeeded"
    assert circuit(cabled)["phase"] == "closed"

    cable.cut()
    steps = [search(f"s{number}", retry={"max_attempts": 1}) for number in range(12)]
    run_id = cabled.submit(request_of(*steps))
    run = cabled.finished(run_id)
    codes = [step["error"]["code"] for step in cabled.steps(run_id).values()]
    assert run["status"] == "failed"
    assert set(codes) <= {"agent.unreachable", "agent.circuit_open"}
    assert "breaker.opened" in {event["type"] for event in cabled.events(run_id)}
    assert circuit(cabled)["phase"] == "open"
    held_off = cabled.submit(request_of(search("a", retry={"max_attempts": 1})))
    assert cabled.finished(held_off)["status"] == "failed"
    assert cabled.steps(held_off)["a"]["error"]["code"] == "agent.circuit_open"

    cable.plug()
    until = time.monotonic() + 40
    while circuit(cabled)["phase"] != "closed":
        assert time.monotonic() < until, circuit(cabled)
        cabled.finished(cabled.submit(request_of(search("a", retry={"max_attempts": 1}))))
        time.sleep(0.5)
    assert cabled.finished(cabled.submit(request_of(search("a"))))["status"] == "succeeded"


def test_runs_take_their_places_and_give_them_back(cabled: Client, cable: Cable) -> None:
    until = time.monotonic() + 20
    while cabled.get("/api/quota").json["running"]:
        assert time.monotonic() < until
        time.sleep(0.2)
    run_id = cabled.submit(request_of({"id": "a", "wait": {"for_s": 3}, "needs": []}, search("b")))
    seen = 0
    while cabled.run(run_id)["status"] not in {"succeeded", "failed", "partial"}:
        seen = max(seen, cabled.get("/api/quota").json["running"])
        time.sleep(0.2)
    assert seen == 1
    time.sleep(0.5)
    assert cabled.get("/api/quota").json["running"] == 0
