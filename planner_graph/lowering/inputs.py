"""The inputs object of a call, put together from a proposal's list of named values.

A name is a parameter, or a JSON Pointer to a part of one (``/filter/from``): so a reference can stand inside an object or an
array without the proposal nesting. Siblings named 0, 1, 2 … without a gap make an array, anything else an object.
"""

from __future__ import annotations

from typing import Any

from engine.domain.base import JsonObject, JsonValue
from engine.plan.pointers import array_index, parse_pointer
from planner_graph.lowering.proposal import ProposedInput
from planner_graph.lowering.values import Faulty, Read, literal, reference, template

_MAX_PATH = 8


def read_input(proposed: ProposedInput) -> Read | Faulty:
    """The value of one proposed input in the plan language."""
    if proposed.default is not None and proposed.kind != "ref":
        return Faulty("proposal.reference", "only a reference has a default")
    match proposed.kind:
        case "literal":
            return literal(proposed.value)
        case "ref":
            return reference(proposed.value, proposed.default)
        case "template":
            return template(proposed.value)


class _Branch(dict[str, Any]):
    """An object that is still being put together, as against a value that was given whole."""


class InputBox:
    """Collects values by name; each place is filled once."""

    def __init__(self) -> None:
        self._root = _Branch()

    def put(self, name: str, value: JsonValue) -> tuple[str, ...] | Faulty:
        """Put a value where ``name`` says; returns the path it has in the inputs."""
        path = parse_pointer(name) if name.startswith("/") else (name,)
        if not path or not path[0] or len(path) > _MAX_PATH or any(token.startswith("$") for token in path):
            return Faulty("proposal.input_name", "a name is a parameter, or a JSON Pointer to a part of one")
        branch = self._root
        for token in path[:-1]:
            found = branch.setdefault(token, _Branch())
            if not isinstance(found, _Branch):
                return Faulty("proposal.duplicate_input", "a part of this was given whole before")
            branch = found
        if path[-1] in branch:
            return Faulty("proposal.duplicate_input", "this was given before")
        branch[path[-1]] = value
        return path

    def content(self) -> JsonObject:
        """The inputs."""
        return {name: _settled(value) for name, value in self._root.items()}


def _settled(value: Any) -> JsonValue:
    if not isinstance(value, _Branch):
        return value
    members = {name: _settled(member) for name, member in value.items()}
    indexes = sorted(index for name in members if (index := array_index(name)) is not None)
    if indexes == list(range(len(members))):
        return [members[str(index)] for index in indexes]
    return members
