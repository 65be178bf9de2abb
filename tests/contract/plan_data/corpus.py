"""Public gold plans and tool catalogues, spoken in our plan language. Lives with the tests: the corpora are not ours.

What the neutral records leave open is decided here, once, for all records alike:

- Tool names become capability names one to one; a name the catalogue lacks becomes a capability nobody has.
- A tool's output is known by field names only, and some records refer to "the result" as a whole. So each output is
  ``{"whole": anything, "fields": {name: anything}}`` with no other fields.
- Seal-Tools writes every argument as text. Where the tool asks for a number, boolean, array or object, text that spells one is
  read as such; text that does not stays text.
- An ``enum`` that is one text (NESTFUL has two tools with ``"1-100"``) is a list of that text, which is how the labels read it.
- ``declared_types=False`` reads the types of tools as the labels of the corpora do, which know one type error only, null.
- ``$concat`` becomes a ``$template``. The records' ``outputs`` are not part of the graph and are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from engine.domain.capability import Capability
from engine.domain.tenant import Bounds, TenantConfig
from tests.unit.plan.samples import SampleCatalog, tenant_for

from .data import read_json

_TEXT_ENCODED = {"integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
_NOT_NULL = ["boolean", "number", "string", "array", "object"]


class Corpus:
    """One tool catalogue as capabilities and the tenant that may use all of them."""

    def __init__(self, name: str, tools: dict[str, Any], *, text_encoded: bool, declared_types: bool) -> None:
        self._tools = tools
        self._text_encoded = text_encoded
        self._declared_types = declared_types
        self._names = {tool: f"{name}.t{number}" for number, tool in enumerate(tools)}
        capabilities = [self._capability(tool, spec) for tool, spec in tools.items()]
        self.catalog = SampleCatalog(capabilities)
        self.tenant: TenantConfig = tenant_for(self.catalog, bounds=Bounds())

    def _capability(self, tool: str, spec: dict[str, Any]) -> Capability:
        fields = {name: {} for name in spec["output"]}
        return Capability(
            name=self._names[tool],
            version="1.0.0",
            title=tool[:80],
            description=(spec["description"] or tool)[:2000],
            delivery="http",
            endpoint="corpus",
            side_effect="read",
            input_schema={**spec["input"], "properties": self._properties(spec)},
            output_schema={
                "type": "object",
                "properties": {
                    "whole": {},
                    "fields": {"type": "object", "properties": fields, "additionalProperties": False},
                },
                "additionalProperties": False,
            },
        )

    def _properties(self, spec: dict[str, Any]) -> dict[str, Any]:
        schemas = {name: dict(schema) for name, schema in spec["input"]["properties"].items()}
        for schema in schemas.values():
            if isinstance(schema.get("enum"), str):
                schema["enum"] = [schema["enum"]]
            if not self._declared_types:
                schema["type"] = _NOT_NULL
        return schemas

    def plan(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record as a plan document."""
        return {"goal": record["query"] or "-", "steps": [self._step(step, record) for step in record["steps"]]}

    def _step(self, step: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
        tools = {other["id"]: other["tool"] for other in record["steps"]}
        wanted = self._tools.get(step["tool"], {}).get("input", {}).get("properties", {})
        return {
            "id": step["id"],
            "capability": self._names.get(step["tool"], "corpus.unknown"),
            "needs": step["deps"],
            "inputs": {name: self._value(value, wanted.get(name, {}), tools) for name, value in step["args"].items()},
        }

    def _value(self, value: Any, schema: dict[str, Any], tools: dict[str, str]) -> Any:
        if isinstance(value, dict) and "$ref" in value:
            return {"$ref": f"steps.{value['$ref']}#{self._pointer(value, tools)}"}
        if isinstance(value, dict) and "$concat" in value:
            names = [f"p{number}" for number, _ in enumerate(value["$concat"])]
            parts = {name: self._value(part, {}, tools) for name, part in zip(names, value["$concat"], strict=True)}
            return {"$template": "".join(f"{{{name}}}" for name in names), **parts}
        if isinstance(value, dict):
            return {name: self._value(member, {}, tools) for name, member in value.items()}
        if isinstance(value, list):
            return [self._value(element, {}, tools) for element in value]
        return _decoded(value, schema.get("type")) if self._text_encoded else value

    def _pointer(self, ref: dict[str, Any], tools: dict[str, str]) -> str:
        path = ref.get("path")
        if path is None:
            return "/whole"
        declared = self._tools.get(tools.get(ref["$ref"], ""), {}).get("output", ())
        tokens = [path] if path in declared else list(_segments(path))
        return "/fields" + "".join("/" + token.replace("~", "~0").replace("/", "~1") for token in tokens)


def _segments(path: str) -> Iterator[str]:
    """``movies[0].name`` as movies, 0, name."""
    for part in path.split("."):
        yield from re.findall(r"[^\[\]]+", part)


def _decoded(value: Any, wanted: str | None) -> Any:
    if not isinstance(value, str) or wanted not in _TEXT_ENCODED:
        return value
    try:
        read = json.loads(value.strip().lower() if wanted == "boolean" else value)
    except ValueError:
        return value
    fits = isinstance(read, _TEXT_ENCODED[wanted]) and (wanted == "boolean" or not isinstance(read, bool))
    return read if fits else value


def load_corpora(*, declared_types: bool) -> dict[str, Corpus]:
    """The corpora by the name their records use."""
    tools = read_json("plans/nestful_catalogs.json")
    corpora = {
        name: Corpus(name, each, text_encoded=False, declared_types=declared_types) for name, each in tools.items()
    }
    seal_tools = read_json("plans/sealtools_catalog.json")
    return corpora | {"sealtools": Corpus("sealtools", seal_tools, text_encoded=True, declared_types=declared_types)}
