"""A bare HTTP client for the tests: whole answers, server-sent events as they arrive, and raw bytes no library would send.

It deliberately shares no code with the product, so that a mistake cannot be made twice and cancel out.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 40.0
FINAL = {"succeeded", "partial", "denied", "failed", "cancelled", "terminated"}


@dataclass(frozen=True)
class Answer:
    """A response as it came; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem document; None for anything else."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return str(self.json["code"])


@dataclass(frozen=True)
class SseEvent:
    """One server-sent event, or a comment (then ``id`` is None and ``data`` its text)."""

    id: int | None
    type: str
    data: Any


class Client:
    """Calls of one caller. ``token`` is asked anew for each call; None sends none."""

    def __init__(self, url: str, token: Callable[[], str] | None) -> None:
        self.url = url
        self._token = token
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        self.address = (parts.hostname, int(parts.port or 80))

    def authorization(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token()}"}

    def send(self, method: str, target: str, *, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """One request on a connection of its own; ``body`` is bytes or a JSON value."""
        with self._sent(method, target, body, headers or {}) as response:
            return Answer(response.status, _headers(response), response.read())

    def get(self, target: str, **headers: str) -> Answer:
        return self.send("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, target: str, body: Any = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send("POST", target, body=body if body is not None else {}, headers=sent)

    def submit(self, request: Mapping[str, Any], **headers: str) -> str:
        """Submit a run and return its id."""
        answer = self.post("/api/runs", request, **headers)
        assert answer.status == 202, answer.body
        return str(answer.json["run_id"])

    def run(self, run_id: str) -> Any:
        return self._good(f"/api/runs/{run_id}")

    def steps(self, run_id: str) -> dict[str, Any]:
        """The steps of a run by id."""
        return {step["id"]: step for step in self._good(f"/api/runs/{run_id}/steps")["steps"]}

    def output(self, run_id: str, step_id: str, item: int | None = None) -> Any:
        query = "" if item is None else f"?item={item}"
        return self._good(f"/api/runs/{run_id}/steps/{step_id}/output{query}")

    def page(self, run_id: str, *, after: int = 0, wait_s: int = 0) -> Any:
        return self._good(f"/api/runs/{run_id}/events?after={after}&wait_s={wait_s}", Accept="application/json")

    def events(self, run_id: str, *, patience_s: float = TIMEOUT_S) -> list[dict[str, Any]]:
        """The whole log, read by long polling until it ends."""
        return list(self.follow(run_id, patience_s=patience_s))

    def follow(self, run_id: str, *, after: int = 0, patience_s: float = TIMEOUT_S) -> Iterator[dict[str, Any]]:
        """Events as long polls bring them, until the log ends. Survives a host that is away for a while."""
        until = time.monotonic() + patience_s
        while True:
            assert time.monotonic() < until, f"{run_id} does not end; read up to event {after}"
            try:
                page = self.page(run_id, after=after, wait_s=5)
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
                continue
            yield from page["events"]
            after = page["next_after"]
            if page["ended"]:
                return

    def until_event(self, run_id: str, kind: str, step_id: str | None = None) -> list[dict[str, Any]]:
        """Everything in the log up to and including the first event of a kind (and step)."""
        seen = []
        for event in self.follow(run_id):
            seen.append(event)
            if event["type"] == kind and step_id in (None, event["data"].get("step_id")):
                return seen
        raise AssertionError(f"the log ended without {kind} of {step_id}: {[event['type'] for event in seen]}")

    def finished(self, run_id: str, *, patience_s: float = TIMEOUT_S) -> Any:
        """The run once it is over."""
        for _ in self.follow(run_id, patience_s=patience_s):
            pass
        run = self.run(run_id)
        assert run["status"] in FINAL
        return run

    @contextmanager
    def stream(self, run_id: str, *, last_id: int | None = None) -> Iterator[tuple[int, Iterator[SseEvent]]]:
        """A stream of server-sent events: the status, and the events as they arrive. Leaving it cuts the connection."""
        headers = {"Accept": "text/event-stream"} | ({} if last_id is None else {"Last-Event-ID": str(last_id)})
        with self._sent("GET", f"/api/runs/{run_id}/events", None, headers) as response:
            yield response.status, _sse(response)

    def raw(self, data: bytes, *, half_close: bool = False) -> Answer | None:
        """Send bytes as they are and read one answer; None when the host closes without one. Never waits long."""
        with socket.create_connection(self.address, timeout=15) as connection:
            try:
                connection.sendall(data)
                if half_close:
                    connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before everything was sent; the answer may be there all the same
            response = http.client.HTTPResponse(connection, method="POST")
            try:
                response.begin()
                return Answer(response.status, _headers(response), response.read())
            except (http.client.HTTPException, ConnectionResetError):
                return None

    def _good(self, target: str, **headers: str) -> Any:
        answer = self.get(target, **headers)
        assert answer.status == 200, (target, answer.status, answer.body)
        return answer.json

    @contextmanager
    def _sent(
        self, method: str, target: str, body: Any, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT_S)
        try:
            sent = self.authorization() | ({"Content-Type": "application/json"} if body is not None else {})
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, target, body=data, headers=sent | dict(headers))
            yield connection.getresponse()
        finally:
            connection.close()


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _sse(response: http.client.HTTPResponse) -> Iterator[SseEvent]:
    fields: dict[str, str] = {}
    while line := response.readline():
        text = line.decode().rstrip("\n")
        if text.startswith(":"):
            yield SseEvent(None, "comment", text[1:].strip())
        elif text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield SseEvent(int(fields["id"]), fields["event"], json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}
