"""ASP.NET route templates: parsing, matching, precedence. Pure.

Served: `{x}`, `{x?}`, `{x=default}`, `{*rest}`, `{**rest}`, several parameters in one segment, the inline constraints
below, `{{` and `}}`, case-insensitive literals. Not served (refused at load): constraints of the app's own making.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from local_host.errors import HostError

Check = Callable[[str], bool]
_PARAMETER = re.compile(r"^(?P<star>\*{0,2})(?P<name>[^:=?*/{}]+)(?P<rest>.*)$")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `{…}`; `checks` are its constraints."""

    name: str
    optional: bool = False
    catch_all: bool = False
    default: str | None = None
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """One path segment: compiled patterns over the decoded segment, tried in order, and its parameters.

    There is a second pattern only for `{name}.{ext?}`, where the dot is optional together with its parameter.
    """

    patterns: tuple[re.Pattern[str], ...]
    parameters: tuple[Parameter, ...]

    @property
    def rank(self) -> int:
        """ASP.NET's precedence digit: literal, constrained or composite parameter, parameter, catch-all."""
        if not self.parameters:
            return 1
        catch_all = self.parameters[0].catch_all
        constrained = any(parameter.checks for parameter in self.parameters) or len(self.parameters) > 1
        return (5 if catch_all else 3) - (1 if constrained else 0)


@dataclass(frozen=True, slots=True)
class RouteTemplate:
    """A parsed template; build it with `parse_template`."""

    text: str
    segments: tuple[Segment, ...]

    @property
    def precedence(self) -> tuple[int, ...]:
        """Sort key: smaller is tried first."""
        return tuple(segment.rank for segment in self.segments)

    def match(self, path: tuple[str, ...]) -> dict[str, str] | None:
        """Route values of `path` (decoded segments, no empty ones), or None."""
        values: dict[str, str] = {}
        for index, segment in enumerate(self.segments):
            only = segment.parameters[0] if len(segment.parameters) == 1 else None
            if only is not None and only.catch_all:
                return self._finish(values, only, "/".join(path[index:]))
            if index >= len(path):
                if only is None or not (only.optional or only.default is not None):
                    return None
                if only.default is not None:
                    values[only.name] = only.default
                continue
            if not any(_take(segment, pattern.fullmatch(path[index]), values) for pattern in segment.patterns):
                return None
        return values if len(path) <= len(self.segments) else None

    @staticmethod
    def _finish(values: dict[str, str], parameter: Parameter, rest: str) -> dict[str, str] | None:
        if not rest:
            if parameter.default is not None:
                values[parameter.name] = parameter.default
            return values
        if not all(check(rest) for check in parameter.checks):
            return None
        values[parameter.name] = rest
        return values


def _take(segment: Segment, found: re.Match[str] | None, values: dict[str, str]) -> bool:
    if found is None:
        return False
    groups = found.groupdict()
    for number, parameter in enumerate(segment.parameters):
        value = groups.get(f"p{number}")
        if value is None:
            continue
        if not all(check(value) for check in parameter.checks):
            return False
        values[parameter.name] = value
    return True


def parse_template(text: str, *, where: str = "") -> RouteTemplate:
    """Parse a template without leading slash. Raises HostError `host.bad_route`."""
    try:
        parts = [part for part in text.split("/") if part] if "{" not in text else list(_split(text))
        segments = tuple(_parse_segment(part, last=index == len(parts) - 1) for index, part in enumerate(parts))
        names = [parameter.name.lower() for segment in segments for parameter in segment.parameters]
        if len(names) != len(set(names)):
            raise ValueError("a parameter name occurs twice")
    except ValueError as err:
        raise HostError("host.bad_route", f"route template {text!r}: {err}", where) from err
    return RouteTemplate(text, segments)


def _split(text: str) -> Iterator[str]:
    """Split at slashes outside braces (a regex constraint may contain one)."""
    depth, start = 0, 0
    for index, char in enumerate(text):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "/" and depth == 0:
            if index > start:
                yield text[start:index]
            start = index + 1
    if depth != 0:
        raise ValueError("braces do not match")
    if start < len(text):
        yield text[start:]


