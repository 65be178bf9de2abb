"""Whether a literal of a plan is the user's own word: then a model did not choose it.

Grounded is what stands in the intent or in a goal, verbatim and as whole words; the value of a number, or a day of a period, that
is named there (``policy.flow.wording``); a value of the request's ``context.values``; an entry of a directory of the tenant.

Conservative on purpose. The user's text is compared in its NFKC form without invisible characters, and case does not matter. A
literal that is not in that form itself is not grounded: full-width ``evil.com`` is another text than ``evil.com``, and ``faß.de``
another host than ``fass.de`` (which is why case is lowered and not folded). Part of a word is not a word: ``bob@x.com`` does
not stand in ``notbob@x.com`` nor in ``bob@x.com.evil.org``. Booleans and null are nobody's words.

Not decided here: whether the word has the role that the plan gives it. ``pay 100 to account 200`` grounds 200 as an amount too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from engine.domain.base import JsonValue
from engine.domain.run import RunRequest
from engine.domain.tenant import TenantConfig
from policy.flow.wording import days_named, numbers_named

USER_WORD = 3
TENANT_WORD = 2
_MAX_VALUES = 20_000
"""Scalars of ``context.values`` that ground anything; the rest of a larger context does not."""
_OPENING = "\"'`([{<«*_\u201c\u2018\u201e"
_CLOSING = "\"'`)]}>».,;:!?*_…\u201d\u2019"
_CHUNK = re.compile(r"(?:[^\s,;]|(?<=\d)[,;](?=\d))+")
"""A run of text without white space; a comma or semicolon ends it too, except between digits."""


class Grounding:
    """Answers for one request of one tenant. Immutable once built; the user's text is read when it is first needed."""

    def __init__(self, request: RunRequest | None, tenant: TenantConfig) -> None:
        self._request = request
        self._directories = frozenset(map(_lowered, _entries(tenant.directories)))
        self._texts: tuple[_Words, ...] | None = None
        self._values: frozenset[Any] | None = None
        self._numbers: frozenset[Decimal] = frozenset()
        self._days: frozenset[str] = frozenset()
        self._known: dict[tuple[type, Any], int | None] = {}

    def integrity_of(self, literal: JsonValue) -> int | None:
        """3 for the user's own word, 2 for a value of the context or the tenant, None for neither (or no scalar)."""
        if literal is None or isinstance(literal, bool | dict | list):
            return None
        key = (type(literal), literal)
        if key not in self._known:
            self._known[key] = self._decide(literal)
        return self._known[key]

    def _decide(self, literal: str | int | float) -> int | None:
        self._read_request()
        if isinstance(literal, str):
            if not literal.strip() or not _is_plain(literal):
                return None
            lowered = literal.lower()
            if lowered in self._days or any(words.hold(lowered) for words in self._texts or ()):
                return USER_WORD
            trusted = ("s", literal) in (self._values or ()) or lowered in self._directories
        else:
            number = Decimal(str(literal))
            if number in self._numbers:
                return USER_WORD
            trusted = ("n", number) in (self._values or ())
        return TENANT_WORD if trusted else None

    def _read_request(self) -> None:
        if self._texts is not None:
            return
        request = self._request
        if request is None:
            self._texts, self._values = (), frozenset()
            return
        self._texts = tuple(_Words(text) for text in (request.intent, *request.goals))
        self._numbers = frozenset(number for words in self._texts for number in numbers_named(words.text))
        self._days = frozenset(day for words in self._texts for day in days_named(words.text))
        self._values = frozenset(_scalars(request.context.values))


class _Words:
    """One text of the user, in its normal form, and where its words begin and end."""

    def __init__(self, text: str) -> None:
        normal = unicodedata.normalize("NFKC", text)
        visible = "".join(char for char in normal if unicodedata.category(char) != "Cf")
        self.text = " ".join(visible.lower().split())
        self._starts: set[int] = set()
        self._ends: set[int] = set()
        for match in _CHUNK.finditer(self.text):
            chunk = match[0]
            start = match.start() + len(chunk) - len(chunk.lstrip(_OPENING))
            end = match.end() - len(chunk) + len(chunk.rstrip(_CLOSING))
            # Both the bare word and the word with its quotes, brackets or full stop are what the user wrote.
            self._starts |= {match.start(), start}
            self._ends |= {match.end(), end}

    def hold(self, literal: str) -> bool:
        """True when the literal stands here as whole words."""
        wanted = " ".join(literal.split())
        if wanted not in self.text:
            return False
        # From word to word: a text of one letter repeated has as many places as letters, and few words.
        size = len(wanted)
        return any(at + size in self._ends and self.text.startswith(wanted, at) for at in self._starts)


def _is_plain(text: str) -> bool:
    """In NFKC form and without characters one cannot see (white space at the ends and line breaks count as such)."""
    if text.isascii():
        return text.isprintable() and text == text.strip()
    normal = unicodedata.is_normalized("NFKC", text)
    return normal and text.isprintable() and text == text.strip()


def _lowered(text: str) -> str:
    return text.lower()


def _entries(directories: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    for entries in directories.values():
        yield from entries


def _scalars(value: JsonValue) -> Iterable[tuple[str, Any]]:
    stack: list[Any] = [value]
    left = _MAX_VALUES
    while stack and left:
        node = stack.pop()
        left -= 1
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list | tuple):
            stack.extend(node)
        elif isinstance(node, str):
            yield "s", node
        elif isinstance(node, int | float) and not isinstance(node, bool):
            yield "n", Decimal(str(node))
