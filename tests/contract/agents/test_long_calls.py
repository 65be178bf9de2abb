"""The caller's side of calls that take long: accepted and asked for, or streamed; and agents that abuse either."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.adapters.http_agents import HttpAgentInvoker
from engine.adapters.http_agents.call import Pauses
from engine.domain.execute import ExecuteFailed, ExecuteProgress, ExecuteResponse, ExecuteSucceeded, execution_id
from engine.ports.invoker import LEAVE_RUNNING
from tests.contract.agents.harness import SpareGrants, manifest, request

ID = execution_id("contoso", "r/s")
GOOD = {"status": "succeeded", "output": {"count": 1}}
BUSY = {"code": "agent.in_flight", "detail": "x", "status": 409}
LOST = {"code": "agent.no_execution", "detail": "x", "status": 404}


def running(fraction: float | None = None, message: str = "", of: str = ID) -> dict[str, Any]:
    return {"status": "running", "execution_id": of, "progress": {"fraction": fraction, "message": message}}


@dataclass
class Answer:
    """One answer. A list of documents is a stream of lines; ``after`` happens when it has been written."""

    status: int
    document: Any
    headers: tuple[str, ...] = ()
    media_type: str | None = None

    def bytes(self) -> bytes:
        streamed = isinstance(self.document, list)
        body = (
            b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in self.document)
            if streamed
            else json.dumps(self.document).encode()
        )
        media_type = self.media_type or ("application/x-ndjson" if streamed else "application/json")
        length = () if streamed else (f"Content-Length: {len(body)}",)
        lines = (
            f"HTTP/1.1 {self.status} X",
            f"Content-Type: {media_type}",
            "Connection: close",
            *length,
            *self.headers,
        )
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Agent:
    """Answers by method from a script; the last answer of a method is repeated. ``seen`` holds method and path."""

    script: dict[str, list[Answer]]
    seen: list[tuple[str, str]] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    hold: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.seen.append((method, path))
        self.heads.append(headers)
        (self.stopped if method == "DELETE" else self.asked).set()
        answers = self.script.get(method, [Answer(404, LOST)])
        writer.write((answers.pop(0) if len(answers) > 1 else answers[0]).bytes())
        await writer.drain()
        if self.hold and method == "POST":
            await self.stopped.wait()
        writer.close()


@asynccontextmanager
async def calling(agent: Agent, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    """A function that calls the agent; its keyword arguments go to ``invoke``."""
    server = await asyncio.start_server(agent.serve, "127.0.0.1", 0)

    async def credential() -> str:
        return "token"

    url = "http://{}:{}/base".format(*server.sockets[0].getsockname()[:2])
    pauses = Pauses(in_flight_s=0.01, poll_s=0.01, max_poll_s=0.02, **options)
    invoker = HttpAgentInvoker({"probes": url}, credential, SpareGrants(), pauses=pauses)

    async def call(timeout_s: float = 20.0, **more: Any) -> ExecuteResponse:
        return await invoker.invoke(manifest("probe.count", timeout_s=timeout_s), request("probe.count"), **more)

    try:
        yield call
    finally:
        await invoker.close()
        server.close()


async def called(script: dict[str, list[Answer]], **more: Any) -> tuple[ExecuteResponse, Agent]:
    agent = Agent(script)
    async with calling(agent) as call:
        return await call(**more), agent


def error_of(response: ExecuteResponse) -> tuple[str, bool]:
    assert isinstance(response, ExecuteFailed), response
    return response.error.code, response.error.retryable


async def test_an_accepted_call_is_asked_for_until_it_has_ended() -> None:
    told: list[ExecuteProgress] = []

    async def sink(progress: ExecuteProgress) -> None:
        told.append(progress)

    script = {
        "POST": [Answer(202, running())],
        "GET": [Answer(200, running(0.1, "a tenth")), Answer(200, running(0.5)), Answer(200, GOOD)],
    }
    found, agent = await called(script, progress=sink, traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    assert isinstance(found, ExecuteSucceeded)
    assert agent.seen == [("POST", "/base/execute"), *[("GET", f"/base/executions/{ID}")] * 3]
    assert [(one.fraction, one.message) for one in told if one.fraction] == [(0.1, "a tenth"), (0.5, "")]
    assert agent.heads[0]["prefer"] == "respond-async, wait=20"
    assert all(head["livoa-grant"] == "grant-of-r" for head in agent.heads)
    assert all(head["authorization"] == "Bearer token" for head in agent.heads)
    assert all("traceparent" in head for head in agent.heads)


async def test_an_accepted_call_may_fail() -> None:
    failure = {"status": "failed", "error": {"code": "data.none", "retryable": True, "retry_after_s": 3}}
    found, _ = await called({"POST": [Answer(202, running())], "GET": [Answer(200, running()), Answer(200, failure)]})
    assert error_of(found) == ("data.none", True)


async def test_a_result_that_comes_with_202_is_a_result() -> None:
    found, agent = await called({"POST": [Answer(202, running())], "GET": [Answer(202, GOOD)]})
    assert isinstance(found, ExecuteSucceeded)
    assert len(agent.seen) == 2, "and is not asked for until the deadline"


async def test_trouble_with_asking_is_not_trouble_of_the_execution() -> None:
    trouble = [Answer(503, {}), Answer(500, {}), Answer(429, {}), Answer(502, {})]
    found, _ = await called({"POST": [Answer(202, running())], "GET": [*trouble, Answer(200, GOOD)]})
    assert isinstance(found, ExecuteSucceeded)
    found, agent = await called({"POST": [Answer(202, running())], "GET": [Answer(503, {})]})
    assert error_of(found) == ("agent.error", True)
    assert len(agent.seen) == 7, "six times in a row is enough"


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (Answer(404, LOST), "agent.execution_lost", True),
        (Answer(403, {"code": "grant.mismatch", "detail": "x"}), "grant.mismatch", False),
        (Answer(302, {}, ("Location: http://169.254.169.254/latest",)), "agent.error", False),
        (Answer(200, {"status": "resting"}), "agent.contract_violation", False),
        (Answer(200, running(of="0" * 32)), "agent.contract_violation", False),
        (Answer(200, running(7.0)), "agent.contract_violation", False),
        (Answer(200, {"status": "succeeded", "output": {"a": "x" * 2**20}}), "agent.contract_violation", False),
        (Answer(200, GOOD, media_type="text/html"), "agent.contract_violation", False),
    ],
    ids=["lost", "refused", "redirect", "another form", "another execution", "no fraction", "too large", "no json"],
)
async def test_what_an_agent_may_not_say_of_an_accepted_call(answer: Answer, code: str, retryable: bool) -> None:
    found, _ = await called({"POST": [Answer(202, running())], "GET": [Answer(200, running()), answer]})
    assert error_of(found) == (code, retryable)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(202, GOOD["output"]),
        Answer(202, running(of="0" * 32)),
        Answer(202, running(), media_type="text/plain"),
        Answer(200, running()),
    ],
    ids=["no form", "another execution", "no json", "with status 200"],
)
async def test_an_acceptance_of_another_form_breaks_the_contract(answer: Answer) -> None:
    found, agent = await called({"POST": [answer]})
    assert error_of(found) == ("agent.contract_violation", False)
    assert len(agent.seen) == 1


async def test_an_address_that_the_agent_gives_is_not_used() -> None:
    """A Location of another run's execution, or of a metadata service, leads nowhere."""
    location = ("Location: http://169.254.169.254/executions/of-another-run",)
    found, agent = await called({"POST": [Answer(202, running(), location)], "GET": [Answer(200, GOOD, location)]})
    assert isinstance(found, ExecuteSucceeded)
    assert {path for _, path in agent.seen} == {"/base/execute", f"/base/executions/{ID}"}


