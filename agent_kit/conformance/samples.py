"""Inputs that fit a schema, for schemas of the ordinary kind; for others somebody has to give some."""

from __future__ import annotations

from typing import Any

from agent_kit.schemas import CompiledSchema
from engine.domain.base import JsonObject

_MAX_DEPTH = 8


def sample(schema: JsonObject) -> JsonObject | None:
    """Small inputs that fit; None when none were found."""
    found = _value(schema, 0)
    return found if isinstance(found, dict) and not CompiledSchema(schema).violations(found, code="x") else None


def variation(schema: JsonObject, inputs: JsonObject) -> JsonObject | None:
    """Other inputs that fit too; None when none were found."""
    check = CompiledSchema(schema)
    for name, value in inputs.items():
        for other in _others(value):
            changed = {**inputs, name: other}
            if not check.violations(changed, code="x"):
                return changed
    for name, part in schema.get("properties", {}).items():
        if name not in inputs:
            changed = {**inputs, name: _value(part, 0)}
            if not check.violations(changed, code="x"):
                return changed
    return None


def _others(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value - 1]
    if isinstance(value, str):
        return [f"{value}b", value[:-1], "2026-02-02"]
    return []


def _value(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return None
    for word in ("const", "default"):
        if word in schema:
            return schema[word]
    for word in ("examples", "enum", "anyOf", "oneOf"):
        if schema.get(word):
            return _value(schema[word][0], depth + 1) if word in ("anyOf", "oneOf") else schema[word][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        parts = schema.get("properties", {})
        return {name: _value(parts.get(name, {}), depth + 1) for name in schema.get("required", ())}
    if kind == "array":
        return [_value(schema.get("items", {}), depth + 1) for _ in range(schema.get("minItems", 0))]
    return _scalar(kind, schema)


def _scalar(kind: Any, schema: JsonObject) -> Any:
    match kind:
        case "string":
            text = {"date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z"}.get(schema.get("format", ""), "a")
            return text.ljust(schema.get("minLength", 0), "a")
        case "integer":
            return int(schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1))
        case "number":
            return schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        case "boolean":
            return True
        case _:
            return None
