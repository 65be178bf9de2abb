"""``when``: one typed comparison of two values. One that makes no sense is an ``Unbound`` value, never false by accident.

The rules. ``eq`` and ``ne`` compare values of one JSON type (all numbers are one; ``1`` equals ``1.0``, not ``true``), and
anything with null. ``lt le gt ge`` order two numbers, or two texts by code point. ``in``: the left is an element of the array
on the right. ``contains``: the array on the left has the right as an element, or the text on the left has the text on the
right in it. ``exists``: the reference on the left leads to a value, be it null; a step without output makes it false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from engine.domain.base import JsonValue
from engine.domain.plan import When
from engine.domain.strict_json import Place
from engine.plan.binding import Absent, BindingEnvironment, Unbound, bind_value, invalid, lookup
from engine.plan.expressions import Reference, is_expression, parse_expression
from engine.plan.pointers import Nowhere
from engine.plan.schema_view import NUMBERS, atom_of_value, same_json

_PLACE: Place = (None, "when")
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def evaluate_when(when: When, environment: BindingEnvironment) -> bool | Unbound:
    """Whether the step runs. ``Unbound``: ``when.type_mismatch`` for values that cannot be compared, or as ``bind_inputs``."""
    if when.op == "exists":
        return _exists(when.left, environment)
    left = bind_value(when.left, (_PLACE, "left"), environment)
    if isinstance(left, Unbound):
        return left
    right = bind_value(when.right, (_PLACE, "right"), environment)
    if isinstance(right, Unbound):
        return right
    verdict = compare(when.op, left, right)
    if verdict is None:
        message = f"{when.op!r} cannot compare {_type(left)} with {_type(right)}"
        return invalid("when.type_mismatch", _PLACE, message)
    return verdict


def _exists(left: JsonValue, environment: BindingEnvironment) -> bool | Unbound:
    expression = parse_expression(left) if is_expression(left) else None
    if not isinstance(expression, Reference):
        return invalid("when.type_mismatch", (_PLACE, "left"), "'exists' asks about a reference")
    return not isinstance(lookup(expression, environment), Nowhere | Absent)


def compare(op: str, left: JsonValue, right: JsonValue) -> bool | None:
    """The verdict of one of the binary operators, or None when it has no meaning for these types."""
    match op:
        case "eq" | "ne":
            comparable = left is None or right is None or _type(left) == _type(right)
            return same_json(left, right) == (op == "eq") if comparable else None
        case "lt" | "le" | "gt" | "ge":
            ordered = _type(left) == _type(right) and _type(left) in ("number", "string")
            return _ORDER[op](left, right) if ordered else None
        case "in":
            return any(same_json(left, element) for element in right) if isinstance(right, list) else None
        case "contains":
            if isinstance(left, list):
                return any(same_json(right, element) for element in left)
            return right in left if isinstance(left, str) and isinstance(right, str) else None
        case _:
            raise ValueError(f"{op!r} is no comparison")


def _type(value: JsonValue) -> str:
    atom = atom_of_value(value)
    return "number" if atom in NUMBERS else atom