async def test_an_execution_that_never_ends_ends_at_the_deadline() -> None:
    found, _ = await called({"POST": [Answer(202, running())], "GET": [Answer(200, running())]}, timeout_s=0.3)
    assert error_of(found) == ("agent.timeout", True)


async def test_a_stream_tells_progress_and_then_the_result() -> None:
    told: list[float | None] = []

    async def sink(progress: ExecuteProgress) -> None:
        told.append(progress.fraction)

    lines = [running(0.2), b"\r\n", running(0.9), GOOD, b"not json, and not looked at\n"]
    found, agent = await called({"POST": [Answer(200, lines)]}, progress=sink)
    assert isinstance(found, ExecuteSucceeded)
    assert told == [0.2, 0.9]
    assert len(agent.seen) == 1


async def test_after_the_result_nothing_is_waited_for() -> None:
    agent = Agent({"POST": [Answer(200, [running(0.2), GOOD])]}, hold=True)
    async with calling(agent) as call:
        assert isinstance(await call(timeout_s=15.0), ExecuteSucceeded)
        agent.stopped.set()


async def test_a_stream_that_breaks_off_is_asked_for() -> None:
    found, agent = await called(
        {"POST": [Answer(200, [running(0.2)])], "GET": [Answer(200, running()), Answer(200, GOOD)]}
    )
    assert isinstance(found, ExecuteSucceeded)
    assert [method for method, _ in agent.seen] == ["POST", "GET", "GET"]
    found, _ = await called({"POST": [Answer(200, [running(0.2)])]})
    assert error_of(found) == ("agent.execution_lost", True)


