"""JSON Pointer (RFC 6901), exactly: ``~0`` and ``~1`` escapes, array indexes without leading zeros, ``-`` leads nowhere."""

from __future__ import annotations

import re

from engine.domain.base import JsonValue

_BAD_ESCAPE = re.compile(r"~(?![01])")
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


class Nowhere:
    """The type of ``NOWHERE``: a pointer that leads to no value (``None`` is a value)."""

    __slots__ = ()


NOWHERE = Nowhere()


def parse_pointer(text: str) -> tuple[str, ...] | None:
    """The reference tokens of a pointer, unescaped; None when the text is not a JSON Pointer."""
    if not text:
        return ()
    if not text.startswith("/") or _BAD_ESCAPE.search(text):
        return None
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))


def array_index(token: str) -> int | None:
    """The array index a token spells, or None."""
    return int(token) if _INDEX.fullmatch(token) else None


def resolve(value: JsonValue, tokens: tuple[str, ...]) -> JsonValue | Nowhere:
    """What the pointer leads to in ``value``, or ``NOWHERE``."""
    for token in tokens:
        if isinstance(value, dict):
            if token not in value:
                return NOWHERE
            value = value[token]
        elif isinstance(value, list):
            index = array_index(token)
            if index is None or index >= len(value):
                return NOWHERE
            value = value[index]
        else:
            return NOWHERE
    return value
