"""What a producer's JSON Schema says about a value that does not exist yet.

A ``View`` is read from an output schema and answers three questions before anything runs: which JSON types can the value
have, what is known about one of its parts, and can it ever satisfy a keyword of the consumer's schema. It errs on one side
only: where a schema says more than is understood here (``if``, ``not``, ``unevaluated…``, foreign ``$ref``) the view knows
less, and unknown counts as possible.

One rule is stricter than JSON Schema on purpose: an object schema that lists ``properties`` and is silent about
``additionalProperties`` is taken as complete when a reference points into it. A pointer to an undeclared property is far more
often a typing error than knowledge the manifest lacks; a manifest that means "anything more" says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from engine.domain.base import JsonValue
from engine.plan.pointers import NOWHERE, array_index, parse_pointer, resolve

Atom = str
"""null, boolean, integer, fraction (a number that is no integer), string, array or object."""

ALL_ATOMS: frozenset[Atom] = frozenset({"null", "boolean", "integer", "fraction", "string", "array", "object"})
NUMBERS: frozenset[Atom] = frozenset({"integer", "fraction"})
_MAX_ALTERNATIVES = 16
_MAX_CONJUNCTS = 32
_MAX_NESTING = 12

Flat = tuple[dict[str, Any], Any]
"""One schema object of a conjunction, and the document its local references resolve in."""
Conjunction = tuple[Flat, ...]


def atoms_of_type(declared: JsonValue) -> frozenset[Atom]:
    """The atoms that a ``type`` keyword allows."""
    names = [declared] if isinstance(declared, str) else declared
    atoms: set[Atom] = set()
    for name in names:
        atoms |= NUMBERS if name == "number" else {name}
    return frozenset(atoms)


def atom_of_value(value: JsonValue) -> Atom:
    """The atom of a JSON value. ``3.0`` is an integer, as in JSON Schema; ``true`` is not."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if float(value).is_integer() else "fraction"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def same_json(left: JsonValue, right: JsonValue) -> bool:
    """Equality of JSON values: ``1`` equals ``1.0`` and differs from ``true``. Both must be of bounded depth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    return bool(left == right)


def _atoms(conjunction: Conjunction) -> frozenset[Atom]:
    atoms = ALL_ATOMS
    for schema, _ in conjunction:
        if "type" in schema:
            atoms &= atoms_of_type(schema["type"])
        if "enum" in schema:
            atoms &= {atom_of_value(value) for value in schema["enum"]}
        if "const" in schema:
            atoms &= {atom_of_value(schema["const"])}
    return atoms


@dataclass(frozen=True)
class View:
    """A union of conjunctions. No alternative at all: no value is possible; an empty conjunction: anything is."""

    alternatives: tuple[Conjunction, ...]

    @cached_property
    def atoms(self) -> frozenset[Atom]:
        """The types the value can have."""
        return frozenset().union(*map(_atoms, self.alternatives))

    def member(self, name: str) -> View | None:
        """What is known about the member ``name``; None when no object the schema describes has one."""
        return _union(_member(each, name) for each in self.alternatives if "object" in _atoms(each))

    def declared_member(self, name: str) -> View | None:
        """Like ``member``, but None unless some ``properties`` names it."""
        if any(name in schema.get("properties", ()) for each in self.alternatives for schema, _ in each):
            return self.member(name)
        return None

    def element(self, index: int | None = None) -> View | None:
        """What is known about an element (any element when ``index`` is None); None when there can be none."""
        return _union(_element(each, index) for each in self.alternatives if "array" in _atoms(each))

    def at(self, tokens: Iterable[str]) -> View | None:
        """What is known about the part a pointer leads to; None when it leads nowhere in every described value."""
        view: View | None = self
        for token in tokens:
            if view is None or view.alternatives == ANYTHING.alternatives:
                return view
            index = array_index(token)
            parts = [view.member(token), view.element(index) if index is not None else None]
            view = _union(parts)
        return view

    def misfits(self, keyword: str, expected: JsonValue) -> bool:
        """True when no value of this view satisfies the consumer's ``keyword: expected``."""
        possible = [each for each in self.alternatives if _atoms(each)]
        return all(_misfits(each, keyword, expected) for each in possible)


ANYTHING = View(((),))
"""Nothing is known."""


def view_of_schema(schema: JsonValue) -> View:
    """The view of a complete JSON Schema (2020-12)."""
    return View(_expand(schema, schema, 0))


def array_of(element: View) -> View:
    """The view of an array whose elements have ``element``."""
    return View((((({"type": "array", "items": element}), None),),))


def _union(parts: Iterable[View | None]) -> View | None:
    alternatives = [each for part in parts if part is not None for each in part.alternatives]
    if not alternatives:
        return None
    return ANYTHING if len(alternatives) > _MAX_ALTERNATIVES else View(tuple(alternatives))


def _expand(schema: JsonValue, root: JsonValue, nesting: int) -> tuple[Conjunction, ...]:
    """Pull ``$ref``, ``allOf``, ``anyOf`` and ``oneOf`` up to the top, within limits; beyond them, know less."""
    if isinstance(schema, View):
        return schema.alternatives
    if schema is False:
        return ()
    if not isinstance(schema, dict) or nesting > _MAX_NESTING:
        return ((),)
    factors: list[tuple[Conjunction, ...]] = [(((schema, root),),)]
    if "$ref" in schema:
        factors.append(_expand(_local_target(schema["$ref"], root), root, nesting + 1))
    factors.extend(_expand(part, root, nesting + 1) for part in schema.get("allOf", ()))
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            branches = [each for part in schema[keyword] for each in _expand(part, root, nesting + 1)]
            factors.append(tuple(branches))
    return _conjoin(factors)


