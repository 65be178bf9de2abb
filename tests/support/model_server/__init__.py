"""A scripted model provider on loopback: the OpenAI wire format, Azure's paths, and every way a provider fails."""

from tests.support.model_server.answers import (
    Answer,
    ModelRequest,
    Script,
    always,
    as_json,
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
from tests.support.model_server.server import ModelServer, Recorded
from tests.support.model_server.strict_subset import faults

__all__ = [
    "Answer",
    "ModelRequest",
    "ModelServer",
    "Recorded",
    "Script",
    "always",
    "as_json",
    "context_too_long",
    "cut",
    "failure",
    "faults",
    "filtered_prompt",
    "filtered_reply",
    "huge",
    "rate_limited",
    "raw",
    "refused",
    "slow",
    "text",
    "truncated",
]
