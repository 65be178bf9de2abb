"""JSON Schema validation of inputs that have typed holes where references stand.

The validator is jsonschema's own with two changes. A ``Hole`` is judged by what its producer's schema says (``View``): an error
only when no value could fit, except that an empty array or an absent member is no excuse (``array of object`` does not fit
``array of string``). A container with a hole somewhere inside passes every keyword whose verdict could still turn
(``not``, ``if``, ``contains``, ``uniqueItems``, ``enum`` and the like are decided optimistically). Without holes it is plain
draft 2020-12, except that a pattern is not tried on very long text and that nothing is ever fetched.

Errors carry no message worth showing: theirs repeat values. ``engine.plan.contracts`` writes its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from engine.domain.base import JsonValue
from engine.plan.schema_view import View, same_json, undeclared_but_required

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MAX_PATTERN_TEXT_CHARS = 10_000
"""Python's regular expressions backtrack; longer text is refused by a ``pattern`` instead of tried."""

Keyword = Callable[[Any, Any, Any, Any], "Iterator[ValidationError] | None"]


class Hole:
    """Stands for a value that a reference or template will give. ``trail`` leads from there to the part being judged."""

    __slots__ = ("is_text", "trail", "view")

    def __init__(self, view: View, *, is_text: bool = False, trail: tuple[str, ...] = ()) -> None:
        self.view = view
        self.is_text = is_text
        self.trail = trail

    def part(self, view: View, name: str) -> Hole:
        return Hole(view, is_text=self.is_text, trail=(*self.trail, name))


class HoledDict(dict[str, Any]):
    """An object with a hole somewhere inside."""


class HoledList(list[Any]):
    """An array with a hole somewhere inside."""


def has_hole(value: Any) -> bool:
    """True for a hole and for a container around one."""
    return isinstance(value, Hole | HoledDict | HoledList)


@cache
def validator_class() -> Any:
    """The extended validator class. Built on first use: importing jsonschema costs."""
    from jsonschema import Draft202012Validator, validators

    keywords = {name: _wrap(name, rule) for name, rule in Draft202012Validator.VALIDATORS.items()}
    return validators.extend(Draft202012Validator, keywords)  # type: ignore[no-untyped-call]  # jsonschema's is untyped


def _wrap(name: str, stock: Keyword) -> Keyword:
    for_value = _VALUE_RULES.get(name, stock)
    for_hole = _HOLE_RULES.get(name, _undecided)
    for_container = _CONTAINER_RULES.get(name, for_value)

    def rule(validator: Any, expected: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        if isinstance(instance, Hole):
            return (
                stock(validator, expected, instance, schema)
                if name in _REFS
                else for_hole(validator, expected, instance, schema)
            )
        if isinstance(instance, HoledDict | HoledList):
            return for_container(validator, expected, instance, schema)
        return for_value(validator, expected, instance, schema)

    rule.__name__ = name
    return rule


_REFS = frozenset({"$ref", "$dynamicRef", "allOf"})
"""Keywords that only pass the instance on."""


def _error(message: str = "", **details: Any) -> ValidationError:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message, **details)


def _undecided(_validator: Any, _expected: Any, _instance: Any, _schema: Any) -> None:
    return None


def _hole_by_view(keyword: str) -> Keyword:
    def rule(_validator: Any, expected: Any, hole: Hole, _schema: Any) -> Iterator[ValidationError]:
        if hole.view.misfits(keyword, expected):
            yield _error()

    return rule


def _hole_properties(validator: Any, expected: Any, hole: Hole, _schema: Any) -> Iterator[ValidationError]:
    for name, subschema in expected.items():
        part = hole.view.declared_member(name)
        if part is not None:
            yield from validator.descend(hole.part(part, name), subschema)


def _hole_additional(_validator: Any, expected: Any, hole: Hole, schema: Any) -> Iterator[ValidationError]:
    if expected is False and "patternProperties" not in schema:
        surplus = undeclared_but_required(hole.view, schema.get("properties", ()))
        if surplus is not None:
            yield _error(surplus)


def _hole_items(validator: Any, expected: Any, hole: Hole, schema: Any) -> Iterator[ValidationError]:
    part = hole.view.element() if "prefixItems" not in schema else None
    if part is not None and "array" in hole.view.atoms:
        yield from validator.descend(hole.part(part, "(each)"), expected)


def _some_branch(validator: Any, expected: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if all(next(validator.descend(instance, branch), None) is not None for branch in expected):
        yield _error()


def _container_enum(_validator: Any, expected: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not any(_could_equal(instance, value) for value in expected):
        yield _error()


def _container_const(_validator: Any, expected: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not _could_equal(instance, expected):
        yield _error()


def _could_equal(instance: Any, value: JsonValue) -> bool:
    if isinstance(instance, Hole):
        return not instance.view.misfits("const", value)
    if isinstance(instance, HoledDict):
        return (
            isinstance(value, dict)
            and instance.keys() == value.keys()
            and all(_could_equal(member, value[key]) for key, member in instance.items())
        )
    if isinstance(instance, HoledList):
        return isinstance(value, list) and len(value) == len(instance) and all(map(_could_equal, instance, value))
    return same_json(instance, value)


def _required(_validator: Any, expected: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, dict):
        for name in expected:
            if name not in instance:
                yield _error(name)


def _additional_properties(validator: Any, expected: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """One error for each surplus member, at the member."""
    import re

    if not isinstance(instance, dict):
        return
    declared, patterns = schema.get("properties", {}), list(schema.get("patternProperties", ()))
    for name, member in instance.items():
        if name in declared or any(re.search(pattern, name) for pattern in patterns):
            continue
        if expected is False:
            yield _error(name, path=[name])
        else:
            yield from validator.descend(member, expected, path=name)


def _pattern(_validator: Any, expected: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    import re

    if isinstance(instance, str) and (len(instance) > MAX_PATTERN_TEXT_CHARS or not re.search(expected, instance)):
        yield _error()


def _unique_items(_validator: Any, expected: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """In linear time, where the stock rule may compare each pair."""
    if expected and isinstance(instance, list):
        keys = {_equality_key(element) for element in instance}
        if len(keys) < len(instance):
            yield _error()


def _equality_key(value: JsonValue) -> str:
    def plain(node: JsonValue) -> JsonValue:
        if isinstance(node, float) and node.is_integer():
            return int(node)
        if isinstance(node, list):
            return [plain(element) for element in node]
        if isinstance(node, dict):
            return {key: plain(member) for key, member in node.items()}
        return node

    return json.dumps(plain(value), sort_keys=True)


_VALUE_RULES: dict[str, Keyword] = {
    "required": _required,
    "additionalProperties": _additional_properties,
    "pattern": _pattern,
    "uniqueItems": _unique_items,
}
_HOLE_RULES: dict[str, Keyword] = {
    **{
        keyword: _hole_by_view(keyword)
        for keyword in (
            "type",
            "enum",
            "const",
            "required",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
        )
    },
    "properties": _hole_properties,
    "additionalProperties": _hole_additional,
    "items": _hole_items,
    "anyOf": _some_branch,
    "oneOf": _some_branch,
}
_CONTAINER_RULES: dict[str, Keyword] = {
    "enum": _container_enum,
    "const": _container_const,
    "oneOf": _some_branch,
    "not": _undecided,
    "if": _undecided,
    "contains": _undecided,
    "uniqueItems": _undecided,
    "unevaluatedProperties": _undecided,
    "unevaluatedItems": _undecided,
}
