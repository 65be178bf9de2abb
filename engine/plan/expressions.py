"""Values that are not literal: ``{"$ref": …}``, ``{"$template": …}`` and ``{"$literal": …}`` inside inputs and conditions.

References are data, never string interpolation, so every data-flow edge can be read off the plan. An object with any member
that starts with ``$`` is an expression and must be exactly one of the three; anything else that looks like one is refused, so
that nothing is taken literally by accident. What ``$literal`` and ``default`` hold is never looked into.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from engine.domain.base import JsonValue
from engine.plan.pointers import parse_pointer

Source = Literal["run", "step", "item"]

_REF = re.compile(r"(?:(run)|(item)|steps\.([A-Za-z0-9._-]{1,100}))#(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class _Absent:
    """The type of ``NO_DEFAULT``: None is a default like any other."""

    __slots__ = ()


NO_DEFAULT = _Absent()


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed ``$ref``: whose value, and the pointer's tokens into it. ``step_id`` is set when ``source`` is ``step``."""

    source: Source
    step_id: str
    tokens: tuple[str, ...]
    default: Any = NO_DEFAULT

    @property
    def has_default(self) -> bool:
        """True when the reference says what to use when there is no value."""
        return self.default is not NO_DEFAULT


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed ``$template``: text pieces and names in turn, and the value expression of each name."""

    parts: tuple[tuple[str, str | None], ...]
    """(text, name that follows it or None at the end)"""
    values: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class LiteralValue:
    """A ``$literal``: its content as it stands."""

    value: JsonValue


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that looks like an expression and is none. ``member`` is the offending member of the object."""

    code: str
    member: str
    message: str


Expression = Reference | Template | LiteralValue | Malformed


def is_expression(value: JsonValue) -> bool:
    """True for an object with a member whose name starts with ``$``."""
    return isinstance(value, dict) and any(key.startswith("$") for key in value)


def parse_expression(value: dict[str, JsonValue]) -> Expression:
    """What an object for which ``is_expression`` holds means."""
    markers = sorted(key for key in value if key.startswith("$"))
    if len(markers) > 1 or markers[0] not in ("$ref", "$template", "$literal"):
        return Malformed(
            "plan.expression",
            markers[-1],
            "an expression has exactly one of '$ref', '$template' and '$literal'; wrap plain data in {\"$literal\": …}",
        )
    marker = markers[0]
    if marker == "$template":
        return _parse_template(value)
    allowed = {"$ref", "default"} if marker == "$ref" else {"$literal"}
    extra = sorted(value.keys() - allowed)
    if extra:
        return Malformed("plan.expression", extra[0], f"{marker!r} does not go with this member")
    return _parse_reference(value) if marker == "$ref" else LiteralValue(value["$literal"])


def _parse_reference(value: dict[str, JsonValue]) -> Reference | Malformed:
    text = value["$ref"]
    match = _REF.fullmatch(text) if isinstance(text, str) else None
    tokens = parse_pointer(match[4]) if match else None
    if match is None or tokens is None:
        return Malformed(
            "plan.expression",
            "$ref",
            "a reference is 'run#/pointer', 'steps.<id>#/pointer' or 'item#/pointer' with a JSON Pointer (RFC 6901)",
        )
    default = value.get("default", NO_DEFAULT)
    if match[1]:
        return Reference("run", "", tokens, default)
    if match[2]:
        return Reference("item", "", tokens, default)
    return Reference("step", match[3], tokens, default)


def _parse_template(value: dict[str, JsonValue]) -> Template | Malformed:
    text = value["$template"]
    if not isinstance(text, str):
        return Malformed("plan.expression", "$template", "a template is text")
    parts: list[tuple[str, str | None]] = []
    literal, end = "", 0
    for match in _FIELD.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[0] in ("{{", "}}"):
            literal += match[0][0]
            continue
        name = match[1]
        if name is None or not _NAME.fullmatch(name):
            return Malformed(
                "plan.expression", "$template", "a template has {name} for a value, '{{' and '}}' for braces"
            )
        if name not in value:
            return Malformed(
                "plan.template_name", "$template", f"the template names {{{name}}} and gives no value for it"
            )
        parts.append((literal, name))
        literal = ""
    parts.append((literal + text[end:], None))
    return Template(tuple(parts), {key: member for key, member in value.items() if key != "$template"})
