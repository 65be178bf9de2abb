"""The caller's side against agents that are slow, broken or hostile."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.adapters.http_agents import HttpAgentInvoker
from engine.adapters.http_agents.call import Pauses
from engine.domain.errors import LivoaError
from engine.domain.execute import ExecuteFailed, ExecuteResponse, ExecuteSucceeded
from tests.contract.agents.harness import MANIFESTS, Raw, SpareGrants, manifest, raw_server, request

TOKEN = "token-that-must-not-be-seen"
GOOD = json.dumps({"status": "succeeded", "output": {"count": 1}}).encode()


def head(status: str = "200 OK", *lines: str, length: int | None = None) -> bytes:
    fields = [f"HTTP/1.1 {status}", "Connection: close", *lines]
    if length is not None:
        fields.append(f"Content-Length: {length}")
    return "\r\n".join([*fields, "", ""]).encode()


def canned(data: bytes) -> Raw:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def json_answer(body: bytes, status: str = "200 OK", *lines: str, media_type: str = "application/json") -> Raw:
    return canned(head(status, f"Content-Type: {media_type}", *lines, length=len(body)) + body)


async def credential() -> str:
    return TOKEN


async def called(answer: Raw, timeout_s: float = 5.0, **more: Any) -> ExecuteResponse:
    async with raw_server(answer) as url:
        invoker = HttpAgentInvoker({"probes": url}, credential, SpareGrants())
        try:
            return await invoker.invoke(manifest("probe.count", timeout_s=timeout_s), request("probe.count"), **more)
        finally:
            await invoker.close()


def error_of(response: ExecuteResponse) -> tuple[str, bool]:
    assert isinstance(response, ExecuteFailed), response
    return response.error.code, response.error.retryable


async def test_a_good_answer_is_a_good_answer() -> None:
    found = await called(json_answer(GOOD))
    assert isinstance(found, ExecuteSucceeded)
    assert found.output == {"count": 1}


async def test_a_compressed_answer_is_read_though_none_was_asked_for() -> None:
    found = await called(json_answer(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip"))
    assert isinstance(found, ExecuteSucceeded)


async def test_what_is_sent_is_what_the_contract_says() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(10))
        writer.write(head(length=len(GOOD)) + GOOD)

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        body = head("200 OK", "Content-Type: application/json", length=len(GOOD)) + GOOD
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    invoker = HttpAgentInvoker({"probes": f"http://127.0.0.1:{port}/base/"}, credential, SpareGrants())
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await invoker.invoke(MANIFESTS["probe.count"], request("probe.count"), traceparent=traceparent)
    await invoker.close()
    server.close()
    lines = seen[0].decode().lower().split("\r\n")
    assert lines[0] == "post /base/execute http/1.1"
    assert f"authorization: bearer {TOKEN}" in lines
    assert "livoa-grant: grant-of-r" in lines
    assert "idempotency-key: r/s" in lines
    assert f"traceparent: {traceparent}" in lines
    assert "accept-encoding: identity" in lines


async def test_a_redirect_is_not_followed() -> None:
    hits = 0

    async def target(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hits
        hits += 1
        writer.write(head("200 OK", "Content-Type: application/json", length=len(GOOD)) + GOOD)

    async with raw_server(target) as elsewhere:
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            found = await called(canned(head(status, f"Location: {elsewhere}/execute", length=0)))
            assert error_of(found) == ("agent.error", False)
    assert hits == 0


async def test_a_compressed_bomb_stops_at_the_cap() -> None:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    bomb = b"".join(packer.compress(zeros) for _ in range(128)) + packer.flush()
    assert len(bomb) < 2**18, "128 MiB in less than a quarter of one"
    answer = json_answer(bomb, "200 OK", "Content-Encoding: gzip")
    tracemalloc.start()
    found = await called(answer, timeout_s=30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error_of(found) == ("agent.contract_violation", False)
    assert peak < 8 * 2**20


async def test_an_endless_answer_stops_at_the_cap() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", "Content-Type: application/json"))
        while not writer.is_closing():
            writer.write(b" " * 65_536)
            await writer.drain()

    assert error_of(await called(endless, timeout_s=20)) == ("agent.contract_violation", False)


async def test_a_dripping_answer_is_cut_at_the_deadline() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("200 OK", "Content-Type: application/json", length=10_000))
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    began = time.monotonic()
    assert error_of(await called(drip, timeout_s=0.4)) == ("agent.timeout", True)
    assert time.monotonic() - began < 3


async def test_silence_is_cut_at_the_requests_deadline_when_that_comes_first() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with raw_server(silent) as url:
        invoker = HttpAgentInvoker({"probes": url}, credential, SpareGrants())
        soon = request("probe.count", deadline_at=datetime.now(UTC) + timedelta(seconds=0.3))
        began = time.monotonic()
        assert error_of(await invoker.invoke(MANIFESTS["probe.count"], soon)) == ("agent.timeout", True)
        assert time.monotonic() - began < 3
        await invoker.close()


async def test_a_slow_credential_counts_towards_the_deadline() -> None:
    async def slow() -> str:
        await asyncio.sleep(30)
        return TOKEN

    invoker = HttpAgentInvoker({"probes": "http://127.0.0.1:9"}, slow, SpareGrants())
    found = await invoker.invoke(manifest("probe.count", timeout_s=0.2), request("probe.count"))
    assert error_of(found) == ("agent.timeout", True)
    await invoker.close()


async def test_a_passed_deadline_makes_no_call() -> None:
    async def never() -> str:
        raise AssertionError("no token is needed")

    invoker = HttpAgentInvoker({"probes": "http://127.0.0.1:9"}, never, SpareGrants())
    late = request("probe.count", deadline_at=datetime.now(UTC) - timedelta(seconds=1))
    assert error_of(await invoker.invoke(MANIFESTS["probe.count"], late)) == ("agent.timeout", True)


PROBLEM = json.dumps({"code": "agent.busy", "detail": "Every slot is taken.", "status": 429}).encode()


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        ("400 Bad", "agent.error", False),
        ("401 Who", "agent.error", False),
        ("403 No", "agent.error", False),
        ("404 Gone", "agent.error", False),
        ("408 Late", "agent.timeout", True),
        ("409 Flight", "agent.conflict", True),
        ("413 Big", "agent.error", False),
        ("418 Tea", "agent.error", False),
        ("422 Odd", "agent.contract_violation", False),
        ("429 Many", "agent.error", True),
        ("500 Oops", "agent.error", True),
        ("502 Gate", "agent.error", True),
        ("503 Away", "agent.error", True),
        ("504 Slow", "agent.timeout", True),
        ("204 Empty", "agent.error", False),
        ("201 Made", "agent.error", False),
    ],
)
async def test_each_status_has_one_meaning(status: str, code: str, retryable: bool) -> None:
    body = b"" if status.startswith("204") else b"<html>"
    # A call in flight elsewhere is asked for until time is nearly up.
    timeout_s = 0.8 if status.startswith("409") else 5.0
    assert error_of(await called(json_answer(body, status, media_type="text/html"), timeout_s)) == (code, retryable)


async def test_a_call_in_flight_for_an_earlier_delivery_is_awaited() -> None:
    """A host died in the middle of a call, and the step is delivered again while the agent is still at it."""
    in_flight, done = json_answer(PROBLEM, "409 Flight", "Retry-After: 0"), json_answer(GOOD)
    answers = iter([in_flight, in_flight, done])

    async def one_after_another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await next(answers)(reader, writer)

    async with raw_server(one_after_another) as url:
        invoker = HttpAgentInvoker(
            {"probes": url}, credential, SpareGrants(), pauses=Pauses(in_flight_s=0.01, poll_s=0.01)
        )
        found = await invoker.invoke(manifest("probe.count"), request("probe.count"))
        await invoker.close()
    assert found == ExecuteSucceeded(output={"count": 1})
    assert next(answers, None) is None


@pytest.mark.parametrize(("value", "expected"), [("7", 7.0), ("999999", 3600.0), ("soon", None), ("-1", None)])
async def test_retry_after_is_kept_within_reason(value: str, expected: float | None) -> None:
    found = await called(json_answer(PROBLEM, "503 Away", f"Retry-After: {value}"))
    assert isinstance(found, ExecuteFailed)
    assert (found.error.code, found.error.retry_after_s) == ("agent.busy", expected)


async def test_an_agent_cannot_speak_in_the_engines_name() -> None:
    forged = json.dumps({"code": "policy.denied", "detail": "x"}).encode()
    assert error_of(await called(json_answer(forged, "400 Bad"))) == ("agent.error", False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"status": "done"}',
        b'{"status": "succeeded"}',
        b'{"status": "succeeded", "output": {}, "surprise": 1}',
        b'{"status": "succeeded", "output": {"a": 1, "a": 2}}',
        b'{"status": "succeeded", "output": {"a": NaN}}',
        b'{"status": "succeeded", "output": {"a": 1e999}}',
        b'{"status": "succeeded", "output": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"status": "failed"}',
        b'{"status": "failed", "error": {"code": ""}}',
        b'{"status": "succeeded", "output": {}, "usage": {"cost_micro_usd": -5}}',
        b"\xef\xbb\xbf" + GOOD,
        GOOD + GOOD,
    ],
)
async def test_an_answer_of_another_form_breaks_the_contract(body: bytes) -> None:
    assert error_of(await called(json_answer(body))) == ("agent.contract_violation", False)


@pytest.mark.parametrize(
    "answer",
    [
        json_answer(GOOD, media_type="text/html"),
        json_answer(GOOD, "200 OK", "Content-Encoding: br"),
        json_answer(GOOD, "200 OK", "Content-Encoding: gzip"),
        json_answer(gzip.compress(GOOD)[:-6], "200 OK", "Content-Encoding: gzip"),
        json_answer(gzip.compress(GOOD) + b"more", "200 OK", "Content-Encoding: gzip"),
    ],
    ids=["not json", "brotli", "not gzip", "cut gzip", "gzip and more"],
)
async def test_an_answer_in_another_coding_breaks_the_contract(answer: Raw) -> None:
    assert error_of(await called(answer)) == ("agent.contract_violation", False)


@pytest.mark.parametrize(
    "data",
    [b"", b"SMTP ready\r\n\r\n", head("200 OK", "Content-Type: application/json", length=500) + GOOD],
    ids=["closed", "not http", "cut short"],
)
async def test_a_broken_connection_is_worth_another_try(data: bytes) -> None:
    assert error_of(await called(canned(data))) == ("agent.unreachable", True)


async def test_nobody_listening_is_worth_another_try() -> None:
    async with raw_server(canned(b"")) as url:
        pass
    invoker = HttpAgentInvoker({"probes": url}, credential, SpareGrants())
    assert error_of(await invoker.invoke(MANIFESTS["probe.count"], request("probe.count"))) == (
        "agent.unreachable",
        True,
    )
    await invoker.close()


async def test_an_endpoint_without_address_is_not() -> None:
    invoker = HttpAgentInvoker({}, credential, SpareGrants())
    found = await invoker.invoke(MANIFESTS["probe.count"], request("probe.count"))
    assert error_of(found) == ("agent.not_configured", False)


async def test_a_credential_that_cannot_be_had_is_a_failure_not_a_surprise() -> None:
    async def unavailable() -> str:
        raise LivoaError("credential.unavailable", "secret reason", status=503)

    invoker = HttpAgentInvoker({"probes": "http://127.0.0.1:9"}, unavailable, SpareGrants())
    found = await invoker.invoke(MANIFESTS["probe.count"], request("probe.count"))
    assert error_of(found) == ("agent.no_credential", True)
    assert "secret reason" not in str(found)


async def test_a_request_over_the_limit_is_not_sent() -> None:
    async with raw_server(json_answer(GOOD)) as url:
        invoker = HttpAgentInvoker({"probes": url}, credential, SpareGrants())
        found = await invoker.invoke(MANIFESTS["probe.count"], request("probe.count", "x" * 300_000))
        assert error_of(found) == ("agent.request_too_large", False)


async def test_tokens_and_contents_are_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answers = [
            await called(json_answer(b"body-that-must-not-be-seen")),
            await called(json_answer(b'{"code": "body-that-must-not-be-seen"}', "500 Oops")),
            await called(canned(b"")),
        ]
    said = caplog.text + str(answers)
    assert TOKEN not in said
    assert "must-not-be-seen" not in said


def test_one_invoker_serves_several_event_loops() -> None:
    async def once() -> ExecuteResponse:
        async with raw_server(json_answer(GOOD)) as url:
            # Another server has another port, so the invoker's configuration is changed beneath it.
            other = HttpAgentInvoker({"probes": url}, credential, SpareGrants())
            invoker._endpoints["probes"], invoker._exchange.rules = url, other._exchange.rules
            try:
                return await invoker.invoke(MANIFESTS["probe.count"], request("probe.count"))
            finally:
                await invoker.close()

    invoker = HttpAgentInvoker({"probes": "http://127.0.0.1:9"}, credential, SpareGrants())
    assert all(isinstance(asyncio.run(once()), ExecuteSucceeded) for _ in range(3))


async def test_the_environments_proxy_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert isinstance(await called(json_answer(GOOD)), ExecuteSucceeded)


@pytest.mark.parametrize(
    "url",
    [
        "http://agents.example",
        "ftp://127.0.0.1",
        "https://user:pass@agents.example",
        "https://agents.example/?key=1",
        "https://",
        "agents.example",
        "http://127.0.0.1.example",
    ],
)
def test_an_unsafe_address_is_refused_at_start(url: str) -> None:
    with pytest.raises(LivoaError) as caught:
        HttpAgentInvoker({"probes": url}, credential, SpareGrants())
    assert (caught.value.code, caught.value.pointer) == ("settings.invalid", "/probes")