def _parse_segment(text: str, *, last: bool) -> Segment:
    pattern, shorter = "", None
    parameters: list[Parameter] = []
    pieces = list(_pieces(text))
    for index, (is_parameter, piece) in enumerate(pieces):
        if not is_parameter:
            pattern += re.escape(piece)
            continue
        if parameters and pieces[index - 1][0]:
            raise ValueError("two parameters need text between them")
        parameter = _parse_parameter(piece)
        if parameter.catch_all and not (last and len(pieces) == 1):
            raise ValueError("a catch-all parameter must be the whole last segment")
        if (parameter.optional or parameter.default is not None) and index != len(pieces) - 1:
            raise ValueError("an optional parameter must end its segment")
        group = f"(?P<p{len(parameters)}>.+)"
        if parameter.optional and pattern.endswith(r"\."):
            shorter = pattern[:-2]
        pattern += group
        parameters.append(parameter)
    texts = [pattern] if shorter is None else [pattern, shorter]
    return Segment(tuple(re.compile(text, re.IGNORECASE | re.DOTALL) for text in texts), tuple(parameters))


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """(is_parameter, text) pieces of one segment; doubled braces are literal ones."""
    literal, index = "", 0
    while index < len(text):
        if text[index : index + 2] in {"{{", "}}"}:
            literal += text[index]
            index += 2
        elif text[index] == "{":
            end = _closing(text, index)
            if literal:
                yield False, literal
                literal = ""
            yield True, text[index + 1 : end].replace("{{", "{").replace("}}", "}")
            index = end + 1
        elif text[index] == "}":
            raise ValueError("'}' without '{'")
        else:
            literal += text[index]
            index += 1
    if literal:
        yield False, literal


def _closing(text: str, start: int) -> int:
    index = start + 1
    while index < len(text):
        if text[index : index + 2] in {"{{", "}}"}:
            index += 2
        elif text[index] == "}":
            return index
        else:
            index += 1
    raise ValueError("'{' without '}'")


def _parse_parameter(text: str) -> Parameter:
    match = _PARAMETER.match(text.strip())
    if match is None:
        raise ValueError(f"{{{text}}} is not a parameter")
    rest, default = match.group("rest"), None
    optional = rest.endswith("?")
    if optional:
        rest = rest[:-1]
    if not rest.startswith(":") or "(" not in rest:
        rest, equals, value = rest.partition("=")
        default = value if equals else None
    if optional and (default is not None or match.group("star")):
        raise ValueError(f"{{{text}}} cannot be optional as well")
    checks = tuple(_constraint(part) for part in _constraints(rest))
    return Parameter(match.group("name").strip(), optional, bool(match.group("star")), default, checks)


def _constraints(text: str) -> Iterator[str]:
    """`:a:b(1,2)` → a, b(1,2); colons inside parentheses do not separate."""
    depth, current = 0, ""
    for char in text:
        if char == ":" and depth == 0:
            if current:
                yield current
            current = ""
            continue
        depth += {"(": 1, ")": -1}.get(char, 0)
        current += char
    if current:
        yield current


def _constraint(text: str) -> Check:
    name, _, arguments = text.partition("(")
    arguments = arguments.removesuffix(")")
    if name == "regex":
        compiled = re.compile(arguments, re.IGNORECASE)
        return lambda value: compiled.search(value) is not None
    simple = _SIMPLE.get(name)
    if simple is not None and not arguments:
        return simple
    numbers = [int(part) for part in arguments.split(",")] if arguments else []
    match name, numbers:
        case ("min", [low]):
            return lambda value: _is_integer(value, low, 2**63 - 1)
        case ("max", [high]):
            return lambda value: _is_integer(value, -(2**63), high)
        case ("range", [low, high]):
            return lambda value: _is_integer(value, low, high)
        case ("length", [size]):
            return lambda value: len(value) == size
        case ("length", [low, high]):
            return lambda value: low <= len(value) <= high
        case ("minlength", [low]):
            return lambda value: len(value) >= low
        case ("maxlength", [high]):
            return lambda value: len(value) <= high
    raise ValueError(f"unknown constraint {text!r}")


def _is_integer(value: str, low: int, high: int) -> bool:
    return re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", value) is not None and low <= int(value) <= high


def _is_number(value: str) -> bool:
    return re.fullmatch(r"\s*[+-]?([0-9,]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", value) is not None


def _is_decimal(value: str) -> bool:
    return re.fullmatch(r"\s*[+-]?([0-9,]+\.?[0-9]*|\.[0-9]+)\s*", value) is not None


def _is_guid(value: str) -> bool:
    try:
        uuid.UUID(value.strip().strip("{}()"))
    except ValueError:
        return False
    return True


def _is_datetime(value: str) -> bool:
    """The formats people put into URLs (ISO 8601, month/day/year); .NET accepts a few more."""
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return re.fullmatch(r"\d{1,2}/\d{1,2}/\d{4}( \d{1,2}:\d{2}(:\d{2})?( ?[AaPp][Mm])?)?", value) is not None
    return True


_SIMPLE: dict[str, Check] = {
    "int": lambda value: _is_integer(value, -(2**31), 2**31 - 1),
    "long": lambda value: _is_integer(value, -(2**63), 2**63 - 1),
    "bool": lambda value: value.strip().lower() in {"true", "false"},
    "alpha": lambda value: re.fullmatch(r"[a-zA-Z]*", value) is not None,
    "guid": _is_guid,
    "datetime": _is_datetime,
    "decimal": _is_decimal,
    "double": _is_number,
    "float": _is_number,
    "required": lambda value: bool(value),
    "file": lambda value: "." in value.rsplit("/", 1)[-1],
    "nonfile": lambda value: "." not in value.rsplit("/", 1)[-1],
}
