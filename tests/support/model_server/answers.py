"""What the scripted server can be told to do with one request: answers as values, from a plain reply to a cut connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request as it came over the wire. ``headers`` with lower-case names, ``number`` from 1 for the server's life."""

    number: int
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    attempt: int = 1
    """Counts the requests of the same ``work`` and ``model``, from 1."""

    @property
    def work(self) -> str:
        """The name of the schema that structured output was asked in, ``text`` where none was."""
        schema = (self.body.get("response_format") or {}).get("json_schema") or {}
        return str(schema.get("name", "text"))

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema of the structured output."""
        schema = (self.body.get("response_format") or {}).get("json_schema") or {}
        return schema.get("schema")

    @property
    def model(self) -> str:
        """The model asked for; on Azure's paths the deployment."""
        parts = self.path.split("/")
        return parts[parts.index("deployments") + 1] if "deployments" in parts else str(self.body.get("model"))

    @property
    def streamed(self) -> bool:
        """Whether server-sent events were asked for."""
        return self.body.get("stream") is True

    @property
    def prompt(self) -> str:
        """All messages as one text."""
        return "\n".join(str(message.get("content")) for message in self.body.get("messages", ()))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Made by the functions below; ``text`` and the fields beside it make a completion, ``body`` is sent as it is."""

    text: str = ""
    finish_reason: str | None = "stop"
    refusal: str | None = None
    usage: Mapping[str, Any] | None = None
    """Token counts; counted as a quarter of the characters when None, left out when empty."""
    choices: int = 1
    status: int = 200
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    filler_bytes: int = 0
    before_headers_s: float = 0.0
    between_pieces_s: float = 0.0
    cut_after_pieces: int | None = None
    error_after_pieces: int | None = None
    done: bool = True


Script: TypeAlias = Callable[[ModelRequest], Answer]


def text(value: str, **fields: Any) -> Answer:
    """A plain reply."""
    return Answer(text=value, **fields)


def as_json(value: Any, **fields: Any) -> Answer:
    """A structured reply."""
    return Answer(text=json.dumps(value, ensure_ascii=False), **fields)


def truncated(value: str) -> Answer:
    """A reply that reached the token limit."""
    return Answer(text=value, finish_reason="length")


def refused(words: str = "I'm sorry, I can't assist with that request.") -> Answer:
    """A refusal, in the field of its own that structured output has for it."""
    return Answer(refusal=words)


def filtered_reply(value: str = "The first words of") -> Answer:
    """A reply that the content filter stopped."""
    return Answer(text=value, finish_reason="content_filter")


def failure(status: int, code: str | None = None, message: str = "provider words", **fields: Any) -> Answer:
    """An error document. ``headers`` may carry Retry-After."""
    error = {"message": message, "type": "invalid_request_error" if status < 500 else "server_error", "code": code}
    return Answer(status=status, error={**error, "param": None}, **fields)


def filtered_prompt() -> Answer:
    """400 of Azure's content filter."""
    return failure(400, "content_filter", "The response was filtered due to the prompt triggering the policy.")


def context_too_long() -> Answer:
    """400 of a prompt beyond the model's window."""
    message = "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 tokens."
    return failure(400, "context_length_exceeded", message)


def rate_limited(retry_after_s: float | None = None, retry_after_ms: int | None = None) -> Answer:
    """429, with the pause it asks for."""
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    headers |= {} if retry_after_ms is None else {"retry-after-ms": str(retry_after_ms)}
    return failure(429, "rate_limit_exceeded", "Rate limit reached.", headers=headers)


def raw(body: bytes, *, status: int = 200, content_type: str = "application/json") -> Answer:
    """Exactly these bytes."""
    return Answer(status=status, body=body, headers={"Content-Type": content_type})


def huge(size_bytes: int) -> Answer:
    """A reply whose text has this many bytes."""
    return Answer(filler_bytes=size_bytes)


def slow(answer: Answer, *, before_headers_s: float = 0.0, between_pieces_s: float = 0.0) -> Answer:
    """The same, but late or dripping: a stream by its events, another body in pieces of a few bytes."""
    return replace(answer, before_headers_s=before_headers_s, between_pieces_s=between_pieces_s)


def cut(answer: Answer, after_pieces: int) -> Answer:
    """The same, with the connection torn down after so many pieces."""
    return replace(answer, cut_after_pieces=after_pieces)


def always(answer: Answer) -> Script:
    """The same answer to every request."""
    return lambda request: answer
