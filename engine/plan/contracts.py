"""Holding inputs and outputs to a capability's JSON Schemas: at check time with holes, at run time with bound values.

Validators are compiled once per schema and kept. Messages speak of the schema, never of the value, because values may be
personal or secret. Nothing is fetched: a ``$ref`` that leads out of the manifest makes the manifest broken.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from engine.domain.base import JsonObject, JsonValue
from engine.domain.capability import Capability
from engine.domain.errors import Violation
from engine.domain.meta_schema import DIALECT, schema_validator
from engine.domain.strict_json import Place, pointer_of
from engine.domain.tenant import PLATFORM_MAX_JSON_DEPTH
from engine.plan.holes import Hole, validator_class
from engine.plan.schema_view import describe_atoms, describe_expected

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

Side = Literal["input", "output"]
MAX_REPORTED = 50
MAX_NAME_CHARS = 1_000
_CACHED_VALIDATORS = 2_048

_KINDS = {
    "required": "missing",
    "additionalProperties": "unknown",
    "unevaluatedProperties": "unknown",
    "enum": "enum",
    "const": "enum",
    "type": "type",
    None: "unknown",
}


class BrokenSchemaError(ValueError):
    """A manifest's schema is not a valid, self-contained JSON Schema."""


class _Validators:
    """Compiled validators by capability, version and side; at most ``_CACHED_VALIDATORS``, oldest use dropped first.

    An entry counts only for the very schema it was compiled from: two catalogs may name different things alike.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str, Side], tuple[JsonObject, Any]] = OrderedDict()
        self._lock = Lock()

    def get(self, capability: Capability, side: Side) -> Any:
        schema = capability.input_schema if side == "input" else capability.output_schema
        key = (capability.name, capability.version, side)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and (entry[0] is schema or entry[0] == schema):
                self._entries.move_to_end(key)
                return entry[1]
        validator = compile_schema(schema)
        with self._lock:
            self._entries[key] = (schema, validator)
            if len(self._entries) > _CACHED_VALIDATORS:
                self._entries.popitem(last=False)
        return validator


_VALIDATORS = _Validators()


def compile_schema(schema: JsonObject) -> Any:
    """A validator for a JSON Schema 2020-12 object. Raises ``BrokenSchemaError``."""
    from jsonschema.exceptions import best_match
    from referencing import Registry

    kind = validator_class()
    if schema.get("$schema", DIALECT) not in (DIALECT, DIALECT + "#"):
        raise BrokenSchemaError(f"it is not written for {DIALECT}")
    fault = best_match(schema_validator().iter_errors(schema))
    if fault is not None:
        raise BrokenSchemaError(f"at {'/'.join(map(str, fault.absolute_path)) or 'its root'}")
    # With "$schema" at the root, a "$ref": "#" would leave this validator class for the stock one.
    own = {key: value for key, value in schema.items() if key != "$schema"}
    return kind(own, registry=Registry())


def schema_errors(capability: Capability, side: Side, instance: Any) -> list[ValidationError]:
    """At most ``MAX_REPORTED`` errors of ``instance``, which may have holes and must be of bounded depth.

    Raises ``BrokenSchemaError`` when the manifest's schema cannot be used.
    """
    from referencing.exceptions import Unresolvable

    validator = _VALIDATORS.get(capability, side)
    try:
        return list(islice(validator.iter_errors(instance), MAX_REPORTED))
    except Unresolvable:
        raise BrokenSchemaError("it refers to a schema outside the manifest") from None
    except RecursionError:
        raise BrokenSchemaError("it refers to itself without end") from None


def kind_of(error: ValidationError) -> str:
    """The kind of an error: missing, unknown, enum, type or invalid."""
    return _KINDS.get(error.validator if isinstance(error.validator, str) else None, "invalid")


def message_of(error: ValidationError) -> str:
    """What is wrong, in words that speak of the schema only (and of member names)."""
    if isinstance(error.instance, Hole):
        return _hole_message(error, error.instance)
    keyword, expected = error.validator, error.validator_value
    if keyword == "required":
        return f"the member {error.message!r} is missing"
    if kind_of(error) == "unknown":
        return "the schema has no such member"
    if keyword == "pattern" or keyword == "format":
        return f"the text does not have the form the schema asks for: {describe_expected(keyword, expected)}"
    if keyword in ("anyOf", "oneOf", "not", "if", "contains", "allOf", "dependentSchemas"):
        return f"the value does not satisfy the schema's {keyword!r}"
    return f"the schema asks for {describe_expected(str(keyword), expected)}"


def _hole_message(error: ValidationError, hole: Hole) -> str:
    what = "the text of the template" if hole.is_text else "the value this reference leads to"
    if hole.trail:
        what += f", at {'/'.join(hole.trail)},"
    if error.validator == "type":
        expected = describe_expected("type", error.validator_value)
        return f"{what} is {describe_atoms(hole.view.atoms)}; the schema asks for {expected}"
    if error.validator in ("anyOf", "oneOf"):
        return f"{what} fits none of the schema's alternatives"
    if error.validator == "additionalProperties":
        return f"{what} has the member {error.message!r}, which the schema does not allow"
    if error.validator is None:
        return f"{what} is not allowed here at all"
    return f"{what} cannot satisfy {describe_expected(str(error.validator), error.validator_value)}"


def validate_inputs(capability: Capability, inputs: JsonObject) -> tuple[Violation, ...]:
    """What is wrong with bound inputs: codes ``input.missing|unknown|enum|type|invalid|too_deep|schema_broken``.

    Pointers are relative to the inputs. Empty when they fit. At most 50 are returned.
    """
    return _validate(capability, "input", inputs)


def validate_output(capability: Capability, output: JsonValue) -> tuple[Violation, ...]:
    """What is wrong with an output: as ``validate_inputs``, with ``output.…`` codes and pointers relative to the output."""
    return _validate(capability, "output", output)


def _validate(capability: Capability, side: Side, value: JsonValue) -> tuple[Violation, ...]:
    refused = next(_unfit(value), None)
    if refused is not None:
        place, kind, message = refused
        return (Violation(code=f"{side}.{kind}", pointer=pointer_of(place), message=message),)
    try:
        errors = schema_errors(capability, side, value)
    except BrokenSchemaError as error:
        message = f"the {side} schema of {capability.name} cannot be used: {error}"
        return (Violation(code=f"{side}.schema_broken", pointer="", message=message),)
    return tuple(
        Violation(code=f"{side}.{kind_of(error)}", pointer=path_pointer(error.absolute_path), message=message_of(error))
        for error in errors
    )


def _unfit(value: JsonValue) -> Iterator[tuple[Place, str, str]]:
    """What must not reach the validator: it recurses with depth, and patterns are tried on member names."""
    stack: list[tuple[Place, JsonValue, int]] = [(None, value, 1)]
    while stack:
        place, node, depth = stack.pop()
        if not isinstance(node, dict | list):
            continue
        if depth > PLATFORM_MAX_JSON_DEPTH:
            yield place, "too_deep", f"the value is more than {PLATFORM_MAX_JSON_DEPTH} levels deep"
        elif isinstance(node, list):
            stack.extend(((place, index), element, depth + 1) for index, element in enumerate(node))
        else:
            if any(len(key) > MAX_NAME_CHARS for key in node):
                yield place, "invalid", f"a member name is longer than {MAX_NAME_CHARS} characters"
            stack.extend(((place, key), member, depth + 1) for key, member in node.items())


def path_pointer(path: Iterable[str | int]) -> str:
    """The JSON Pointer of a path of member names and indexes."""
    place: Place = None
    for token in path:
        place = (place, token)
    return pointer_of(place)
