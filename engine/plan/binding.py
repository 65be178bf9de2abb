"""From references to values, once the steps they name are done: inputs, maps and waits of one step.

A value that is put in is never looked at again: text that happens to read ``{name}`` or an output that holds
``{"$ref": …}`` stays what it is. What comes out is bounded in size and depth. Expected trouble is an ``Unbound`` value, not
an exception.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from engine.domain.base import JsonObject, JsonValue
from engine.domain.execute import MAX_REQUEST_BYTES
from engine.domain.plan import MAX_WAIT_S, Step
from engine.domain.strict_json import Place, pointer_of
from engine.domain.tenant import PLATFORM_MAX_ITEMS, PLATFORM_MAX_JSON_DEPTH
from engine.plan.expressions import (
    LiteralValue,
    Malformed,
    Reference,
    Template,
    is_expression,
    parse_expression,
)
from engine.plan.instants import parse_instant
from engine.plan.pointers import Nowhere, resolve

Reason = Literal["skipped", "missing", "invalid"]


class Absent:
    """The type of ``ABSENT``: no output (the step was skipped or failed), or no item."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class BindingEnvironment:
    """What expressions are evaluated in.

    ``run`` is ``{"intent", "goals", "context": {"values", "documents"}}``. ``outputs`` has the output of every referenced step;
    one that is not there or ``ABSENT`` was skipped or failed. ``item`` is the element a map is at. The values are not changed.
    """

    run: JsonObject
    outputs: Mapping[str, Any]
    item: Any = ABSENT
    max_bytes: int = MAX_REQUEST_BYTES
    """Most bytes of JSON the bound inputs may have."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Inputs with every reference replaced by its value."""

    inputs: JsonObject


@dataclass(frozen=True, slots=True)
class Unbound:
    """Why a value does not come together. ``pointer`` is relative to the step.

    ``skipped``: it refers, without a default, to a step that has no output, so this step is skipped too. ``missing``: the pointer
    leads nowhere in a value that is there. ``invalid``: the value is of the wrong type or too large.
    """

    code: str
    pointer: str
    reason: Reason
    message: str
    step_id: str | None = None
    """The step whose output is not there."""


class _UnboundError(Exception):
    """Carries an ``Unbound`` out of the depth of a value."""

    def __init__(self, unbound: Unbound) -> None:
        super().__init__(unbound.code)
        self.unbound = unbound


def bind_inputs(step: Step, environment: BindingEnvironment) -> Bound | Unbound:
    """The inputs of a capability call, for the item of the environment if there is one. Other steps have empty inputs.

    Codes: ``bind.no_output`` (skipped); ``bind.missing`` (missing); ``bind.template_type``, ``bind.too_large``,
    ``bind.too_deep``, ``bind.expression`` (invalid). Whether the values fit the capability is asked next: ``validate_inputs``.
    """
    try:
        return Bound(_Binder(environment).bind(step.inputs, (None, "inputs")))
    except _UnboundError as error:
        return error.unbound


def bind_compensation(step: Step, output: JsonValue, environment: BindingEnvironment) -> Bound | Unbound:
    """The inputs of ``compensate_with``, which may refer to the ``output`` of the step itself. Codes as ``bind_inputs``."""
    assert step.compensate_with is not None
    outputs = {**environment.outputs, step.id: output}
    own = BindingEnvironment(environment.run, outputs, environment.item, environment.max_bytes)
    place: Place = ((None, "compensate_with"), "inputs")
    try:
        return Bound(_Binder(own).bind(step.compensate_with.inputs, place))
    except _UnboundError as error:
        return error.unbound


def bind_for_each(step: Step, environment: BindingEnvironment) -> list[JsonValue] | Unbound:
    """The elements a ``for_each`` step goes over: at most ``max_items`` of them, and at most the platform's 10,000.

    Codes: those of ``bind_inputs``, ``bind.not_array`` and ``bind.too_many_items`` (invalid). The tenant's bound is the
    caller's to keep.
    """
    place: Place = (None, "for_each")
    value = bind_value(step.for_each, place, environment)
    if isinstance(value, Unbound):
        return value
    if not isinstance(value, list):
        return invalid("bind.not_array", place, "'for_each' goes over an array, and this is none")
    limit = min(step.max_items or PLATFORM_MAX_ITEMS, PLATFORM_MAX_ITEMS)
    if len(value) > limit:
        return invalid("bind.too_many_items", place, f"{len(value)} items are more than the {limit} allowed")
    return value


def bind_wait(step: Step, environment: BindingEnvironment, now: datetime) -> datetime | Unbound:
    """When a ``wait`` step is over, in UTC. ``for_s`` counts from ``now``, so ask once and keep the answer.

    An instant in the past is an answer too. Codes: those of ``bind_inputs``; ``bind.wait_invalid`` when it is no RFC 3339
    instant, no number of seconds from 0 to 30 days, or an instant more than 30 days ahead.
    """
    assert step.wait is not None
    name = next(iter(step.wait.model_fields_set))
    place: Place = ((None, "wait"), name)
    value = bind_value(getattr(step.wait, name), place, environment)
    if isinstance(value, Unbound):
        return value
    latest = now.astimezone(UTC) + timedelta(seconds=MAX_WAIT_S)
    if name == "until":
        instant = parse_instant(value) if isinstance(value, str) else None
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_WAIT_S:
        instant = now.astimezone(UTC) + timedelta(seconds=value)
    else:
        instant = None
    if instant is None or instant > latest:
        return invalid(
            "bind.wait_invalid", place, f"{name!r} gives no time within the next {MAX_WAIT_S // 86_400} days"
        )
    return instant


