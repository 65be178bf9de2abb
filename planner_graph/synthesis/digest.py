"""Outputs of steps as text for a prompt, cut to size by leaving out list items and ends of texts, and saying so. Pure."""

from __future__ import annotations

import json
from typing import Any

_LEVELS = ((200, 4_000), (60, 1_000), (25, 400), (10, 200), (4, 100), (2, 60))
"""(list items, characters of a text) kept, from generous to meagre."""
_MAX_DEPTH = 24
_MAX_KEYS = 200


def digest(value: Any, max_chars: int) -> str:
    """``value`` as JSON of at most ``max_chars`` characters: the most generous level that fits, cut off hard if none does.

    What is left out is named (``"… 40 more items"``), so that nobody takes a part for the whole.
    """
    text = ""
    for items, chars in _LEVELS:
        text = json.dumps(_cut(value, items, chars, _MAX_DEPTH), ensure_ascii=False, separators=(",", ":"), default=str)
        if len(text) <= max_chars:
            return text
    note = "… cut off"
    return text[: max(0, max_chars - len(note))] + note


def _cut(value: Any, items: int, chars: int, depth: int) -> Any:
    if depth == 0:
        return "… deeper values left out"
    if isinstance(value, str):
        return value if len(value) <= chars else f"{value[:chars]}… {len(value) - chars} more characters"
    if isinstance(value, list):
        kept = [_cut(item, items, chars, depth - 1) for item in value[:items]]
        return kept if len(value) <= items else [*kept, f"… {len(value) - items} more items"]
    if isinstance(value, dict):
        kept_keys = list(value)[:_MAX_KEYS]
        shown = {str(key): _cut(value[key], items, chars, depth - 1) for key in kept_keys}
        return shown if len(value) <= _MAX_KEYS else shown | {"…": f"{len(value) - _MAX_KEYS} more keys"}
    return value
