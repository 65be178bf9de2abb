"""The provider's wire format: an ``Answer`` as the bytes of a chat completion, whole or as server-sent events. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.model_server.answers import Answer, ModelRequest

_FILLER = 64 * 1024
_DRIP_BYTES = 16


def usage_of(request: ModelRequest, answer: Answer) -> dict[str, Any] | None:
    """Token counts as the provider would state them."""
    if answer.usage is not None:
        return dict(answer.usage) or None
    prompt, completion = max(1, len(request.prompt) // 4), max(1, len(answer.text) // 4)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def pieces(request: ModelRequest, answer: Answer) -> Iterator[bytes]:
    """The body, in the pieces it is sent in."""
    if answer.body is not None or (answer.error is not None and answer.error_after_pieces is None):
        yield from _split(answer, answer.body if answer.body is not None else _json({"error": answer.error}))
    elif request.streamed:
        yield from _events(request, answer)
    elif answer.filler_bytes:
        yield from _filled(request, answer)
    else:
        yield from _split(answer, _json(_completion(request, answer, answer.text)))


def _split(answer: Answer, body: bytes) -> Iterator[bytes]:
    if not answer.between_pieces_s and answer.cut_after_pieces is None:
        yield body
        return
    for start in range(0, len(body), _DRIP_BYTES):
        yield body[start : start + _DRIP_BYTES]


def _filled(request: ModelRequest, answer: Answer) -> Iterator[bytes]:
    before, after = _json(_completion(request, answer, "\0")).split(b"\\u0000")
    yield before
    for _ in range(0, answer.filler_bytes, _FILLER):
        yield b"x" * _FILLER
    yield after


def _completion(request: ModelRequest, answer: Answer, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": None if answer.refusal else text, "refusal": answer.refusal}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}
    usage = usage_of(request, answer)
    return {
        **_envelope(request, "chat.completion"),
        "choices": [choice] * answer.choices,
        **({"usage": usage} if usage is not None else {}),
    }


def _events(request: ModelRequest, answer: Answer) -> Iterator[bytes]:
    if "deployments" in request.path:  # Azure says first what its filter thinks of the prompt
        yield _event({**_envelope(request, "chat.completion.chunk"), "choices": [], "prompt_filter_results": []})
    if answer.choices == 0:
        yield _event({**_envelope(request, "chat.completion.chunk"), "choices": []})
        yield b"data: [DONE]\n\n"
        return
    for number, delta in enumerate(_deltas(answer)):
        if number == answer.error_after_pieces:
            yield _event({"error": answer.error})
            return
        yield _chunk(request, delta, None)
    if answer.finish_reason is not None:
        yield _chunk(request, {}, answer.finish_reason)
    usage = usage_of(request, answer)
    if usage is not None and (request.body.get("stream_options") or {}).get("include_usage"):
        yield _event({**_envelope(request, "chat.completion.chunk"), "choices": [], "usage": usage})
    if answer.done:
        yield b"data: [DONE]\n\n"


def _deltas(answer: Answer) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "", "refusal": None}
    if answer.refusal is not None:
        yield from ({"refusal": word} for word in _words(answer.refusal))
    yield from ({"content": word} for word in _words(answer.text))
    yield from ({"content": "x" * _FILLER} for _ in range(0, answer.filler_bytes, _FILLER))


def _words(text: str) -> list[str]:
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + ([words[-1]] if words[-1] else [])


def _chunk(request: ModelRequest, delta: Mapping[str, Any], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return _event({**_envelope(request, "chat.completion.chunk"), "choices": [choice]})


def _envelope(request: ModelRequest, kind: str) -> dict[str, Any]:
    identity = f"chatcmpl-{request.number:08d}"
    return {
        "id": identity,
        "object": kind,
        "created": 1_795_000_000,
        "model": request.model,
        "system_fingerprint": "fp_0",
    }


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + _json(document) + b"\n\n"


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
