"""What goes wrong with a model call, in our words. Pure: status, error document and headers in, a ``ModelFailure`` out.

The provider's text is read here to tell one failure from another and goes no further.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.ports.models import FailureCode, ModelFailure, ModelUsage

MAX_RETRY_AFTER_S = 3_600.0
_CONTEXT_WORDS = ("context_length_exceeded", "maximum context length", "context window", "prompt is too long")
_FILTER_WORDS = ("content_filter", "ResponsibleAIPolicyViolation", "content_policy_violation")
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,6})?")


def of_status(status: int, body: object, headers: Mapping[str, str]) -> ModelFailure:
    """The meaning of an error status. ``body`` is the error document as far as there is one."""
    after_s = retry_after_s(headers)
    match status:
        case 400 | 413 | 422 if _says(body, _FILTER_WORDS):
            return filtered()
        case 400 | 413 | 422 if status == 413 or _says(body, _CONTEXT_WORDS):
            return ModelFailure("model.context_too_long", "the prompt is longer than the model's context")
        case 401 | 403:
            return ModelFailure(
                "model.unauthorised", f"the model's server answered {status}: the credential is not accepted"
            )
        case 404:
            return ModelFailure("model.not_configured", "the model's server knows no such deployment or model")
        case 408 | 504:
            return ModelFailure("model.timeout", f"the model's server answered {status}", True, after_s)
        case 429:
            # Used-up credit does not come back by waiting.
            lasting = _says(body, ("insufficient_quota",))
            return ModelFailure("model.rate_limited", "the model's server asks for a pause", not lasting, after_s)
        case 409 | 425:
            return ModelFailure("model.unavailable", f"the model's server answered {status}", True, after_s)
        case _ if status >= 500:
            return ModelFailure("model.unavailable", f"the model's server answered {status}", True, after_s)
        case _:
            return ModelFailure("model.unavailable", f"the model's server refuses this request with {status}")


def of_stream_error(body: object) -> ModelFailure:
    """The meaning of an error that came inside a stream, after a 200."""
    if _says(body, _FILTER_WORDS):
        return filtered()
    if _says(body, _CONTEXT_WORDS):
        return ModelFailure("model.context_too_long", "the prompt is longer than the model's context")
    if _says(body, ("rate_limit", "too_many_requests")):
        return ModelFailure("model.rate_limited", "the model's server asks for a pause", True)
    return ModelFailure("model.unavailable", "the model's server reported an error in the middle of its reply", True)


def filtered(usage: ModelUsage | None = None, latency_s: float = 0.0) -> ModelFailure:
    """The content filter stopped the prompt or the reply."""
    return ModelFailure(
        "model.content_filtered", "the provider's content filter stopped it", False, None, usage, latency_s
    )


def of_finish(
    finish_reason: str | None, refused: bool, text: str, usage: ModelUsage, latency_s: float
) -> ModelFailure | None:
    """What is wrong with a reply that came, or None: then it is whole."""
    if finish_reason == "content_filter":
        return filtered(usage, latency_s)
    if refused:
        return _spent("model.refused", "the model refused", usage, latency_s)
    if finish_reason == "length":
        return _spent("model.truncated", "the reply reached the token limit before its end", usage, latency_s)
    if finish_reason != "stop":
        return _spent("model.invalid_output", "the reply does not say how it ended", usage, latency_s, retryable=True)
    if not text.strip():
        return _spent("model.invalid_output", "the reply is empty", usage, latency_s, retryable=True)
    return None


def _spent(
    code: FailureCode, message: str, usage: ModelUsage, latency_s: float, *, retryable: bool = False
) -> ModelFailure:
    return ModelFailure(code, message, retryable, None, usage, latency_s)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The pause asked for, at most an hour: ``retry-after-ms``, else ``Retry-After`` in seconds.

    The date form is ignored: it needs two clocks to agree.
    """
    for name, divisor in (("retry-after-ms", 1_000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if _NUMBER.fullmatch(value):
            return min(float(value) / divisor, MAX_RETRY_AFTER_S)
    return None


def _says(body: object, words: tuple[str, ...]) -> bool:
    """Whether code, type or message of an error document hold one of these words."""
    document: Any = body if isinstance(body, Mapping) else {}
    inner = document.get("error")
    document = inner if isinstance(inner, Mapping) else document
    innermost = document.get("innererror")
    values = [document.get(name) for name in ("code", "type", "message")]
    values.append(innermost.get("code") if isinstance(innermost, Mapping) else None)
    text = " ".join(value for value in values if isinstance(value, str))
    return any(word in text for word in words)
