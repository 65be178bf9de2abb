"""Quoting passages that retrieval found: somebody's writing, quoted as such, with its citation and without anything clickable.

Links and images are taken out because a document may have been written to make an answer carry data away.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from engine.domain.answer import Insight

_MAX_QUOTE_CHARS = 280
_MAX_CITATION_CHARS = 200
_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\n]{0,200})\]\([^)\n]{0,2000}\)")
_ADDRESS = re.compile(
    r"(?i)\b(?:[a-z][a-z0-9+.-]{0,20}:)?//\S{1,2000}|\b(?:https?|javascript|data|mailto):\S{1,2000}|\bwww\.\S{1,2000}"
)
_BLANKS = re.compile(r"\s+")


def quotes(step_id: str, part: dict[str, Any]) -> Iterator[Insight]:
    """One insight per passage of an output's ``passages``: ``“text” — citation``."""
    passages = part.get("passages")
    for passage in passages if isinstance(passages, list) else ():
        if not isinstance(passage, dict):
            continue
        text, citation = passage.get("text"), passage.get("citation")
        if isinstance(text, str) and isinstance(citation, str) and text.strip():
            quoted = _cut(plain(text), _MAX_QUOTE_CHARS)
            yield Insight(text=f"“{quoted}” — {_cut(plain(citation), _MAX_CITATION_CHARS)}", step_ids=(step_id,))


def plain(text: str) -> str:
    """One line without links, images and addresses."""
    without_links = _IMAGE_OR_LINK.sub(r"\1", text[:20_000])
    return _BLANKS.sub(" ", _ADDRESS.sub("[address removed]", without_links)).strip()


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1].rstrip() + "…"
