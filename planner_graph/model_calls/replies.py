"""Reading a reply: strictly as JSON, then against the schema that was asked for. Findings never repeat what was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from engine.domain.base import JsonObject, JsonValue
from engine.domain.errors import LivoaError, Violation
from engine.domain.strict_json import REPLACEMENT, parse, pointer_of

MAX_REPLY_BYTES = 1024 * 1024
MAX_VIOLATIONS = 20
_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_A_WORD = re.compile(r"[^A-Za-z0-9._:/-]")
_MAX_WORD_CHARS = 100


def clean_text(text: str) -> str:
    """Text that can be encoded: half a surrogate pair becomes U+FFFD."""
    return _SURROGATE.sub(REPLACEMENT, text)


def word(text: str) -> str:
    """A provider's name for something (a model, a finish reason), fit for records: no other characters, no more than 100."""
    return _NOT_A_WORD.sub("_", text[:_MAX_WORD_CHARS])


def read_reply(text: str, schema: JsonObject) -> tuple[JsonValue, tuple[Violation, ...]]:
    """The JSON value of ``text`` and nothing against it; or None and what is wrong, at most 20 findings.

    Codes are those of ``strict_json`` and ``schema.{keyword}`` with the pointer into the reply.
    """
    try:
        value = parse(text.encode(), max_bytes=MAX_REPLY_BYTES)
    except LivoaError as err:
        first = Violation(code=err.code, pointer=err.pointer or "", message=err.message)
        return None, err.violations[:MAX_VIOLATIONS] or (first,)
    found = tuple(islice(_against(schema, value), MAX_VIOLATIONS))
    return (None, found) if found else (value, ())


def _against(schema: JsonObject, value: JsonValue) -> Iterator[Violation]:
    # Loaded by the first reply: importing it takes a tenth of a second, which the start of the app should not pay.
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(value):
        place: Any = None
        for token in error.absolute_path:
            place = (place, token)
        keyword = str(error.validator)
        # The library's own message quotes the value.
        yield Violation(
            code=f"schema.{keyword}", pointer=pointer_of(place), message=f"this breaks the schema's rule {keyword}"
        )
