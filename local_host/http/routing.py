"""From request line to function: path decoding as Kestrel does it, route choice as the Functions host does it.

The host registers each method list as a route constraint, so a known route with another method is 404, never 405.
Literal segments win over parameters. The platform's host has, depending on its version, tried routes in order of
registration instead; `ambiguities` names the pairs where that could matter, so that they can be warned about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from local_host.http.templates import RouteTemplate, Segment, parse_template
from local_host.specs import FunctionSpec, HttpTrigger

_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_SLASH = re.compile(r"(%2[Ff])")


class BadPathError(ValueError):
    """The request path cannot be served by any server of the platform (400)."""


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP function's way in."""

    spec: FunctionSpec
    trigger: HttpTrigger
    template: RouteTemplate


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """A chosen route with its values."""

    route: Route
    values: Mapping[str, str]


class RouteTable:
    """All HTTP functions of an app, in the order in which they are tried."""

    def __init__(self, specs: Iterable[FunctionSpec], route_prefix: str) -> None:
        routes = []
        for spec in specs:
            if isinstance(spec.trigger, HttpTrigger):
                text = "/".join(part for part in (route_prefix, spec.trigger.route) if part)
                routes.append(Route(spec, spec.trigger, parse_template(text, where=spec.name)))
        self.routes = tuple(sorted(routes, key=lambda route: route.template.precedence))

    def find(self, method: str, path: str) -> RouteMatch | None:
        """The route for a method and a raw (percent-encoded) path; None means 404. Raises BadPathError."""
        segments = decode_path(path)
        for route in self.routes:
            if route.trigger.methods is None or method in route.trigger.methods:
                values = route.template.match(segments)
                if values is not None:
                    return RouteMatch(route, values)
        return None

    def ambiguities(self) -> list[str]:
        """Pairs of functions of which one could hide the other on a host that tries routes in another order."""
        found = []
        for index, first in enumerate(self.routes):
            for second in self.routes[index + 1 :]:
                if _share_a_method(first.trigger, second.trigger) and _overlap(first.template, second.template):
                    found.append(
                        f"{first.spec.name} ({first.template.text}) and {second.spec.name} ({second.template.text})"
                    )
        return found


def decode_path(raw_path: str) -> tuple[str, ...]:
    """Decoded, non-empty segments of a raw path.

    As Kestrel: `%2F` stays encoded, bytes that are not UTF-8 stay encoded, dot segments are resolved, and a NUL is
    refused with BadPathError.
    """
    segments: list[str] = []
    for raw in raw_path.split("/"):
        segment = _ESCAPES.sub(_decode_run, raw)
        if "\0" in segment:
            raise BadPathError("the path holds a NUL character")
        if segment == "..":
            del segments[-1:]
        elif segment not in {"", "."}:
            segments.append(segment)
    return tuple(segments)


def _decode_run(match: re.Match[str]) -> str:
    decoded = []
    for part in _SLASH.split(match.group(0)):
        if _SLASH.fullmatch(part):
            decoded.append(part)
            continue
        try:
            decoded.append(unquote_to_bytes(part).decode("utf-8"))
        except UnicodeDecodeError:
            decoded.append(part)
    return "".join(decoded)


def _share_a_method(first: HttpTrigger, second: HttpTrigger) -> bool:
    return first.methods is None or second.methods is None or bool(first.methods & second.methods)


def _literal(segment: Segment) -> str:
    return segment.patterns[0].pattern.lower()


def _overlap(first: RouteTemplate, second: RouteTemplate) -> bool:
    """True when some path may match both; constraints count as "may"."""
    for index in range(max(len(first.segments), len(second.segments))):
        mine = first.segments[index] if index < len(first.segments) else None
        other = second.segments[index] if index < len(second.segments) else None
        for segment in (mine, other):
            if segment is not None and segment.rank >= 4 and segment.parameters[0].catch_all:
                return True
        if mine is None or other is None:
            present = mine or other
            return (
                present is not None
                and bool(present.parameters)
                and (present.parameters[-1].optional or present.parameters[-1].default is not None)
            )
        if not mine.parameters and not other.parameters and _literal(mine) != _literal(other):
            return False
    return True
