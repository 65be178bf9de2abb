"""Reading the values of a plan in their context: which step may refer to what, what comes of it, and which edges that makes.

``Reader.read`` goes through a value once. It checks every expression, notes the edges, and returns the value with holes where
references and templates stand, ready for the schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.domain.base import JsonValue
from engine.domain.capability import Capability
from engine.domain.strict_json import Place
from engine.plan.contracts import MAX_NAME_CHARS
from engine.plan.documents import Entry, Outline
from engine.plan.expressions import (
    NO_DEFAULT,
    LiteralValue,
    Malformed,
    Reference,
    Template,
    is_expression,
    parse_expression,
)
from engine.plan.findings import Findings
from engine.plan.holes import Hole, HoledDict, HoledList, has_hole
from engine.plan.schema_view import (
    ANYTHING,
    Atom,
    View,
    array_of,
    atom_of_value,
    describe_atoms,
    view_of_schema,
)
from engine.ports.catalog import Catalog

TEXT = view_of_schema({"type": "string"})
_INSERTABLE: frozenset[Atom] = frozenset({"string", "integer", "fraction", "boolean"})
_STRINGS = {"type": "array", "items": {"type": "string"}}
_DOCUMENT = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "text": {"type": "string"}},
    "required": ["name", "text"],
    "additionalProperties": False,
}
RUN_VALUES: dict[tuple[str, ...], View] = {
    ("intent",): view_of_schema({"type": "string"}),
    ("goals",): view_of_schema(_STRINGS),
    ("context", "values"): view_of_schema({"type": "object"}),
    ("context", "documents"): view_of_schema({"type": "array", "items": _DOCUMENT}),
}
"""What ``run#`` offers. The roots are these four, because each has one label of trust and a mixture would have none."""

WAIT_OUTPUT = view_of_schema(
    {
        "type": "object",
        "properties": {"until": {"type": "string"}},
        "required": ["until"],
        "additionalProperties": False,
    }
)
"""What a ``wait`` step leaves behind: the instant it was over, RFC 3339 in UTC."""

APPROVAL_OUTPUT = view_of_schema(
    {
        "type": "object",
        "properties": {"approved": {"const": True}, "by": {"type": "string"}, "at": {"type": "string"}},
        "required": ["approved", "by", "at"],
        "additionalProperties": False,
    }
)
"""What a granted ``approval`` step leaves behind: whose answer it was, and when."""


@dataclass(slots=True)
class Dependency:
    """An edge to another step: where it is first seen, whether ``needs`` names it, and what its references can do without."""

    place: Place
    declared: bool = False
    referenced: bool = False
    can_do_without: bool = True


class DefaultedHole(Hole):
    """A hole whose reference has a default, which must fit as well."""

    __slots__ = ("default",)

    def __init__(self, view: View, default: JsonValue) -> None:
        super().__init__(view)
        self.default = default


@dataclass(frozen=True, slots=True)
class Reading:
    """How a value is read: whose it is, and what it may refer to."""

    entry: Entry
    item: View | None = None
    """What ``item#`` is; None where there is no item."""
    itself: bool = False
    """Compensations may refer to the output of their own step."""
    tolerant: bool = False
    """``exists`` asks about a reference and lives without it."""


