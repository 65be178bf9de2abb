"""Parts of structured outputs, and the schema to put into a manifest for a model of them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from engine.domain.base import JsonObject
from engine.domain.outputs import Artifact, Column, Insight, Kpi, StructuredOutput, Table


def schema_of(model: type[BaseModel]) -> JsonObject:
    """The JSON Schema of a model's outputs without references, as manifests have it. ``ValueError`` for one that holds itself."""
    found = model.model_json_schema(mode="serialization")
    named = found.pop("$defs", {})
    resolved = _resolved(found, named, ())
    assert isinstance(resolved, dict)
    return resolved


def _resolved(node: Any, named: dict[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_resolved(part, named, above) for part in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name in above:
            raise ValueError(f"{name} holds itself; a manifest's schema has no references")
        return _resolved(named[name], named, (*above, name))
    return {key: _resolved(value, named, above) for key, value in node.items()}


__all__ = ["Artifact", "Column", "Insight", "Kpi", "StructuredOutput", "Table", "schema_of"]