def _conjoin(factors: list[tuple[Conjunction, ...]]) -> tuple[Conjunction, ...]:
    """The alternatives of a conjunction of unions; a union that would multiply beyond the limits is left out."""
    result: tuple[Conjunction, ...] = ((),)
    for factor in factors:
        if len(result) * len(factor) > _MAX_ALTERNATIVES:
            continue
        result = tuple(
            left + right if len(left) + len(right) <= _MAX_CONJUNCTS else left
            for left, right in product(result, factor)
        )
    return result


def _local_target(ref: str, root: JsonValue) -> JsonValue:
    tokens = parse_pointer(ref[1:]) if ref.startswith("#") else None
    target = resolve(root, tokens) if tokens is not None else NOWHERE
    return True if target is NOWHERE else target


def _member(conjunction: Conjunction, name: str) -> View | None:
    factors: list[tuple[Conjunction, ...]] = []
    declared = silent = False
    for schema, root in conjunction:
        if name in schema.get("properties", ()):
            declared = True
            factors.append(_expand(schema["properties"][name], root, 0))
        elif "patternProperties" in schema:
            declared = True
        elif "additionalProperties" in schema:
            more = schema["additionalProperties"]
            if more is False:
                return None
            declared = True
            factors.append(_expand(more, root, 0))
        elif schema.get("properties"):
            silent = True
    if silent and not declared:
        return None
    return View(_conjoin(factors))


def _element(conjunction: Conjunction, index: int | None) -> View | None:
    factors: list[tuple[Conjunction, ...]] = []
    for schema, root in conjunction:
        prefix = schema.get("prefixItems", ())
        if index is not None and schema.get("maxItems", index + 1) <= index:
            return None
        if index is not None and index < len(prefix):
            factors.append(_expand(prefix[index], root, 0))
        elif "items" in schema and (index is not None or not prefix):
            if schema["items"] is False:
                return None
            factors.append(_expand(schema["items"], root, 0))
    return View(_conjoin(factors))


_LOWER = {"minimum": "maximum", "minLength": "maxLength", "minItems": "maxItems", "minProperties": "maxProperties"}
_UPPER = {upper: lower for lower, upper in _LOWER.items()}
_APPLIES: dict[str, frozenset[Atom]] = {
    "minimum": NUMBERS,
    "maximum": NUMBERS,
    "minLength": frozenset({"string"}),
    "maxLength": frozenset({"string"}),
    "minItems": frozenset({"array"}),
    "maxItems": frozenset({"array"}),
    "minProperties": frozenset({"object"}),
    "maxProperties": frozenset({"object"}),
}


def _misfits(conjunction: Conjunction, keyword: str, expected: Any) -> bool:
    atoms = _atoms(conjunction)
    if keyword == "type":
        return not atoms & atoms_of_type(expected)
    if keyword in ("enum", "const"):
        wanted = expected if keyword == "enum" else [expected]
        if not atoms & {atom_of_value(value) for value in wanted}:
            return True
        own = _finite_values(conjunction)
        return own is not None and not any(same_json(mine, theirs) for mine in own for theirs in wanted)
    if keyword == "required":
        return atoms == {"object"} and any(_never_has(conjunction, name) for name in expected)
    if keyword in _APPLIES and atoms <= _APPLIES[keyword]:
        opposite = _LOWER.get(keyword) or _UPPER[keyword]
        limits = [schema[opposite] for schema, _ in conjunction if opposite in schema]
        return any(limit < expected if keyword in _LOWER else limit > expected for limit in limits)
    return False


def _finite_values(conjunction: Conjunction) -> list[JsonValue] | None:
    for schema, _ in conjunction:
        if "enum" in schema:
            return list(schema["enum"])
        if "const" in schema:
            return [schema["const"]]
    return None


def _never_has(conjunction: Conjunction, name: str) -> bool:
    return any(
        schema.get("additionalProperties") is False
        and "patternProperties" not in schema
        and name not in schema.get("properties", ())
        for schema, _ in conjunction
    )


def undeclared_but_required(view: View, allowed: Iterable[str]) -> str | None:
    """The name of a member that every value of the view has and ``allowed`` lacks, or None."""
    known = set(allowed)
    surplus = [
        {name for schema, _ in each for name in schema.get("required", ()) if name not in known}
        if _atoms(each) == {"object"}
        else set[str]()
        for each in view.alternatives
    ]
    common = set[str].intersection(*surplus) if surplus else set()
    return min(common, default=None)


def describe_atoms(atoms: Iterable[Atom]) -> str:
    """Types in words, for messages."""
    names = sorted({"number" if atom == "fraction" else atom for atom in atoms})
    if "number" in names and "integer" in names:
        names.remove("integer")
    return " or ".join(names) or "nothing"


def describe_expected(keyword: str, expected: JsonValue) -> str:
    """A keyword of a schema in words, cut to a readable length; it never holds anything of the value."""
    text = json.dumps(expected, ensure_ascii=False, sort_keys=True)
    return f"{keyword} {text if len(text) <= 200 else text[:200] + '…'}"
