"""RFC 8785 canonical JSON and SHA-256 over it: one spelling per value, so that a commitment can be checked by anybody.

Decisions, because JSON leaves them open:

- Integers beyond ±(2^53 - 1) are an error. They would be silently rounded by every reader that keeps numbers as IEEE doubles, so
  two different values could share a hash. Larger figures travel as strings.
- Floats are written as ECMAScript does, the shortest text that reads back as the same double. ``1.0`` and ``1`` are the same JSON
  number and have the same form; so do ``-0.0`` and ``0``. NaN and the infinities are an error. A whole double from 2^53 up to
  1e21 is written without a point, as the RFC says; who hashes a form again must read such a number as a double.
- Lone surrogates, keys that are no strings and types that JSON does not have are errors.

Every refusal is a ``LivoaError`` with a stable code and the JSON Pointer of the offence. This is not a reader of foreign JSON and
not a schema check.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator

import rfc8785

from engine.domain.base import JsonValue
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
        if _plain(value):
            return _ENCODE(value).encode()
        return rfc8785.dumps(value)
    except (ValueError, RecursionError) as err:
        raise _refusal(value) from err


def canonical_sha256(value: JsonValue) -> str:
    """SHA-256 of the canonical form, as 64 lower-case hex digits: the commitment to a value. Errors as ``canonical_bytes``."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


_ENCODE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False).encode
_LAST_BEFORE_SURROGATES = "\ud7ff"


def _plain(value: JsonValue) -> bool:
    """True when the standard library's encoder writes the RFC 8785 form too, which it does in a fraction of the time.

    It differs in three things: how it writes numbers that are no integers, where it sorts keys beyond U+D7FF (by code point, the
    RFC by UTF-16 unit), and what it lets through. Whatever holds one of them goes the long way.
    """
    if value is None or value is True or value is False:
        return True
    kind = type(value)
    if kind is str:
        return True
    if kind is int:
        return bool(-MAX_INTEGER <= value <= MAX_INTEGER)
    if kind is dict:
        return all(map(_plain_key, value)) and all(map(_plain, value.values()))
    return kind in (list, tuple) and all(map(_plain, value))


def _plain_key(key: JsonValue) -> bool:
    return type(key) is str and (key.isascii() or max(key) <= _LAST_BEFORE_SURROGATES)


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
