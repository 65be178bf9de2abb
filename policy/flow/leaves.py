"""The values of a plan taken apart: for every place in an argument, what will stand there and where it comes from.

Reads the plan language as ``engine.plan.expressions`` does and nothing beside it. What cannot be read is a leaf that says so,
never something to leave out. No labels here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from engine.domain.base import JsonValue
from engine.plan.expressions import Expression, LiteralValue, Reference, Template, is_expression, parse_expression
from engine.plan.schema_view import same_json

Place = tuple[str | int, ...]


class Literal(NamedTuple):
    """A scalar, a member name or an empty container that the plan itself says."""

    value: JsonValue


class Unreadable:
    """The type of ``UNREADABLE``: an expression that is none."""

    __slots__ = ()


UNREADABLE = Unreadable()

Term = Reference | Literal | Unreadable


class Leaf(NamedTuple):
    """One place of a value (below the argument, as it stands once bound) and everything that goes into it.

    ``known`` when the whole value stands in the plan, as ``value``. ``template`` when text is put together there.
    """

    place: Place
    terms: tuple[Term, ...]
    known: bool = False
    value: JsonValue = None
    template: Template | None = None

    @property
    def waits(self) -> bool:
        """True when the value is not there before another step has run, or before there is an item."""
        return any(isinstance(term, Reference) and term.source != "run" for term in self.terms)


def leaves_of(value: JsonValue, names: frozenset[str] = frozenset()) -> list[Leaf]:
    """The leaves of a value, in its order. Member names that are not in ``names`` are somebody's words: literals too."""
    if not isinstance(value, dict | list):
        return [Leaf((), (Literal(value),), True, value)]
    if isinstance(value, dict) and is_expression(value):
        return [_expression((), value, names)]
    found: list[Leaf] = []
    stack: list[tuple[Place, JsonValue]] = [((), value)]
    while stack:
        place, node = stack.pop()
        if isinstance(node, list) and node:
            stack.extend(((*place, index), node[index]) for index in reversed(range(len(node))))
        elif not isinstance(node, dict) or not node:
            found.append(Leaf(place, (Literal(node),), True, node))
        elif is_expression(node):
            found.append(_expression(place, node, names))
        else:
            own = tuple(Literal(key) for key in node if key not in names)
            if own:
                found.append(Leaf(place, own))
            stack.extend(((*place, key), node[key]) for key in reversed(node))
    return found


def _expression(place: Place, node: dict[str, JsonValue], names: frozenset[str]) -> Leaf:
    expression = _parsed(node)
    if isinstance(expression, Reference) and not expression.has_default:
        return Leaf(place, (expression,))
    if isinstance(expression, LiteralValue):
        return Leaf(place, tuple(map(Literal, _scalars(expression.value, names))), True, expression.value)
    template = expression if isinstance(expression, Template) else None
    return Leaf(place, _terms(expression, names), template=template)


def _parsed(node: dict[str, JsonValue]) -> Expression:
    """``parse_expression``; plain references, the many, are kept."""
    text = node.get("$ref")
    return _plain_reference(text) if len(node) == 1 and isinstance(text, str) else parse_expression(node)


@lru_cache(maxsize=8_192)
def _plain_reference(text: str) -> Expression:
    return parse_expression({"$ref": text})


def _terms(expression: Expression, names: frozenset[str]) -> tuple[Term, ...]:
    if isinstance(expression, Reference):
        defaults = _scalars(expression.default, names) if expression.has_default else ()
        return (expression, *map(Literal, defaults))
    if isinstance(expression, Template):
        texts = [Literal(text) for text, _ in expression.parts if text]
        inside = [
            term for value in expression.values.values() for leaf in leaves_of(value, names) for term in leaf.terms
        ]
        # What is put together from several pieces is nobody's own word, whoever said the pieces.
        joined = (Literal(""),) if sum(bool(text) + (name is not None) for text, name in expression.parts) > 1 else ()
        return (*texts, *joined, *inside)
    if isinstance(expression, LiteralValue):
        return tuple(map(Literal, _scalars(expression.value, names)))
    return (UNREADABLE,)


