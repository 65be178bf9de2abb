"""A stream of text in pieces that may be shown: whole sentences or lines, so that no link or figure is judged by halves. Pure.

A bracket after a full stop names the source of the sentence before it, so no cut goes there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_HELD_CHARS = 2_000
"""A piece this long is let go at its last blank, finished or not: no link holds a blank, so none is cut."""
_END = re.compile(r"\n|(?<=[.!?])[ \t]+(?=[^\s\d\[])")
_OPENERS, _CLOSERS = "[(<", "])>"


class Sentences:
    """Takes text as it comes and gives it back cut where a sentence or line ends outside of brackets."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> Iterator[str]:
        """Take more text; yields the pieces that are complete now, whitespace included: joined they are what was fed."""
        self._held += text
        while (end := self._next_end()) is not None:
            piece, self._held = self._held[:end], self._held[end:]
            yield piece

    def rest(self) -> str:
        """What is left at the end of the text."""
        piece, self._held = self._held, ""
        return piece

    def _next_end(self) -> int | None:
        for match in _END.finditer(self._held):
            # A blank line ends every bracket.
            if _balanced(self._held[: match.start()]) or self._held.startswith("\n", match.end()):
                return match.end()
        if len(self._held) <= MAX_HELD_CHARS:
            return None
        blank = max(self._held.rfind(mark, 0, MAX_HELD_CHARS) for mark in " \t\n")
        return blank + 1 if blank > 0 else MAX_HELD_CHARS


def _balanced(text: str) -> bool:
    return all(text.count(opener) <= text.count(closer) for opener, closer in zip(_OPENERS, _CLOSERS, strict=True))
