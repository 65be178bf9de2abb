"""What a working provider gives: text, structured output, streams, usage; and what is sent to it."""

from __future__ import annotations

import asyncio

import pytest

from engine.adapters.azure_openai import AzureOpenAiChatModels
from engine.ports.models import ModelDelta, ModelFailure, ModelReply, ModelUsage
from tests.contract.models.conftest import KEY, PROMPT, SCHEMA, azure, call, compatible
from tests.support.model_server import ModelServer, always, as_json, slow, text

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_reply_comes_whole_with_its_usage(server, models):
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 7,
        "total_tokens": 37,
        "prompt_tokens_details": {"cached_tokens": 9},
    }
    server.script([text("Search fell.", usage=usage)])
    reply = await models.complete(call())
    assert isinstance(reply, ModelReply)
    assert (reply.text, reply.finish_reason) == ("Search fell.", "stop")
    assert reply.usage == ModelUsage(30, 7, 9)
    assert reply.model == server.requests[0].model
    assert reply.latency_s > 0


async def test_structured_output_is_asked_for_strictly_and_comes_as_text(server, models):
    server.script([as_json({"answer": "yes"})], work="verdict")
    reply = await models.complete(call(schema=SCHEMA, schema_name="verdict"))
    assert isinstance(reply, ModelReply)
    assert reply.text == '{"answer": "yes"}'
    assert server.requests[0].body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
    }


async def test_text_that_breaks_the_schema_comes_as_it_is(server, models):
    server.script([text('{"answer": 4, "mo')])
    reply = await models.complete(call(schema=SCHEMA))
    assert isinstance(reply, ModelReply)
    assert reply.text == '{"answer": 4, "mo'


async def test_a_stream_gives_pieces_and_then_the_whole_with_its_usage(server, models):
    server.script([text("Search fell by a third.", usage={"prompt_tokens": 30, "completion_tokens": 7})])
    seen = [piece async for piece in models.stream(call())]
    *pieces, last = seen
    assert [piece.text for piece in pieces if isinstance(piece, ModelDelta)] == [
        "Search ",
        "fell ",
        "by ",
        "a ",
        "third.",
    ]
    assert isinstance(last, ModelReply)
    assert (last.text, last.usage) == ("Search fell by a third.", ModelUsage(30, 7))
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


async def test_a_structured_stream_is_a_stream_too(server, models):
    server.script([as_json({"answer": "in a few words"})])
    *pieces, last = [piece async for piece in models.stream(call(schema=SCHEMA))]
    assert len(pieces) > 2
    assert isinstance(last, ModelReply)
    assert last.text == '{"answer": "in a few words"}'


async def test_pieces_come_as_the_provider_sends_them(server, models):
    server.script([slow(text("one two"), between_pieces_s=0.2)])
    stream = models.stream(call())
    first = await anext(stream)
    assert first == ModelDelta("one ")
    assert not server.recorded[0].finished.is_set()
    await stream.aclose()


async def test_usage_is_estimated_where_the_provider_does_not_count(server, models):
    server.script(always(text("four words of text", usage={})))
    reply = await models.complete(call())
    *_, last = [piece async for piece in models.stream(call())]
    assert isinstance(reply, ModelReply)
    assert isinstance(last, ModelReply)
    assert reply.usage == last.usage == ModelUsage(-(-(len(PROMPT) + len("Be brief.")) // 4), 5, estimated=True)


async def test_what_is_sent_is_what_was_meant(server, models):
    server.script([text("ok")])
    await models.complete(call(temperature=0.25, seed=7, max_output_tokens=50), traceparent=TRACEPARENT)
    sent = server.requests[0]
    body = dict(sent.body)
    assert body.pop("model") in ("gpt-4o", None)
    assert body == {
        "messages": [{"content": "Be brief.", "role": "system"}, {"content": PROMPT, "role": "user"}],
        "max_tokens": 50,
        "temperature": 0.25,
        "seed": 7,
    } | ({"stream": False} if "stream" in body else {})
    assert sent.headers["traceparent"] == TRACEPARENT
    assert set(sent.headers) <= set(
        "host authorization api-key content-type content-length accept connection user-agent accept-encoding traceparent".split()
    )


async def test_the_deployment_caps_what_a_call_may_ask_for(server, models):
    server.script([text("ok")])
    await models.complete(call(max_output_tokens=100_000))
    assert server.requests[0].body["max_tokens"] == 1_000


async def test_a_reasoning_model_is_spoken_to_in_its_own_words(server):
    server.script([text("ok")])
    models = AzureOpenAiChatModels([compatible(server, reasoning=True)])
    await models.complete(call(seed=7))
    body = server.requests[0].body
    assert body["max_completion_tokens"] == 200
    assert not {"max_tokens", "temperature", "seed"} & body.keys()
    await models.close()


async def test_azure_is_asked_on_its_own_path_with_the_key(server):
    server.script([text("ok")])
    models = AzureOpenAiChatModels([azure(server)])
    await models.complete(call())
    sent = server.requests[0]
    assert sent.path == "/openai/deployments/prod-4o/chat/completions"
    assert sent.query == {"api-version": "2024-10-21"}
    assert sent.headers["api-key"] == KEY
    await models.close()


async def test_azure_without_a_key_is_asked_with_the_apps_own_identity(server):
    tokens = iter([KEY, KEY])

    async def credential() -> str:
        return next(tokens)

    server.script(always(text("ok")))
    models = AzureOpenAiChatModels([azure(server, key=None)], credential)
    for _ in range(2):
        assert isinstance(await models.complete(call()), ModelReply)
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert "api-key" not in server.requests[0].headers
    assert next(tokens, None) is None
    await models.close()


async def test_a_server_without_a_key_gets_no_credential():
    with ModelServer() as open_server:
        open_server.script([text("ok")])
        models = AzureOpenAiChatModels([compatible(open_server, key=None)])
        assert isinstance(await models.complete(call()), ModelReply)
        assert "authorization" not in open_server.requests[0].headers
        await models.close()


async def test_calls_share_one_client_and_its_connections_are_limited(server):
    server.script(always(slow(text("ok"), before_headers_s=0.05)))
    models = AzureOpenAiChatModels([compatible(server)], connections=4)
    replies = await asyncio.gather(*(models.complete(call()) for _ in range(8)))
    assert all(isinstance(reply, ModelReply) for reply in replies)
    await models.close()


async def test_a_closed_adapter_can_be_used_again(server, models):
    server.script(always(text("ok")))
    await models.complete(call())
    await models.close()
    assert isinstance(await models.complete(call()), ModelReply)


async def test_an_unknown_deployment_is_a_failure_and_no_request(server, models):
    result = await models.complete(call(deployment="other"))
    (streamed,) = [piece async for piece in models.stream(call(deployment="other"))]
    assert isinstance(result, ModelFailure)
    assert result == streamed
    assert result.code == "model.not_configured"
    assert server.requests == []


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_a_deadline_that_has_passed_is_no_request(server, models, timeout_s):
    result = await models.complete(call(timeout_s=timeout_s))
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.timeout", True)
    assert server.requests == []