class Reader:
    """Reads the values of one plan. ``edges[i]`` maps the index of each step that step ``i`` comes after to the edge."""

    def __init__(self, outline: Outline, catalog: Catalog, findings: Findings) -> None:
        self._outline = outline
        self._catalog = catalog
        self._findings = findings
        self._views: dict[str, View] = {}
        self.edges: list[dict[int, Dependency]] = [{} for _ in outline.entries]
        self.literals: set[tuple[str | int, ...]] = set()
        """Paths, below the value read last, where ``$literal`` was unwrapped."""

    def capability(self, name: str | None) -> Capability | None:
        """The manifest of this name, if there is one."""
        return self._catalog.capabilities.get(name) if name is not None else None

    def output_of(self, entry: Entry) -> View:
        """What is known of a step's output. A ``for_each`` step gives the array of its outputs."""
        if entry.step is None:
            return ANYTHING
        if entry.step.wait is not None:
            return WAIT_OUTPUT
        if entry.step.approval is not None:
            return APPROVAL_OUTPUT
        view = self._output_view(entry.step.capability)
        return array_of(view) if entry.step.is_map else view

    def _output_view(self, name: str | None) -> View:
        if name is None:  # the model says that a step is one of the three kinds
            return ANYTHING
        if name not in self._views:
            capability = self.capability(name)
            self._views[name] = view_of_schema(capability.output_schema) if capability else ANYTHING
        return self._views[name]

    def declare(self, entry: Entry, place: Place, step_id: str) -> None:
        """Note an edge of ``needs``."""
        index = self._find(entry, place, step_id)
        if index is not None:
            self._edge(entry, index, place).declared = True

    def read(self, value: JsonValue, place: Place, reading: Reading) -> Any:
        """The value with holes. Its ``$literal`` places are in ``literals`` until the next call."""
        self.literals = set()
        return self._read(value, place, (), reading)

    def _read(self, value: JsonValue, place: Place, path: tuple[str | int, ...], reading: Reading) -> Any:
        if isinstance(value, list):
            elements = [
                self._read(element, (place, index), (*path, index), reading) for index, element in enumerate(value)
            ]
            return HoledList(elements) if any(map(has_hole, elements)) else elements
        if not isinstance(value, dict):
            return value
        if any(len(key) > MAX_NAME_CHARS for key in value):
            self._findings.error("plan.schema", place, f"a member name is longer than {MAX_NAME_CHARS} characters")
            return Hole(ANYTHING)
        if not is_expression(value):
            members = {key: self._read(member, (place, key), (*path, key), reading) for key, member in value.items()}
            return HoledDict(members) if any(map(has_hole, members.values())) else members
        expression = parse_expression(value)
        if isinstance(expression, LiteralValue):
            self.literals.add(path)
            return expression.value
        if isinstance(expression, Malformed):
            self._findings.error(expression.code, (place, expression.member), expression.message)
            return Hole(ANYTHING)
        if isinstance(expression, Template):
            return self._read_template(expression, place, path, reading)
        return self._read_reference(expression, place, reading)

    def _read_template(self, template: Template, place: Place, path: tuple[str | int, ...], reading: Reading) -> Hole:
        used = {name for _, name in template.parts if name is not None}
        for name, value in template.values.items():
            here = (place, name)
            if name not in used:
                self._findings.warn("plan.template_unused", here, "the template does not name this value")
            atoms = atoms_of(self._read(value, here, (*path, name), reading))
            if not atoms & _INSERTABLE:
                message = f"this is {describe_atoms(atoms)}; only text, numbers and booleans go into a template"
                self._findings.error("plan.template_type", here, message)
        return Hole(TEXT, is_text=True)

    def _read_reference(self, reference: Reference, place: Place, reading: Reading) -> Hole:
        if reference.has_default and holds_expression(reference.default):
            message = "a default is taken as it stands; nothing in it is looked up"
            self._findings.error("plan.expression", (place, "default"), message)
        view = self._lead(reference, (place, "$ref"), reading)
        return DefaultedHole(view, reference.default) if reference.default is not NO_DEFAULT else Hole(view)

    def _lead(self, reference: Reference, place: Place, reading: Reading) -> View:
        match reference.source:
            case "run":
                return self._run_value(reference, place)
            case "item":
                if reading.item is None:
                    message = "'item#' has a meaning only in the inputs of a step with 'for_each'"
                    self._findings.error("plan.item_outside_for_each", place, message)
                    return ANYTHING
                return self._part(reading.item, reference, place, "an element of 'for_each'")
            case "step":
                return self._step_output(reference, place, reading)

    def _run_value(self, reference: Reference, place: Place) -> View:
        for root, view in RUN_VALUES.items():
            if reference.tokens[: len(root)] == root:
                below = view.at(reference.tokens[len(root) :])
                if below is not None:
                    return below
        message = "a run offers intent, goals, context/values and context/documents, and nothing like this"
        self._findings.error("plan.unknown_run_value", place, message)
        return ANYTHING

    def _step_output(self, reference: Reference, place: Place, reading: Reading) -> View:
        index = self._find(reading.entry, place, reference.step_id, itself=reading.itself)
        if index is None:
            return ANYTHING
        if index != reading.entry.index:
            edge = self._edge(reading.entry, index, place)
            edge.referenced = True
            edge.can_do_without &= reference.has_default or reading.tolerant
        view = self.output_of(self._outline.entries[index])
        return self._part(view, reference, place, f"the output of {reference.step_id!r}")

    def _part(self, view: View, reference: Reference, place: Place, whose: str) -> View:
        part = view.at(reference.tokens)
        if part is None:
            self._findings.error("plan.unknown_output", place, f"{whose} has no such part")
            return ANYTHING
        return part

    def _find(self, entry: Entry, place: Place, step_id: str, *, itself: bool = False) -> int | None:
        index = self._outline.index_of.get(step_id)
        if index is None:
            self._findings.error("plan.unknown_reference", place, f"there is no step {step_id!r}")
        elif step_id == entry.step_id and not itself:
            self._findings.error("plan.self_reference", place, "a step cannot wait for itself")
            return None
        return index

    def _edge(self, entry: Entry, index: int, place: Place) -> Dependency:
        return self.edges[entry.index].setdefault(index, Dependency(place))


def holds_expression(value: JsonValue) -> bool:
    """True when anything in the value looks like an expression."""
    stack = [value]
    while stack:
        node = stack.pop()
        if is_expression(node):
            return True
        if isinstance(node, dict):
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return False


def atoms_of(value: Any) -> frozenset[Atom]:
    """The types a value that was read can have."""
    if isinstance(value, DefaultedHole):
        return value.view.atoms | {atom_of_value(value.default)}
    if isinstance(value, Hole):
        return value.view.atoms
    return frozenset({atom_of_value(value)})


def with_defaults(value: Any) -> Any:
    """The value as it is when every reference that has a default falls back on it; other holes stay."""
    if isinstance(value, DefaultedHole):
        return value.default
    if isinstance(value, HoledDict):
        members = {key: with_defaults(member) for key, member in value.items()}
        return HoledDict(members) if any(map(has_hole, members.values())) else members
    if isinstance(value, HoledList):
        elements = list(map(with_defaults, value))
        return HoledList(elements) if any(map(has_hole, elements)) else elements
    return value


def default_paths(value: Any) -> set[tuple[str | int, ...]]:
    """The paths below a read value where defaults stand."""
    found: set[tuple[str | int, ...]] = set()
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, node = stack.pop()
        if isinstance(node, DefaultedHole):
            found.add(path)
        elif isinstance(node, HoledDict):
            stack.extend(((*path, key), member) for key, member in node.items())
        elif isinstance(node, HoledList):
            stack.extend(((*path, index), element) for index, element in enumerate(node))
    return found
