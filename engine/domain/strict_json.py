"""Reading JSON that somebody else wrote: strict, bounded, and with the place of the offence.

The standard library's reader lets several things through that must not get any further: NaN and Infinity, duplicate keys
(the last one wins silently), numbers that overflow to infinity, lone surrogates, nesting that overflows the stack. Here each is
refused with a stable code. What passes has exactly one RFC 8785 form, so it can be hashed: integers are therefore confined to
±(2^53 - 1), the range in which a JSON number means the same integer to every reader.

This is not a schema check and not a writer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from engine.domain.base import JsonValue
from engine.domain.errors import LivoaError, Violation

MAX_INTEGER = 2**53 - 1
"""Largest magnitude of an integer that is kept (RFC 8785 section 3.2.2.3, I-JSON)."""
DEFAULT_MAX_DEPTH = 64
MAX_SUPPORTED_DEPTH = 256
"""The decoder recurses once per level; this stays far below any recursion limit."""
MAX_REPORTED = 50
"""How many offences one refusal lists."""
MAX_POINTER_CHARS = 1_000
REPLACEMENT = "\ufffd"

_BOM = b"\xef\xbb\xbf"
# The closing quote is optional and the repetition possessive, so an unterminated string costs one pass and no backtracking.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_INTEGER_CHARS = len(str(-MAX_INTEGER))


Place = tuple[Any, str | int] | None
"""Where a value stands, as a chain (parent place, token) towards the root, None. Keys can be as long as a document, so
pointers are spelled out (``pointer_of``) only for what is reported."""


class _Offence:
    """Stands in the parsed tree where a value was refused; found again afterwards to learn its pointer."""

    __slots__ = ("code", "message")

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message


class _DuplicateKeys:
    """Stands for an object with repeated keys; keeps every member, because offences may hide in the shadowed ones."""

    __slots__ = ("members",)

    def __init__(self, members: list[tuple[str, Any]]) -> None:
        self.members = members


def escape_token(token: str) -> str:
    """One reference token of a JSON Pointer (RFC 6901 section 3)."""
    return token.replace("~", "~0").replace("/", "~1")


def pointer_of(place: Place) -> str:
    """The JSON Pointer of a place, cut to its nearest ancestor that fits: keys can be as long as the document.

    Lone surrogates become U+FFFD, because an error must itself be encodable.
    """
    tokens: list[str | int] = []
    while place is not None:
        place, token = place
        tokens.append(token)
    pointer = ""
    for token in reversed(tokens):
        longer = f"{pointer}/{escape_token(_SURROGATE.sub(REPLACEMENT, str(token)))}"
        if len(longer) > MAX_POINTER_CHARS:
            break
        pointer = longer
    return pointer


def parse(data: bytes, *, max_bytes: int, max_depth: int = DEFAULT_MAX_DEPTH) -> JsonValue:
    """The JSON value in ``data``: UTF-8, one value, at most ``max_bytes`` long and ``max_depth`` arrays or objects deep.

    Raises ``LivoaError`` with status 400 (413 for ``json.too_large``) and one of the codes ``json.too_large``,
    ``json.encoding``, ``json.bom``, ``json.too_deep``, ``json.syntax``, ``json.trailing_data``, ``json.not_a_number``,
    ``json.integer_range``, ``json.number_range``, ``json.duplicate_key``, ``json.lone_surrogate``. The last five carry the JSON
    Pointer and list up to 50 offences in ``violations``; the others name line and column. No message repeats the input.
    ``ValueError`` when ``max_depth`` is not within 1..256. Time and memory are linear in the size of the input.
    """
    if not 1 <= max_depth <= MAX_SUPPORTED_DEPTH:
        raise ValueError(f"max_depth must lie within 1..{MAX_SUPPORTED_DEPTH}")
    if len(data) > max_bytes:
        raise LivoaError("json.too_large", f"The JSON text is larger than {max_bytes} bytes.", status=413)
    if data.startswith(_BOM):
        raise LivoaError("json.bom", "The JSON text starts with a byte order mark; send UTF-8 without one.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LivoaError("json.encoding", f"The text is not valid UTF-8 at byte {error.start}.") from None
    _refuse_deep(data, max_depth)
    value, suspect = _decode(text)
    if suspect or _SURROGATE_ESCAPE.search(data):
        _refuse_offences(value)
    return value


def _refuse_deep(data: bytes, max_depth: int) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(data):
        first = data[match.start()]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise LivoaError(
                    "json.too_deep", f"The JSON text is more than {max_depth} levels deep at byte {match.start()}."
                )
        elif first in b"]}":
            depth -= 1


def _decode(text: str) -> tuple[JsonValue, bool]:
    """The value, with stand-ins where something was refused, and whether there are any."""
    suspect = False

    def refuse(code: str, message: str) -> _Offence:
        nonlocal suspect
        suspect = True
        return _Offence(code, message)

    def integer(digits: str) -> int | _Offence:
        if len(digits) <= _MAX_INTEGER_CHARS and abs(value := int(digits)) <= MAX_INTEGER:
            return value
        return refuse("json.integer_range", "This integer lies outside ±(2^53 - 1); send it as a string.")

    def fraction(digits: str) -> float | _Offence:
        value = float(digits)
        return value if math.isfinite(value) else refuse("json.number_range", "This number is too large for a double.")

    def constant(_name: str) -> _Offence:
        return refuse("json.not_a_number", "NaN and Infinity are not JSON.")

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _DuplicateKeys:
        nonlocal suspect
        result = dict(pairs)
        if len(result) == len(pairs):
            return result
        suspect = True
        return _DuplicateKeys(pairs)

    decoder = json.JSONDecoder(
        object_pairs_hook=members, parse_int=integer, parse_float=fraction, parse_constant=constant
    )
    try:
        return decoder.decode(text), suspect
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        if error.msg == "Extra data":
            raise LivoaError("json.trailing_data", f"There is something after the JSON value at {place}.") from None
        raise LivoaError("json.syntax", f"This is not JSON: {error.msg} at {place}.") from None


def _refuse_offences(value: JsonValue) -> None:
    found = list(islice(_offences(value), MAX_REPORTED))
    if found:
        first = found[0]
        raise LivoaError(first.code, first.message, pointer=first.pointer, violations=found)


def _offences(value: JsonValue) -> Iterator[Violation]:
    """Every refused place in document order."""
    stack: list[tuple[Place, Any]] = [(None, value)]
    while stack:
        place, node = stack.pop()
        if isinstance(node, _Offence):
            yield Violation(code=node.code, pointer=pointer_of(place), message=node.message)
        elif isinstance(node, str):
            if _SURROGATE.search(node):
                yield Violation(
                    code="json.lone_surrogate",
                    pointer=pointer_of(place),
                    message="A string holds half a surrogate pair.",
                )
        elif isinstance(node, list):
            stack.extend(((place, index), node[index]) for index in range(len(node) - 1, -1, -1))
        elif isinstance(node, dict | _DuplicateKeys):
            members = node.members if isinstance(node, _DuplicateKeys) else list(node.items())
            yield from _bad_keys(place, members)
            stack.extend(((place, key), member) for key, member in reversed(members))


def _bad_keys(place: Place, members: list[tuple[str, Any]]) -> Iterator[Violation]:
    times: dict[str, int] = {}
    for key, _ in members:
        times[key] = times.get(key, 0) + 1
        if times[key] == 1 and _SURROGATE.search(key):
            message = "A member name holds half a surrogate pair."
            yield Violation(code="json.lone_surrogate", pointer=pointer_of((place, key)), message=message)
        elif times[key] == 2:
            message = "An object has this member more than once."
            yield Violation(code="json.duplicate_key", pointer=pointer_of((place, key)), message=message)
