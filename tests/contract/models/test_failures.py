"""Every way a provider fails is a failure with a code, in our words; nothing is retried and nothing hangs."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import time

import pytest

from engine.adapters.azure_openai import AzureOpenAiChatModels
from engine.adapters.azure_openai.transport import MAX_REPLY_BYTES
from engine.ports.models import ModelDelta, ModelFailure, ModelReply, ModelUsage
from tests.contract.models.conftest import KEY, PROMPT, SCHEMA, call, compatible
from tests.support.model_server import (
    ModelServer,
    always,
    context_too_long,
    cut,
    failure,
    filtered_prompt,
    filtered_reply,
    huge,
    rate_limited,
    raw,
    refused,
    slow,
    text,
    truncated,
)

WORDS = text("some words of an answer", usage={"prompt_tokens": 30, "completion_tokens": 7})
VLLM_TOO_LONG = raw(
    b'{"object":"error","message":"This model\'s maximum context length is 4096 tokens.","type":"BadRequestError","code":400}',
    status=400,
)
AZURE_JAILBREAK = raw(
    b'{"error":{"message":"filtered","type":null,"code":"x","innererror":{"code":"ResponsibleAIPolicyViolation"}}}',
    status=400,
)

BEFORE_THE_REPLY = {
    "rate limited": (rate_limited(), "model.rate_limited", True, None),
    "rate limited, seconds": (rate_limited(3), "model.rate_limited", True, 3.0),
    "rate limited, milliseconds": (rate_limited(9, retry_after_ms=250), "model.rate_limited", True, 0.25),
    "rate limited for a day": (rate_limited(86_400), "model.rate_limited", True, 3_600.0),
    "no credit": (failure(429, "insufficient_quota"), "model.rate_limited", False, None),
    "broken": (failure(500), "model.unavailable", True, None),
    "busy": (failure(503, headers={"Retry-After": "2"}), "model.unavailable", True, 2.0),
    "busy until a date": (
        failure(503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
        "model.unavailable",
        True,
        None,
    ),
    "gateway timeout": (failure(504), "model.timeout", True, None),
    "conflict": (failure(409), "model.unavailable", True, None),
    "a page for people": (
        raw(b"<h1>Bad gateway</h1>", status=502, content_type="text/html"),
        "model.unavailable",
        True,
        None,
    ),
    "not ours": (failure(401, "invalid_api_key"), "model.unauthorised", False, None),
    "forbidden": (failure(403), "model.unauthorised", False, None),
    "no such deployment": (failure(404, "DeploymentNotFound"), "model.not_configured", False, None),
    "prompt filtered": (filtered_prompt(), "model.content_filtered", False, None),
    "prompt filtered, inner code": (AZURE_JAILBREAK, "model.content_filtered", False, None),
    "prompt too long": (context_too_long(), "model.context_too_long", False, None),
    "prompt too long, vllm": (VLLM_TOO_LONG, "model.context_too_long", False, None),
    "request too large": (failure(413), "model.context_too_long", False, None),
    "bad request": (failure(400, "invalid_value"), "model.unavailable", False, None),
    "moved": (raw(b"", status=307), "model.unavailable", False, None),
}


async def outcome(models, streamed, **fields):
    """The result of one call, whole or streamed."""
    if not streamed:
        return await models.complete(call(**fields))
    *_, last = [piece async for piece in models.stream(call(**fields))]
    return last


both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])


@both_ways
async def test_an_error_status_has_a_code_and_is_asked_once(server, models, streamed):
    for kind, (answer, code, retryable, after_s) in BEFORE_THE_REPLY.items():
        before = len(server.requests)
        server.script(always(answer))
        result = await outcome(models, streamed)
        assert isinstance(result, ModelFailure), kind
        assert (result.code, result.retryable, result.retry_after_s) == (code, retryable, after_s), kind
        assert result.usage is None, kind
        assert len(server.requests) == before + 1, kind


USED = ModelUsage(30, 7)
REPLIES = {
    "truncated": (truncated("some words"), "model.truncated", False),
    "filtered": (filtered_reply(), "model.content_filtered", False),
    "refused": (refused(), "model.refused", False),
    "empty": (text(""), "model.invalid_output", True),
    "blank": (text(" \n "), "model.invalid_output", True),
    "no end": (text("words", finish_reason="tool_calls"), "model.invalid_output", True),
}


@both_ways
@pytest.mark.parametrize("schema", [None, SCHEMA], ids=["text", "structured"])
@pytest.mark.parametrize("kind", REPLIES)
async def test_a_reply_that_is_none_has_a_code_and_its_usage(server, models, kind, schema, streamed):
    from dataclasses import replace

    answer, code, retryable = REPLIES[kind]
    server.script([replace(answer, usage={"prompt_tokens": 30, "completion_tokens": 7})])
    result = await outcome(models, streamed, schema=schema)
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable, result.usage) == (code, retryable, USED)
    assert result.latency_s > 0


GARBAGE = {
    "nothing": raw(b""),
    "not json": raw(b'{"choices": [{"mess'),
    "a page": raw(b"<html>hello</html>", content_type="text/html"),
    "a list": raw(b"[]"),
    "null": raw(b"null"),
    "a number": raw(b"7"),
    "another object": raw(b'{"hello": "world"}'),
    "no choices": text("", choices=0),
    "null choices": raw(b'{"id": "1", "object": "chat.completion", "model": "m", "choices": null}'),
    "null message": raw(b'{"choices": [{"index": 0, "finish_reason": "stop", "message": null}]}'),
    "content of another kind": raw(
        b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": {"a": 1}}}]}'
    ),
    "usage of another kind": raw(
        b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"x"}}],'
        b'"usage":{"prompt_tokens":"many","completion_tokens":[]}}'
    ),
    "not utf-8": raw(b'{"choices": "\xff\xfe"}'),
    "deep": raw(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "compressed": raw(gzip.compress(b'{"choices": []}')),
}


async def test_a_body_that_makes_no_sense_is_invalid_output(server, models):
    for kind, answer in GARBAGE.items():
        server.script([answer])
        result = await models.complete(call())
        assert isinstance(result, ModelFailure), kind
        assert result.code == "model.invalid_output", kind


async def test_counts_that_are_no_counts_are_estimated(server, models):
    server.script([text("x", usage={"prompt_tokens": -5, "completion_tokens": 10**30})])
    result = await models.complete(call())
    assert isinstance(result, ModelReply)
    assert result.usage == ModelUsage(-(-(len(PROMPT) + len("Be brief.")) // 4), 1, estimated=True)


STREAMED_GARBAGE = {
    "not json": b"data: {hello\n\n",
    "a list": b"data: []\n\n",
    "null": b"data: null\n\n",
    "no deltas": b'data: {"choices": [{"index": 0}]}\n\n',
    "null delta": b'data: {"choices": [{"index": 0, "delta": null, "finish_reason": null}]}\n\ndata: [DONE]\n\n',
    "nothing": b"",
    "only the end": b"data: [DONE]\n\n",
    "no events": b"hello world",
    "not utf-8": b"data: \xff\xfe\n\n",
}


async def test_events_that_make_no_sense_are_a_failure(server, models):
    for kind, events in STREAMED_GARBAGE.items():
        server.script([raw(events, content_type="text/event-stream")])
        result = await outcome(models, True)
        assert isinstance(result, ModelFailure), kind
        assert result.code in ("model.invalid_output", "model.unavailable"), kind
        assert result.retryable, kind


async def test_an_encoding_that_was_not_asked_for_is_refused(server, models):
    from dataclasses import replace

    bomb = raw(gzip.compress(b" " * 50_000_000))
    server.script([replace(bomb, headers={**bomb.headers, "Content-Encoding": "gzip"})])
    result = await models.complete(call())
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.invalid_output", False)


@both_ways
async def test_a_reply_without_end_is_cut_at_the_bound(server, models, streamed):
    server.script([huge(10 * MAX_REPLY_BYTES)])
    result = await outcome(models, streamed, timeout_s=60.0)
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.invalid_output", False)
    await asyncio.to_thread(server.recorded[0].gone.wait, 5)
    assert server.recorded[0].gone.is_set()


@both_ways
async def test_a_server_that_does_not_answer_times_out_on_the_deadline(server, models, streamed):
    server.script(always(slow(WORDS, before_headers_s=30)))
    await models.complete(call(deployment="gpt", timeout_s=0.01))  # loads the libraries
    started = time.monotonic()
    result = await outcome(models, streamed, timeout_s=0.3)
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.timeout", True)
    assert 0.25 < time.monotonic() - started < 3
    await asyncio.to_thread(server.recorded[-1].gone.wait, 5)
    assert server.recorded[-1].gone.is_set()


@both_ways
async def test_a_server_that_drips_times_out_on_the_deadline(server, models, streamed):
    long = text("a " * 400)
    server.script([slow(long, between_pieces_s=0.05)])
    result = await outcome(models, streamed, timeout_s=0.6)
    assert isinstance(result, ModelFailure)
    assert result.code == "model.timeout"
    if streamed:
        assert result.usage is not None
        assert result.usage.estimated
        assert result.usage.output_tokens >= 1


async def test_a_stream_that_falls_silent_times_out_before_the_deadline(server, models):
    server.script([slow(WORDS, between_pieces_s=20)])
    started = time.monotonic()
    result = await outcome(models, True, timeout_s=60.0)
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.timeout", True)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("after_pieces", [0, 1, 3])
@both_ways
async def test_a_connection_that_breaks_is_unavailable(server, models, streamed, after_pieces):
    server.script([cut(WORDS, after_pieces)])
    result = await outcome(models, streamed)
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.unavailable", True)


async def test_a_stream_that_stops_without_its_end_is_no_reply(server, models):
    server.script([text("half an", finish_reason=None, done=False)])
    *pieces, last = [piece async for piece in models.stream(call())]
    assert pieces == [ModelDelta("half "), ModelDelta("an")]
    assert isinstance(last, ModelFailure)
    assert (last.code, last.retryable) == ("model.unavailable", True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("content_filter", "model.content_filtered"),
        ("context_length_exceeded", "model.context_too_long"),
        ("rate_limit_exceeded", "model.rate_limited"),
        ("server_error", "model.unavailable"),
    ],
)
async def test_an_error_inside_a_stream_has_its_code(server, models, code, expected):
    error = {"message": "provider words", "type": "some_error", "code": code}
    server.script([text("some words of an answer", error=error, error_after_pieces=3)])
    *pieces, last = [piece async for piece in models.stream(call())]
    assert pieces
    assert isinstance(last, ModelFailure)
    assert last.code == expected
    assert last.usage is not None


async def test_a_port_where_nobody_listens_is_unavailable():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        with ModelServer() as any_server:
            endpoint = compatible(any_server, url=url)
        models = AzureOpenAiChatModels([endpoint])
        for streamed in (False, True):
            result = await outcome(models, streamed)
            assert isinstance(result, ModelFailure)
            assert (result.code, result.retryable) == ("model.unavailable", True)
            assert url not in result.message
        await models.close()


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["127.0.0.1"], ["10.0.0.7", "168.63.129.16"], []])
async def test_a_name_that_leads_where_no_call_may_go_is_not_called(server, addresses):
    async def lookup(host: str, port: int) -> list[str]:
        return addresses

    url = server.url.replace("127.0.0.1", "models.example")
    models = AzureOpenAiChatModels([compatible(server, url=url)], lookup=lookup)
    for streamed in (False, True):
        result = await outcome(models, streamed)
        assert isinstance(result, ModelFailure)
        assert (result.code, result.retryable) == ("model.not_configured", False)
        assert result.egress == ("egress.address_blocked" if addresses else "egress.unresolved")
    assert server.attempted == 0
    await models.close()


async def test_a_name_without_an_address_is_unavailable(server):
    async def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror("no such name")

    models = AzureOpenAiChatModels([compatible(server, url="https://models.example/v1")], lookup=lookup)
    result = await models.complete(call())
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.unavailable", True)
    await models.close()


async def test_the_address_that_was_checked_is_the_one_that_is_called(server):
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.2", "127.0.0.1"]  # nobody listens on the first

    server.script(always(WORDS))
    models = AzureOpenAiChatModels(
        [compatible(server, url=server.url.replace("127.0.0.1", "localhost"))], lookup=lookup
    )
    assert isinstance(await models.complete(call()), ModelReply)
    assert isinstance(await models.complete(call()), ModelReply)
    assert asked == ["localhost"]
    assert server.requests[0].headers["host"].startswith("localhost:")
    await models.close()


async def test_no_identity_is_unauthorised_and_no_request(server):
    from engine.domain.errors import LivoaError
    from tests.contract.models.conftest import azure

    async def credential() -> str:
        raise LivoaError("auth.identity_unavailable", "no token", status=503)

    models = AzureOpenAiChatModels([azure(server, key=None)], credential)
    for streamed in (False, True):
        result = await outcome(models, streamed)
        assert isinstance(result, ModelFailure)
        assert (result.code, result.retryable) == ("model.unauthorised", True)
    assert server.requests == []
    await models.close()


@pytest.mark.parametrize("how", ["aclose", "cancel", "break"])
async def test_a_consumer_that_leaves_closes_the_connection(server, models, how):
    server.script([slow(text("word " * 1_000), between_pieces_s=0.05)])
    stream = models.stream(call())

    async def consume() -> None:
        async for _ in stream:
            if how == "break":
                return

    if how == "cancel":
        reader = asyncio.create_task(consume())
        await asyncio.to_thread(_until, lambda: server.recorded)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    elif how == "aclose":
        await anext(stream)
        await stream.aclose()
    else:
        await consume()
        del stream
    await asyncio.to_thread(server.recorded[0].gone.wait, 5)
    assert server.recorded[0].gone.is_set()


async def test_a_caller_that_is_cancelled_closes_the_connection(server, models):
    server.script([slow(WORDS, before_headers_s=30)])
    caller = asyncio.create_task(models.complete(call()))
    await asyncio.to_thread(_until, lambda: server.recorded)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.to_thread(server.recorded[0].gone.wait, 5)
    assert server.recorded[0].gone.is_set()


async def test_a_call_after_a_failure_finds_a_working_connection(server, models):
    server.script([cut(WORDS, 1), failure(500), WORDS])
    results = [await models.complete(call()) for _ in range(3)]
    assert [type(result) for result in results] == [ModelFailure, ModelFailure, ModelReply]


@both_ways
async def test_no_word_of_prompt_provider_or_key_is_in_a_failure_or_a_log(server, models, caplog, streamed):
    caplog.set_level(logging.DEBUG)
    secret = "provider secret words"
    answers = [failure(code, "x", f"{secret} {PROMPT} {KEY}") for code in (400, 401, 404, 429, 500)] + [
        raw(f"{secret} {PROMPT}".encode()),
        text(secret, finish_reason="length"),
        refused(secret),
        cut(text(secret), 1),
    ]
    server.script(answers)
    results = [await outcome(models, streamed) for _ in answers]
    assert all(isinstance(result, ModelFailure) for result in results)
    said = repr(results) + "".join(record.getMessage() + str(record.exc_info) for record in caplog.records)
    for word in (secret, PROMPT, KEY, "Jane"):
        assert word not in said


def _until(ready) -> None:
    deadline = time.monotonic() + 5
    while not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
