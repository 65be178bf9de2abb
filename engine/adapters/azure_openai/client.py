"""One deployment, spoken to with langchain-openai. Heavy to import: only ``models`` does, in a thread, at the first call.

Structured output is asked for on the wire and not through langchain's own ways, which parse and validate and lose the text of a
truncated or malformed reply; our parser is the strict one. Nothing leaves as an exception: what goes wrong is a ``ModelFailure``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx2
import openai
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI
from langsmith import tracing_context
from pydantic import SecretStr

from engine.adapters.azure_openai.endpoints import ModelEndpoint
from engine.adapters.azure_openai.failures import of_finish, of_status, of_stream_error
from engine.adapters.azure_openai.transport import ReplyEncodingError, ReplyTooLargeError, http_client
from engine.adapters.egress.connector import Lookup
from engine.domain.egress import EgressRefusedError
from engine.domain.errors import LivoaError
from engine.ports.models import ModelCall, ModelDelta, ModelFailure, ModelReply, ModelResult, ModelUsage

_LOG = logging.getLogger("livoa.models")
_ALOUD = ("openai", "httpx2", "httpcore2", "langchain_openai", "langchain_core", "langchain", "langsmith")
_BYTES_PER_TOKEN = 4
"""Of English text, roughly; used only where the provider does not count."""

_NAME = re.compile(r"[A-Za-z0-9._:/@+-]{1,100}")
_MAX_TOKENS = 1_000_000_000
"""Counts beyond it are no counts, and would end up in budgets."""


def _silence() -> None:
    """Loggers of the libraries below can write prompts, replies and addresses, and an environment variable can turn them on."""
    for name in _ALOUD:
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
    # Of a field of another type than expected it would print the value.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)


def _with_refusal(made: ChatGenerationChunk | None, chunk: dict[str, Any]) -> ChatGenerationChunk | None:
    """langchain's reading of a streamed delta drops the refusal; then a refusal would look like an empty reply."""
    choices = chunk.get("choices") or ()
    delta = choices[0].get("delta") if choices else None
    if made is not None and delta and delta.get("refusal"):
        made.message.additional_kwargs["refusal"] = delta["refusal"]
    return made


class _Azure(AzureChatOpenAI):
    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        return _with_refusal(made, chunk)

    def _create_chat_result(
        self, response: dict[str, Any] | openai.BaseModel, generation_info: dict[str, Any] | None = None
    ) -> ChatResult:
        # The Azure class raises when the content filter stopped the reply, and with that loses what it cost.
        return BaseChatOpenAI._create_chat_result(self, response, generation_info)


class _Compatible(ChatOpenAI):
    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)
        return _with_refusal(made, chunk)