@pytest.mark.parametrize(
    "lines",
    [
        [b"{\n"],
        [{"status": "resting"}],
        [running(0.1), running(of="0" * 32)],
        [b"[" * 100 + b"]" * 100 + b"\n"],
        [running(0.1), b'{"status": "succeeded", "output": "' + b"x" * 2**21 + b'"}\n'],
        [b"x" * 2**21],
    ],
    ids=["no json", "no form", "another execution", "deep", "large result", "endless line"],
)
async def test_a_stream_of_another_form_breaks_the_contract(lines: list[Any]) -> None:
    found, agent = await called({"POST": [Answer(200, lines)], "GET": [Answer(200, GOOD)]})
    assert error_of(found) == ("agent.contract_violation", False)
    assert len(agent.seen) == 1


async def test_who_streams_without_end_is_asked_for_the_result_instead() -> None:
    lines = [running(0.1, "x" * 100)] * 25_000
    found, agent = await called({"POST": [Answer(200, lines)], "GET": [Answer(200, GOOD)]})
    assert isinstance(found, ExecuteSucceeded)
    assert [method for method, _ in agent.seen] == ["POST", "GET"]


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 X\r\nContent-Type: application/x-ndjson\r\n\r\n"])
async def test_a_connection_that_went_dead_does_not_hold_the_call_until_its_deadline(begun: bytes) -> None:
    """The node of the agent, or one on the way, is gone: nobody closes the connection, and nothing comes any more."""

    class Dead(Agent):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.asked.is_set():
                await super().serve(reader, writer)
                return
            await reader.readuntil(b"\r\n\r\n")
            self.asked.set()
            writer.write(begun)
            await self.stopped.wait()
            writer.close()

    agent = Dead({"GET": [Answer(200, GOOD)]})
    async with calling(agent, wait_s=0, silence_s=0.2) as call:
        assert isinstance(await call(timeout_s=300.0), ExecuteSucceeded)
    agent.stopped.set()
    assert [method for method, _ in agent.seen] == ["GET"]


async def test_a_compressed_stream_is_not_read() -> None:
    found, _ = await called({"POST": [Answer(200, [GOOD], ("Content-Encoding: gzip",))]})
    assert error_of(found) == ("agent.contract_violation", False)


async def test_a_call_in_flight_for_an_earlier_delivery_is_joined() -> None:
    told: list[float | None] = []

    async def sink(progress: ExecuteProgress) -> None:
        told.append(progress.fraction)

    script = {"POST": [Answer(409, BUSY)], "GET": [Answer(200, running(0.4)), Answer(200, GOOD)]}
    found, agent = await called(script, progress=sink)
    assert isinstance(found, ExecuteSucceeded)
    assert told == [0.4]
    assert [method for method, _ in agent.seen] == ["POST", "GET", "GET"]


async def test_the_failure_of_an_earlier_delivery_is_not_ours() -> None:
    failure = {"status": "failed", "error": {"code": "agent.interrupted", "retryable": True}}
    script = {"POST": [Answer(409, BUSY), Answer(200, GOOD)], "GET": [Answer(200, running()), Answer(200, failure)]}
    found, agent = await called(script)
    assert isinstance(found, ExecuteSucceeded)
    assert [method for method, _ in agent.seen] == ["POST", "GET", "GET", "POST"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_call_stops_the_execution(streamed: bool) -> None:
    post = Answer(200, [running(0.1)]) if streamed else Answer(202, running())
    agent = Agent({"POST": [post], "GET": [Answer(200, running())], "DELETE": [Answer(200, running())]}, hold=streamed)
    async with calling(agent) as call:
        task = asyncio.create_task(call())
        await agent.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert agent.seen[-1] == ("DELETE", f"/base/executions/{ID}")
        assert agent.heads[-1]["livoa-grant"] == "grant-of-r"


async def test_a_call_that_is_left_running_is_not_stopped() -> None:
    agent = Agent({"POST": [Answer(202, running())], "GET": [Answer(200, running())]})
    async with calling(agent) as call:
        task = asyncio.create_task(call())
        await agent.asked.wait()
        task.cancel(LEAVE_RUNNING)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "DELETE" not in [method for method, _ in agent.seen]


async def test_an_agent_that_does_not_answer_cannot_hold_up_a_cancellation() -> None:
    agent = Agent({"POST": [Answer(202, running())], "GET": [Answer(200, running())], "DELETE": [Answer(302, {})]})
    async with calling(agent) as call:
        task = asyncio.create_task(call())
        await agent.asked.wait()
        began = asyncio.get_running_loop().time()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() - began < 10


def test_the_id_of_an_execution_follows_from_tenant_and_key_alone() -> None:
    assert execution_id("contoso", "r/s") == ID
    others = {execution_id("contoso", "r/s/1"), execution_id("fabrikam", "r/s"), execution_id("contoso", "q/s")}
    assert ID not in others
    assert len(others) == 3
    late = request("probe.count", attempt=7, deadline_at=datetime.now(UTC) + timedelta(hours=3))
    assert execution_id(late.tenant_id, late.idempotency_key) == ID
