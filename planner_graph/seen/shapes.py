"""What a planner is told of an output: names and types, never the values. Names may still be somebody else's words."""

from __future__ import annotations

from typing import Any

from engine.domain.base import JsonValue

_MAX_DEPTH = 3
_MAX_KEYS = 20
_MAX_NAME_CHARS = 60


def shape_of(value: JsonValue, depth: int = 0) -> Any:
    """``{"channels": ["array of 5", {"name": "text", "roi": "number"}]}``: an array by its length and its first element."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            told = f"array of {len(value)}"
            return [told, shape_of(value[0], depth + 1)] if value and depth < _MAX_DEPTH else told
        case _:
            if depth >= _MAX_DEPTH:
                return "object"
            names = [name for name in value if len(name) <= _MAX_NAME_CHARS][:_MAX_KEYS]
            return {name: shape_of(value[name], depth + 1) for name in names}
