"""What surrounds the client stays outside: environment variables, tracing, callbacks, loggers, downloads, import costs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.ports.models import ModelReply
from tests.contract.models.conftest import KEY, PROMPT, call
from tests.support.model_server import ModelServer, always, text

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import asyncio, json, logging, sys
from engine.adapters.azure_openai import AzureOpenAiChatModels, ModelEndpoint
from engine.ports.models import Message, ModelCall, ModelDeployment

contacts = set()

def hear(event, arguments):
    if event == "socket.getaddrinfo":
        contacts.add(f"{arguments[0]}:{arguments[1]}")
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        contacts.add(f"{arguments[1][0]}:{arguments[1][1]}")

def heavy():
    libraries = {"langchain_core", "langchain_openai", "openai", "httpx2", "langsmith"}
    return sorted({name.split(".")[0] for name in sys.modules} & libraries)

async def main(url, azure_url, key):
    deployments = [ModelDeployment(name, "gpt-4o", "test") for name in ("c", "a")]
    compatible = ModelEndpoint(deployments[0], "openai_compatible", url, key=key)
    azure = ModelEndpoint(
        deployments[1], "azure_openai", azure_url, azure_deployment="d", api_version="v", key=key
    )
    models = AzureOpenAiChatModels([compatible, azure])
    before, found = heavy(), []
    for name in ("c", "a"):
        call = ModelCall(name, (Message("user", "a very private question about Jane Roe"),), 10, 20.0)
        found.append(type(await models.complete(call)).__name__)
        found.append([type(piece).__name__ async for piece in models.stream(call)][-1])
    await models.close()
    return {"before": before, "found": found, "after": heavy()}

sys.addaudithook(hear)
result = asyncio.run(main(*sys.argv[1:4]))
if "langsmith" in sys.modules:
    import gc, langsmith
    for one in gc.get_objects():  # what a tracer has gathered is sent now
        if isinstance(one, langsmith.Client):
            one.flush()
print(json.dumps(result | {"contacts": sorted(contacts)}))
"""


def run_with(environment: dict[str, str], server: ModelServer) -> tuple[dict, str]:
    """The adapter in a fresh process with these variables; what it found, and everything it logged."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, server.url, server.azure_url, KEY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_no_variable_of_the_environment_changes_what_is_sent_or_where(server):
    with ModelServer() as other:
        other.script(always(text("wrong")))
        server.script(always(text("right")))
        hostile = {
            "LANGSMITH_TRACING": "true",
            "LANGCHAIN_TRACING_V2": "true",
            "LANGSMITH_ENDPOINT": other.address,
            "LANGSMITH_API_KEY": "ls-key",
            "LANGSMITH_GATEWAY": "true",
            "LANGSMITH_GATEWAY_URL": other.url,
            "LANGSMITH_GATEWAY_API_KEY": "gateway-key",
            "OPENAI_API_KEY": "environment-key",
            "OPENAI_BASE_URL": other.url,
            "OPENAI_API_BASE": other.url,
            "OPENAI_ORG_ID": "environment-organisation",
            "OPENAI_PROJECT_ID": "environment-project",
            "OPENAI_CUSTOM_HEADERS": "x-environment: yes",
            "OPENAI_PROXY": other.address,
            "AZURE_OPENAI_API_KEY": "environment-key",
            "AZURE_OPENAI_AD_TOKEN": "environment-token",
            "AZURE_OPENAI_ENDPOINT": other.address,
            "OPENAI_API_VERSION": "environment-version",
            "HTTP_PROXY": other.address,
            "HTTPS_PROXY": other.address,
            "ALL_PROXY": other.address,
            "OPENAI_LOG": "debug",
            "LANGCHAIN_VERBOSE": "true",
        }
        found, logged = run_with(hostile, server)
        assert found["found"] == ["ModelReply"] * 4
        assert other.attempted == 0
        assert found["contacts"] == [server.address.removeprefix("http://")]
        sent = json.dumps([[dict(one.headers), one.query, one.body] for one in server.requests])
        assert "environment" not in sent
        for word in (PROMPT, "Jane", KEY, "right"):
            assert word not in logged


def test_only_a_call_loads_the_libraries_and_nobody_else_is_contacted(server):
    """Not for a token table of tiktoken, nor for anything else. A value of the wrong type is not printed as a warning."""
    server.script(
        always(text("ok", usage={"prompt_tokens": "provider-words", "completion_tokens": {"provider-words": 1}}))
    )
    found, logged = run_with({}, server)
    assert found["before"] == []
    assert "langchain_openai" in found["after"]
    assert found["contacts"] == [server.address.removeprefix("http://")]
    assert "provider-words" not in logged


async def test_callbacks_of_a_graph_around_the_call_never_see_the_prompt(server, models):
    from langchain_core.callbacks import AsyncCallbackHandler
    from langchain_core.runnables import RunnableConfig, RunnableLambda

    seen: list[str] = []

    class Listener(AsyncCallbackHandler):
        async def on_chat_model_start(self, *args, **kwargs):
            seen.append(repr(args))

        async def on_llm_new_token(self, token, **kwargs):
            seen.append(token)

    server.script(always(text("ok")))

    async def node(_: str) -> str:
        assert isinstance(await models.complete(call()), ModelReply)
        return str([piece async for piece in models.stream(call())])

    await RunnableLambda(node).ainvoke("x", RunnableConfig(callbacks=[Listener()]))
    assert seen == []


async def test_libraries_are_silent_even_when_the_root_logger_is_not(server, models, caplog):
    caplog.set_level(logging.DEBUG)
    server.script(always(text("reply words")))
    await models.complete(call())
    [piece async for piece in models.stream(call())]
    theirs = [
        one for one in caplog.records if one.name.split(".")[0] in ("openai", "httpx2", "httpcore2", "langchain_openai")
    ]
    assert theirs == []


@pytest.mark.parametrize("what", ["endpoint", "adapter"])
def test_no_key_is_in_a_representation(server, what):
    from engine.adapters.azure_openai import AzureOpenAiChatModels
    from tests.contract.models.conftest import compatible

    endpoint = compatible(server)
    assert KEY not in repr(endpoint if what == "endpoint" else vars(AzureOpenAiChatModels([endpoint])))


async def test_a_loop_of_its_own_has_a_client_of_its_own(server):
    import asyncio

    from engine.adapters.azure_openai import AzureOpenAiChatModels
    from tests.contract.models.conftest import compatible

    server.script(always(text("ok")))
    models = AzureOpenAiChatModels([compatible(server)])

    async def once() -> bool:
        reply = await models.complete(call())
        await models.close()
        return isinstance(reply, ModelReply)

    assert await asyncio.to_thread(lambda: asyncio.run(once()))
    assert await once()
