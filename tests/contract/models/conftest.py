"""The real langchain-openai client, a scripted server on loopback, real sockets between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from engine.adapters.azure_openai import AzureOpenAiChatModels, ModelEndpoint
from engine.ports.models import Message, ModelCall, ModelDeployment
from tests.support.model_server import ModelServer

PROMPT = "a very private question about Jane Roe"
KEY = "sk-secret-of-the-test"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["answer"],
    "properties": {"answer": {"type": "string"}},
}
DEPLOYMENT = ModelDeployment("gpt", "gpt-4o", "azure_openai", max_output_tokens=1_000)


def call(**fields: Any) -> ModelCall:
    """One call with a private prompt."""
    base = ModelCall("gpt", (Message("system", "Be brief."), Message("user", PROMPT)), 200, 10.0)
    return replace(base, **fields)


def compatible(server: ModelServer, **fields: Any) -> ModelEndpoint:
    """The server as any OpenAI-compatible endpoint."""
    return replace(ModelEndpoint(DEPLOYMENT, "openai_compatible", server.url, key=KEY), **fields)


def azure(server: ModelServer, **fields: Any) -> ModelEndpoint:
    """The server as an Azure resource."""
    base = ModelEndpoint(
        DEPLOYMENT, "azure_openai", server.azure_url, azure_deployment="prod-4o", api_version="2024-10-21", key=KEY
    )
    return replace(base, **fields)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A provider that accepts one key."""
    with ModelServer(key=KEY) as running:
        yield running


@pytest.fixture(params=["openai_compatible", "azure_openai"])
async def models(request: pytest.FixtureRequest, server: ModelServer) -> AsyncIterator[AzureOpenAiChatModels]:
    """The adapter, towards either kind of endpoint."""
    endpoint = compatible(server) if request.param == "openai_compatible" else azure(server)
    adapter = AzureOpenAiChatModels([endpoint], idle_timeout_s=0.5)
    yield adapter
    await adapter.close()
