"""JSON Schemas inside the subset that providers accept for strict structured output.

The subset: objects name every property as required and allow no others; at most 100 properties and 5 levels; no ``$ref``
(open-weight servers differ there), no bounds on length, size or range, no defaults. Bounds that are left out here are held by
the models when a reply is read.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from engine.domain.base import JsonObject
from planner_graph.lowering.proposal import Proposal

_KEPT = frozenset({"type", "enum", "description"})


@cache
def proposal_schema() -> JsonObject:
    """The schema of a proposal. The same for every tenant and intent, because providers compile a new schema for seconds."""
    return strict_schema(Proposal)


def strict_schema(model: type[BaseModel]) -> JsonObject:
    """The schema of a closed model without the keywords outside the subset."""
    whole = model.model_json_schema()
    strict: JsonObject = _strict(whole, whole.get("$defs", {}))
    strict.pop("description", None)
    return strict


def _strict(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _strict(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        return _union([_strict(option, definitions) for option in schema["anyOf"]], schema.get("description"))
    strict: dict[str, Any] = {key: value for key, value in schema.items() if key in _KEPT}
    if "const" in schema:
        strict["enum"] = [schema["const"]]
    if "items" in schema:
        strict["items"] = _strict(schema["items"], definitions)
    if "properties" in schema:
        strict["properties"] = {name: _strict(part, definitions) for name, part in schema["properties"].items()}
        strict["required"] = list(schema["properties"])
        strict["additionalProperties"] = False
    return strict


def _union(options: list[dict[str, Any]], description: str | None) -> dict[str, Any]:
    """``anyOf``, or the shorter list of types where the options are nothing but types."""
    told = {"description": description} if description else {}
    if all(option.keys() == {"type"} for option in options):
        return {"type": [option["type"] for option in options], **told}
    return {"anyOf": options, **told}