def bind_value(value: JsonValue, place: Place, environment: BindingEnvironment) -> JsonValue | Unbound:
    """One value with every reference replaced. A mere reference is handed on whatever its size: nothing is copied."""
    try:
        expression = parse_expression(value) if is_expression(value) else None
        if isinstance(expression, Reference):
            return _value_of(expression, place, environment)
        return _Binder(environment).bind(value, place)
    except _UnboundError as error:
        return error.unbound


def referenced_steps(step: Step) -> tuple[str, ...]:
    """The ids of the steps whose outputs binding this step may ask for, sorted. Without those of its compensation."""
    values: list[JsonValue] = [step.inputs, step.for_each]
    if step.when is not None:
        values += [step.when.left, step.when.right]
    if step.wait is not None:
        values += [step.wait.until, step.wait.for_s]
    return tuple(sorted({reference.step_id for reference in _references(values) if reference.source == "step"}))


def _references(values: Iterable[JsonValue]) -> Iterator[Reference]:
    stack = list(values)
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            expression = parse_expression(node) if is_expression(node) else None
            if isinstance(expression, Reference):
                yield expression
            elif isinstance(expression, Template):
                stack.extend(expression.values.values())
            elif expression is None:
                stack.extend(node.values())


def invalid(code: str, place: Place, message: str) -> Unbound:
    """An ``Unbound`` for a value of the wrong type or size."""
    return Unbound(code, pointer_of(place), "invalid", message)


def lookup(reference: Reference, environment: BindingEnvironment) -> JsonValue | Nowhere | Absent:
    """What a reference leads to, defaults aside: a value, ``NOWHERE``, or ``ABSENT`` when the whole output or item is."""
    if reference.source == "run":
        return resolve(environment.run, reference.tokens)
    root = environment.item if reference.source == "item" else environment.outputs.get(reference.step_id, ABSENT)
    return ABSENT if root is ABSENT else resolve(root, reference.tokens)


def _value_of(reference: Reference, place: Place, environment: BindingEnvironment) -> JsonValue:
    value = lookup(reference, environment)
    if not isinstance(value, Nowhere | Absent):
        return value
    if reference.has_default:
        return reference.default
    if isinstance(value, Nowhere):
        message = "the reference leads to nothing in the value it points into"
        raise _UnboundError(Unbound("bind.missing", pointer_of(place), "missing", message, reference.step_id or None))
    if reference.source == "item":
        raise _UnboundError(Unbound("bind.missing", pointer_of(place), "missing", "there is no item here"))
    message = f"step {reference.step_id!r} has no output: it was skipped or failed"
    raise _UnboundError(Unbound("bind.no_output", pointer_of(place), "skipped", message, reference.step_id))


@dataclass(slots=True)
class _Binder:
    """Binds one value and keeps count of what it puts in: shared outputs could multiply beyond any document."""

    environment: BindingEnvironment
    _spent_bytes: int = 0
    _measures: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Size and depth of shared values by identity; they outlive the binder."""

    def bind(self, value: JsonValue, place: Place) -> Any:
        return self._bind(value, place, 1)

    def _bind(self, value: JsonValue, place: Place, depth: int) -> Any:
        if isinstance(value, list):
            self._spend(2 + len(value), place)
            return [self._bind(element, (place, index), depth + 1) for index, element in enumerate(value)]
        if not isinstance(value, dict):
            return self._put(value, place, depth)
        if not is_expression(value):
            self._spend(2 + sum(len(key) + 4 for key in value), place)
            return {key: self._bind(member, (place, key), depth + 1) for key, member in value.items()}
        expression = parse_expression(value)
        if isinstance(expression, LiteralValue):
            return self._put(expression.value, place, depth)
        if isinstance(expression, Reference):
            return self._put(_value_of(expression, place, self.environment), place, depth)
        if isinstance(expression, Template):
            return self._fill(expression, place)
        assert isinstance(expression, Malformed)
        raise _UnboundError(invalid("bind.expression", (place, expression.member), expression.message))

    def _fill(self, template: Template, place: Place) -> str:
        """The text: strings as they are, numbers and booleans as JSON writes them, nothing else."""
        pieces: list[str] = []
        for text, name in template.parts:
            pieces.append(text)
            if name is not None:
                here = (place, name)
                value = self._bind(template.values[name], here, 1)
                if value is None or isinstance(value, dict | list):
                    message = "only text, numbers and booleans go into a template"
                    raise _UnboundError(invalid("bind.template_type", here, message))
                pieces.append(value if isinstance(value, str) else json.dumps(value))
            self._spend(len(text), place)
        return "".join(pieces)

    def _put(self, value: JsonValue, place: Place, depth: int) -> JsonValue:
        """Account for a value that is taken over as it stands."""
        if isinstance(value, dict | list):
            if id(value) not in self._measures:
                self._measures[id(value)] = (_size(value), depth_of(value))
            size, own_depth = self._measures[id(value)]
            if depth - 1 + own_depth > PLATFORM_MAX_JSON_DEPTH:
                message = f"the value would be more than {PLATFORM_MAX_JSON_DEPTH} levels deep"
                raise _UnboundError(invalid("bind.too_deep", place, message))
        else:
            size = _size(value)
        self._spend(size, place)
        return value

    def _spend(self, size: int, place: Place) -> None:
        self._spent_bytes += size
        if self._spent_bytes > self.environment.max_bytes:
            message = f"with its references replaced the value has more than {self.environment.max_bytes} bytes"
            raise _UnboundError(invalid("bind.too_large", place, message))


def _size(value: JsonValue) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def depth_of(value: JsonValue) -> int:
    """How many arrays and objects stand inside one another; 0 for a scalar. Iterative."""
    deepest = 0
    stack = [(value, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, dict | list):
            deepest = max(deepest, depth)
            stack.extend((child, depth + 1) for child in (node.values() if isinstance(node, dict) else node))
    return deepest
