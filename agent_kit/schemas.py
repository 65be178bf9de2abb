"""JSON Schema 2020-12 as the kit uses it: compiled once, formats asserted, every finding with its place."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from functools import cached_property
from itertools import islice
from typing import Any

from engine.domain.base import JsonObject, JsonValue
from engine.domain.errors import Violation
from engine.domain.meta_schema import schema_validator
from engine.domain.strict_json import escape_token

_MAX_REPORTED = 50


class CompiledSchema:
    """One schema. ``ValueError`` when it is not a valid schema itself. References to other documents are not resolved."""

    def __init__(self, schema: JsonObject) -> None:
        self._schema = schema

    @cached_property
    def _validator(self) -> Any:
        # Imported when the first call comes: compiling is a part of the start-up time nobody needs to wait for.
        from jsonschema import Draft202012Validator, FormatChecker
        from jsonschema.exceptions import best_match

        checker = FormatChecker(formats=())
        checker.checks("date", raises=ValueError)(_is_date)
        checker.checks("date-time", raises=ValueError)(_is_date_time)
        fault = best_match(schema_validator().iter_errors(self._schema))
        if fault is not None:
            raise ValueError(f"the schema is none at {fault.json_path}: {fault.message[:300]}")
        return Draft202012Validator(self._schema, format_checker=checker)

    def compile(self) -> None:
        """Compile now what would otherwise be compiled on first use."""
        _ = self._validator

    def violations(self, value: JsonValue, *, code: str) -> tuple[Violation, ...]:
        """Everything wrong with ``value``, at most 50 findings. Messages name the rule that was broken, never the value."""
        found = islice(self._validator.iter_errors(value), _MAX_REPORTED)
        return tuple(Violation(code=code, pointer=pointer(error.path), message=_message(error)) for error in found)


def pointer(path: Iterable[str | int]) -> str:
    """The JSON Pointer of a place, cut where it gets longer than anybody reads."""
    return "".join(f"/{escape_token(str(token))}" for token in path)[:1_000]


def _message(error: Any) -> str:
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return f"required is missing: {', '.join(missing)}"
    if error.validator == "additionalProperties":
        return "a member is not allowed here"
    return f"{error.validator} is not satisfied: {str(error.validator_value)[:200]}"


def _is_date(value: object) -> bool:
    return not isinstance(value, str) or (len(value) == 10 and date.fromisoformat(value) is not None)


def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None
