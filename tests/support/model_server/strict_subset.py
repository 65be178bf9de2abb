"""The subset of JSON Schema that strict structured output accepts, as Azure documents it; what is outside is refused with 400.

Every property required, ``additionalProperties`` false, at most five levels of objects and a hundred properties, an object at
the root, and no keyword beyond the documented ones (no lengths, patterns, formats, ranges, ``oneOf``, ``allOf``, defaults).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_LEVELS = 5
MAX_PROPERTIES = 100
_KEYWORDS = frozenset(
    "type properties required additionalProperties items enum const anyOf $ref $defs definitions title description".split()
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def faults(name: str, schema: Any) -> list[str]:
    """Every fault of a schema, each with its place. Empty when the provider would take it."""
    found = [] if _NAME.fullmatch(name) else ["name: must match [A-Za-z0-9_-]{1,64}"]
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        return [*found, "#: the root must be an object"]
    checker = _Checker(schema)
    found += checker.walk(schema, "#", 0, ())
    if checker.properties > MAX_PROPERTIES:
        found.append(f"#: {checker.properties} properties; at most {MAX_PROPERTIES}")
    return found


class _Checker:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._seen: set[str] = set()
        self.properties = 0

    def walk(self, node: Any, place: str, level: int, refs: tuple[str, ...]) -> Iterator[str]:
        if not isinstance(node, Mapping):
            yield f"{place}: must be a schema"
            return
        for keyword in sorted(node.keys() - _KEYWORDS):
            yield f"{place}: {keyword!r} is not permitted"
        if not node.keys() & {"type", "anyOf", "$ref", "enum", "const"}:
            yield f"{place}: must have a 'type' key"
        if "$ref" in node:
            yield from self._reference(str(node["$ref"]), place, level, refs)
        if "object" in _types(node):
            yield from self._object(node, place, level + 1, refs)
        if "array" in _types(node) and "items" not in node:
            yield f"{place}: an array needs 'items'"
        if "items" in node:
            yield from self.walk(node["items"], f"{place}/items", level, refs)
        for index, option in enumerate(node.get("anyOf", ())):
            yield from self.walk(option, f"{place}/anyOf/{index}", level, refs)

    def _object(self, node: Mapping[str, Any], place: str, level: int, refs: tuple[str, ...]) -> Iterator[str]:
        if level > MAX_LEVELS:
            yield f"{place}: {level} levels of objects; at most {MAX_LEVELS}"
        if node.get("additionalProperties") is not False:
            yield f"{place}: 'additionalProperties' is required to be false"
        properties = node.get("properties", {})
        if place not in self._seen:  # a definition used twice counts once
            self._seen.add(place)
            self.properties += len(properties)
        if sorted(node.get("required", ())) != sorted(properties):
            yield f"{place}: 'required' must hold every key in properties"
        for key, child in properties.items():
            yield from self.walk(child, f"{place}/properties/{key}", level, refs)

    def _reference(self, ref: str, place: str, level: int, refs: tuple[str, ...]) -> Iterator[str]:
        if ref in refs or ref == "#":
            return  # recursion is allowed
        target: Any = self._root
        for part in ref.removeprefix("#/").split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        if target is None:
            yield f"{place}: {ref} points at nothing"
            return
        yield from self.walk(target, ref, level, (*refs, ref))


def _types(node: Mapping[str, Any]) -> tuple[str, ...]:
    kind = node.get("type", ())
    return (kind,) if isinstance(kind, str) else tuple(kind)
