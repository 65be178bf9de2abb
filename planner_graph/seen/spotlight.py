"""Spotlighting: text that somebody else wrote is shown to a model as data that cannot be taken for the prompt.

Every blank becomes a mark, so the text looks unlike an instruction all the way through, and it stands between delimiters that
hold a hash of it. The hash makes the delimiter known only once the text is written: a text that contains its own delimiter
would be a fixed point of SHA-256. Nothing here is random, so the same text gives the same prompt, whose hash is a key.

This lowers the odds that a model follows such text. It is no protection on its own: what counts is that the plan is checked,
labelled by what its writer saw, and decided by policy.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MARK = "\u02c6"
_BLANKS = re.compile(r"\s+")
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})
_DELIMITER_CHARS = 24
_CUT = "(cut)"


def spotlight(name: str, text: str, max_chars: int) -> str:
    """The text between delimiters, datamarked, at most ``max_chars`` of it. ``name`` is cleaned the same way."""
    digest = hashlib.sha256(f"{name}\n{text}".encode("utf-8", "replace")).hexdigest()[:_DELIMITER_CHARS].upper()
    shown = marked(text[:max_chars]) + (_CUT if len(text) > max_chars else "")
    return f"[[DATA-{digest} {marked(name[:200])}]]\n{shown}\n[[END-{digest}]]"


def marked(text: str) -> str:
    """The text without marks of its own, control, format and unassigned characters, with a mark for every run of blanks."""
    visible = "".join(
        char for char in text if char != MARK and (char.isspace() or unicodedata.category(char) not in _INVISIBLE)
    )
    return _BLANKS.sub(MARK, visible.strip())