class _Reply:
    """What has come of a reply so far."""

    def __init__(self, call: ModelCall, deployment_model: str) -> None:
        self._call = call
        self._started = time.monotonic()
        self._usage: ModelUsage | None = None
        self._model = deployment_model
        self.parts: list[str] = []
        self.finish_reason: str | None = None
        self.refused = False

    @property
    def latency_s(self) -> float:
        return time.monotonic() - self._started

    def take(self, message: AIMessage) -> str:
        """Add a message or a piece of one; gives its text."""
        text = message.content if isinstance(message.content, str) else ""
        self.parts.append(text)
        self.refused = self.refused or bool(message.additional_kwargs.get("refusal"))
        self.finish_reason = message.response_metadata.get("finish_reason") or self.finish_reason
        model = message.response_metadata.get("model_name")
        # It goes into records and spans, so it must be a name and not whatever a server says.
        self._model = model if isinstance(model, str) and _NAME.fullmatch(model) else self._model
        counted = message.usage_metadata
        if counted is not None:
            cached = counted.get("input_token_details", {}).get("cache_read", 0)
            counts = (counted["input_tokens"], counted["output_tokens"], cached)
            if all(isinstance(count, int) and 0 <= count <= _MAX_TOKENS for count in counts):
                self._usage = ModelUsage(*counts)
        return text

    @property
    def usage(self) -> ModelUsage:
        """As the provider counts, else estimated."""
        if self._usage is not None:
            return self._usage
        prompt = sum(len(message.content.encode()) for message in self._call.messages)
        reply = sum(len(part.encode()) for part in self.parts)
        return ModelUsage(-(-prompt // _BYTES_PER_TOKEN), -(-reply // _BYTES_PER_TOKEN), estimated=True)

    def result(self) -> ModelResult:
        """The reply, now that it has ended."""
        text = "".join(self.parts)
        failure = of_finish(self.finish_reason, self.refused, text, self.usage, self.latency_s)
        if failure is not None:
            return failure
        return ModelReply(text, self._model, self.finish_reason or "", self.usage, self.latency_s)

    def failed(self, failure: ModelFailure) -> ModelFailure:
        """A failure, with what has been spent until it came."""
        spent = self.usage if any(self.parts) else failure.usage
        return replace(failure, usage=spent, latency_s=self.latency_s)


class DeploymentClient:
    """Calls one deployment; belongs to one event loop."""

    def __init__(
        self,
        endpoint: ModelEndpoint,
        credential: Callable[[], Awaitable[str]] | None,
        *,
        connections: int,
        idle_timeout_s: float,
        connect_timeout_s: float,
        lookup: Lookup,
    ) -> None:
        _silence()
        self._endpoint = endpoint
        self._idle_timeout_s = idle_timeout_s
        authorised = endpoint.key is not None or endpoint.kind == "azure_openai"
        self._http = http_client(
            connections=connections, connect_timeout_s=connect_timeout_s, authorised=authorised, lookup=lookup
        )
        self._chat = _chat(endpoint, credential, self._http)

    async def complete(self, call: ModelCall, traceparent: str | None) -> ModelResult:
        """One attempt, the whole reply at once."""
        reply = _Reply(call, self._endpoint.deployment.model)
        try:
            with tracing_context(enabled=False):
                async with asyncio.timeout(call.timeout_s):
                    reply.take(await self._chat.ainvoke(_messages(call), **self._arguments(call, traceparent)))
        except Exception as error:  # whatever a server makes the libraries raise, it is an outcome
            return reply.failed(_failure_of(error, call))
        return reply.result()

    async def stream(
        self, call: ModelCall, traceparent: str | None, hand_on: Callable[[ModelDelta | ModelResult], None]
    ) -> None:
        """One attempt, in pieces."""
        reply = _Reply(call, self._endpoint.deployment.model)
        try:
            with tracing_context(enabled=False):
                async with asyncio.timeout(call.timeout_s):
                    await self._read(call, traceparent, reply, hand_on)
        except Exception as error:  # see complete
            # A server that keeps the connection open after the end of its reply has replied all the same.
            if not (isinstance(error, TimeoutError) and reply.finish_reason):
                hand_on(reply.failed(_failure_of(error, call)))
                return
        if reply.finish_reason is None:
            hand_on(reply.failed(ModelFailure("model.unavailable", "the reply broke off", retryable=True)))
        else:
            hand_on(reply.result())

    async def _read(
        self, call: ModelCall, traceparent: str | None, reply: _Reply, hand_on: Callable[[ModelDelta], None]
    ) -> None:
        pieces = self._chat.astream(_messages(call), **self._arguments(call, traceparent))
        while True:
            async with asyncio.timeout(self._idle_timeout_s):
                piece: AIMessageChunk | None = await anext(pieces, None)
            if piece is None:
                return
            if text := reply.take(piece):
                hand_on(ModelDelta(text))

    def _arguments(self, call: ModelCall, traceparent: str | None) -> dict[str, Any]:
        limit = min(call.max_output_tokens, self._endpoint.deployment.max_output_tokens)
        # Servers of open-weight models know max_tokens; an unknown field they ignore, and the limit with it.
        body: dict[str, Any] = {"max_completion_tokens" if self._endpoint.reasoning else "max_tokens": limit}
        if call.schema is not None:
            schema = {"name": call.schema_name, "strict": True, "schema": call.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if not self._endpoint.reasoning:
            body |= {"temperature": call.temperature} | ({} if call.seed is None else {"seed": call.seed})
        headers = {} if traceparent is None else {"traceparent": traceparent}
        return {"extra_body": body, "extra_headers": headers}

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _messages(call: ModelCall) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in call.messages]


def _chat(
    endpoint: ModelEndpoint, credential: Callable[[], Awaitable[str]] | None, http: httpx2.AsyncClient
) -> BaseChatOpenAI:
    """Every argument that langchain would otherwise look for in the environment is given."""
    common: dict[str, Any] = {
        "client": object(),  # in the place of a blocking client, which would be built with the environment's proxies
        "http_async_client": http,
        "timeout": http.timeout,
        "max_retries": 0,
        "stream_usage": True,
        "stream_chunk_timeout": 0,
        "use_responses_api": False,
        "openai_proxy": None,
        "cache": False,
        "verbose": False,
    }
    if endpoint.kind == "openai_compatible":

        async def key() -> str:
            return endpoint.key or "none"

        return _Compatible(model=endpoint.deployment.model, base_url=endpoint.url, api_key=key, **common)
    azure: dict[str, Any] = {
        "azure_endpoint": endpoint.url,
        "azure_deployment": endpoint.azure_deployment,
        "api_version": endpoint.api_version,
        "openai_api_base": None,
        "azure_ad_token": None,
        **common,
    }
    if endpoint.key is not None:
        return _Azure(api_key=SecretStr(endpoint.key), **azure)

    async def token() -> str:
        if credential is None:
            raise LivoaError("auth.identity_unavailable", "there is no identity to use", status=503)
        return await credential()

    return _Azure(api_key=None, azure_ad_async_token_provider=token, **azure)


def _failure_of(error: Exception, call: ModelCall) -> ModelFailure:
    """What an exception of the libraries means. Its own text may hold the prompt, the reply or an address, so it ends here."""
    causes = _causes(error)
    if any(isinstance(cause, ReplyTooLargeError) for cause in causes):
        return ModelFailure("model.invalid_output", "the reply is larger than a reply may be")
    if any(isinstance(cause, ReplyEncodingError) for cause in causes):
        return ModelFailure("model.invalid_output", "the reply has a content encoding that was not asked for")
    refused = next((cause for cause in causes if isinstance(cause, EgressRefusedError)), None)
    if refused is not None:
        message = f"the address of the deployment must not be called: {refused.code}"
        return ModelFailure("model.not_configured", message, egress=refused.code)
    if any(isinstance(cause, LivoaError) for cause in causes):
        return ModelFailure("model.unauthorised", "no token of the app's own identity", retryable=True)
    match error:
        case TimeoutError():
            return ModelFailure("model.timeout", f"no whole reply within {call.timeout_s:g} s", retryable=True)
        case openai.APIStatusError():
            failure = of_status(error.status_code, error.body, error.response.headers)
            return replace(failure, egress="egress.redirect") if 300 <= error.status_code < 400 else failure
        case openai.APITimeoutError():
            return ModelFailure("model.unavailable", "the model's server cannot be reached in time", retryable=True)
        case openai.APIConnectionError():
            reason = type(causes[-1]).__name__
            return ModelFailure("model.unavailable", f"no connection to the model's server: {reason}", retryable=True)
        case openai.APIError() if error.body is not None:
            return of_stream_error(error.body)
        case _:
            kind = type(error).__name__
            _LOG.warning("the reply of the model deployment %s cannot be read: %s", call.deployment, kind)
            return ModelFailure("model.invalid_output", f"the reply cannot be read: {kind}", retryable=True)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(found) < 10:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found