def references_of(value: JsonValue) -> list[Reference | Unreadable]:
    """What a value looks up, wherever in it; literals aside."""
    if not isinstance(value, dict | list):
        return []
    return [term for leaf in leaves_of(value) for term in leaf.terms if not isinstance(term, Literal)]


def _scalars(value: JsonValue, names: frozenset[str]) -> Iterator[JsonValue]:
    stack: list[JsonValue] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, list) and node:
            stack.extend(reversed(node))
        elif isinstance(node, dict) and node:
            yield from (key for key in node if key not in names)
            stack.extend(reversed(node.values()))
        else:
            yield node


Path = tuple[str, ...]
"""A place as a JSON Pointer has it: indexes are text too."""


def is_binding_of(value: JsonValue, bound: JsonValue, replaced: frozenset[Path], path: Path = ()) -> bool:
    """True when ``bound`` may be what ``value`` came to: the same wherever the plan says what stands there.

    What is at a path in ``replaced`` was replaced on purpose (a redaction), with whatever it holds.
    """
    stack: list[tuple[Path, Any, Any]] = [(path, value, bound)]
    while stack:
        here, wanted, got = stack.pop()
        if here in replaced:
            continue
        if isinstance(wanted, dict) and is_expression(wanted):
            expression = parse_expression(wanted)
            if isinstance(expression, LiteralValue) and not _same(expression.value, got, replaced, here):
                return False
        elif isinstance(wanted, dict):
            if not isinstance(got, dict) or got.keys() != wanted.keys():
                return False
            stack.extend(((*here, key), member, got[key]) for key, member in wanted.items())
        elif isinstance(wanted, list):
            if not isinstance(got, list) or len(got) != len(wanted):
                return False
            stack.extend(((*here, str(i)), a, b) for i, (a, b) in enumerate(zip(wanted, got, strict=True)))
        elif not same_json(wanted, got):
            return False
    return True


def _same(wanted: JsonValue, got: JsonValue, replaced: frozenset[Path], path: Path) -> bool:
    stack: list[tuple[Path, Any, Any]] = [(path, wanted, got)]
    while stack:
        here, one, other = stack.pop()
        if here in replaced:
            continue
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            stack.extend(((*here, key), one[key], other[key]) for key in one)
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            stack.extend(((*here, str(i)), a, b) for i, (a, b) in enumerate(zip(one, other, strict=True)))
        elif not same_json(one, other):
            return False
    return True


def is_replaced(path: Path, value: JsonValue, replaced: frozenset[Path]) -> bool:
    """True when everything at the path was replaced: itself, what it stands in, or every text and number in it."""
    if any(path[:length] in replaced for length in range(1, len(path) + 1)):
        return True
    if not replaced or not isinstance(value, dict | list) or not value:
        return False
    stack: list[tuple[Path, JsonValue]] = [(path, value)]
    while stack:
        here, node = stack.pop()
        if here in replaced:
            continue
        if isinstance(node, dict):
            stack.extend(((*here, key), member) for key, member in node.items())
        elif isinstance(node, list):
            stack.extend(((*here, str(index)), member) for index, member in enumerate(node))
        elif node is not None and not isinstance(node, bool):
            return False
    return True


def at_place(value: JsonValue, place: Iterable[str | int]) -> JsonValue:
    """What stands at a place of a bound value; None where there is nothing."""
    for token in place:
        if isinstance(value, dict) and isinstance(token, str):
            value = value.get(token)
        elif isinstance(value, list) and isinstance(token, int) and token < len(value):
            value = value[token]
        else:
            return None
    return value


@lru_cache(maxsize=8_192)
def pointer_to(place: tuple[str | int, ...]) -> str:
    """The JSON Pointer of a place."""
    return "".join([f"/{str(token).replace('~', '~0').replace('/', '~1')}" for token in place])
