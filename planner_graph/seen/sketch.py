"""A JSON Schema in few words, for a prompt: names, types, what is optional, choices, ranges and the first words of descriptions.

``{query: string, top_k?: integer 1..20}``. What it leaves out the checks still hold; a wrong guess comes back as a finding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.domain.base import JsonValue

_MAX_DEPTH = 5
_MAX_PROPERTIES = 40
_MAX_CHOICES = 30
_MAX_TOLD_CHARS = 160


def sketch(schema: JsonValue, *, marks: Mapping[str, str] | None = None, depth: int = 0) -> str:
    """The schema in words. ``marks`` are put behind the names of top-level properties."""
    if not isinstance(schema, dict):
        return "any"
    if "enum" in schema:
        return " | ".join(_json(choice) for choice in schema["enum"][:_MAX_CHOICES])
    if "const" in schema:
        return _json(schema["const"])
    for union in ("anyOf", "oneOf"):
        if isinstance(schema.get(union), list):
            return " | ".join(sketch(option, depth=depth + 1) for option in schema[union][:6])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(sketch(schema | {"type": one}, depth=depth) for one in kind[:6])
    if kind == "object" or "properties" in schema:
        return _object(schema, marks or {}, depth)
    if kind == "array":
        return f"[{sketch(schema.get('items'), depth=depth + 1)}]" if depth < _MAX_DEPTH else "[…]"
    return f"{kind or 'any'}{_limits(schema)}"


def _object(schema: dict[str, Any], marks: Mapping[str, str], depth: int) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        return "object"
    if depth >= _MAX_DEPTH:
        return "{…}"
    required = schema.get("required") or ()
    parts = []
    for name, part in list(properties.items())[:_MAX_PROPERTIES]:
        told = part.get("description", "") if isinstance(part, dict) else ""
        words = " ".join(str(told).split())[:_MAX_TOLD_CHARS]
        note = f" ({'; '.join(filter(None, (marks.get(name, ''), words)))})" if words or name in marks else ""
        parts.append(f"{name}{'' if name in required else '?'}: {sketch(part, depth=depth + 1)}{note}")
    if len(properties) > _MAX_PROPERTIES:
        parts.append("…")
    return "{" + ", ".join(parts) + "}"


def _limits(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    told = (
        f" {'' if low is None else low}..{'' if high is None else high}" if low is not None or high is not None else ""
    )
    for name in ("format", "pattern"):
        if isinstance(schema.get(name), str):
            told += f" {schema[name][:60]}"
    return told


def _json(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)[:100]
