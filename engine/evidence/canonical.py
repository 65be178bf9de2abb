"""SHA-256 over RFC 8785 canonical JSON (``engine.domain.canonical``), so that a commitment can be checked by anybody.

Every refusal is a ``LivoaError`` with a stable code and the JSON Pointer of the offence. This is not a reader of foreign JSON and
not a schema check.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

from engine.domain.base import JsonValue
from engine.domain.canonical import canonical_form
from engine.domain.errors import LivoaError
from engine.domain.strict_json import MAX_INTEGER, escape_token

MAX_DEPTH = 256
"""Deepest nesting that is hashed; plans and payloads are confined to far less when they are read."""


def canonical_bytes(value: JsonValue) -> bytes:
    """The RFC 8785 form of a JSON value, UTF-8.

    Accepts None, bool, int, float, str, lists, tuples and dicts with string keys. Raises ``LivoaError`` (status 422) with code
    ``canonical.integer_range``, ``canonical.not_a_number``, ``canonical.text_invalid``, ``canonical.key_invalid``,
    ``canonical.unsupported`` or ``canonical.too_deep``, and the pointer of the first offence.
    """
    try:
        return canonical_form(value)
    except (ValueError, RecursionError) as err:
        raise _refusal(value) from err


def canonical_sha256(value: JsonValue) -> str:
    """SHA-256 of the canonical form, as 64 lower-case hex digits: the commitment to a value. Errors as ``canonical_bytes``."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


def _refusal(value: JsonValue) -> LivoaError:
    for code, pointer, message in _offences(value, "", 0):
        return LivoaError(code, message, status=422, pointer=pointer)
    return LivoaError("canonical.unsupported", "the value has no canonical JSON form", status=422, pointer="")


def _offences(value: JsonValue, pointer: str, depth: int) -> Iterator[tuple[str, str, str]]:
    """Walks only after a refusal: the happy path pays nothing for pointers."""
    if depth > MAX_DEPTH:
        yield "canonical.too_deep", pointer, f"values nest deeper than {MAX_DEPTH} levels"
    elif isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                yield "canonical.key_invalid", pointer, f"an object key is {type(key).__name__}, not a string"
            elif not _encodes(key):
                yield "canonical.text_invalid", pointer, "an object key holds a lone surrogate"
            else:
                yield from _offences(member, f"{pointer}/{escape_token(key)}", depth + 1)
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _offences(member, f"{pointer}/{index}", depth + 1)
    else:
        yield from _scalar_offences(value, pointer)


def _scalar_offences(value: JsonValue, pointer: str) -> Iterator[tuple[str, str, str]]:
    match value:
        case None | bool():
            return
        case int() if abs(value) > MAX_INTEGER:
            yield "canonical.integer_range", pointer, "an integer is beyond ±(2^53 - 1); write it as a string"
        case float() if not math.isfinite(value):
            yield "canonical.not_a_number", pointer, "NaN and the infinities are not JSON numbers"
        case str() if not _encodes(value):
            yield "canonical.text_invalid", pointer, "a text holds a lone surrogate"
        case int() | float() | str():
            return
        case _:
            yield "canonical.unsupported", pointer, f"{type(value).__name__} is not a JSON type"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
