"""A provider that sends anything at all: seeded mutations of good bodies never raise, never hang, never repeat themselves."""

from __future__ import annotations

import json
import random
import re

import pytest

from engine.adapters.azure_openai import AzureOpenAiChatModels
from engine.ports.models import ModelDelta, ModelFailure, ModelReply
from tests.contract.models.conftest import azure, call, compatible
from tests.support.model_server import ModelRequest, raw, text
from tests.support.model_server.wire import pieces

MARK = "provider-words"
VALUES = [None, True, -1, 10**400, 1.5, "", MARK, "\u0000", "\ud800", [], {}, [[]], {"a": {"b": [MARK]}}]
MUTATIONS = 80


def mutated(body: bytes, seed: int) -> bytes:
    """A body with one to three places changed, in its structure or in its bytes."""
    chance = random.Random(seed)
    if chance.random() < 0.4:
        spoiled = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        return bytes(spoiled[: chance.randrange(len(spoiled) + 1)] if chance.random() < 0.3 else spoiled)
    lines = body.split(b"\n")
    spoilable = [index for index, line in enumerate(lines) if b"{" in line]
    for _ in range(chance.randint(1, 3)):
        index = chance.choice(spoilable)
        prefix, _, document = lines[index].partition(b"{")
        tree = json.loads(b"{" + document)
        _spoil(tree, chance)
        lines[index] = prefix + json.dumps(tree).encode()
    return b"\n".join(lines)


def _spoil(tree: object, chance: random.Random) -> None:
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(tree[key], (dict, list)) and tree[key] and chance.random() < 0.7:
            tree = tree[key]
            continue
        tree[key] = chance.choice(VALUES)
        return


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", [compatible, azure])
async def test_a_body_of_any_kind_is_a_reply_or_a_failure(server, kind, streamed):
    seeds = iter(range(MUTATIONS))

    def answer(request: ModelRequest):
        body = b"".join(pieces(request, text("a few good words", refusal=None)))
        return raw(mutated(body, next(seeds)), content_type="text/event-stream" if streamed else "application/json")

    server.script(answer)
    models = AzureOpenAiChatModels([kind(server)], idle_timeout_s=5.0)
    kinds = set()
    for _ in range(MUTATIONS):
        if streamed:
            *deltas, result = [piece async for piece in models.stream(call())]
            assert all(isinstance(delta, ModelDelta) for delta in deltas)
        else:
            result = await models.complete(call())
        assert isinstance(result, (ModelReply, ModelFailure))
        if isinstance(result, ModelFailure):
            assert MARK not in repr(result)
            kinds.add(result.code)
        else:
            assert isinstance(result.text, str)
            assert result.text.strip()
            assert re.fullmatch(r"[\w.:/-]{1,100}", result.model)
            assert isinstance(result.usage.input_tokens, int)
            kinds.add("reply")
    assert {"reply", "model.invalid_output"} <= kinds
    await models.close()
