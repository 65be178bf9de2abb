"""Fill a playbook's typed parameters from the request. Values a caller supplied stay references: provenance is not lost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from engine.domain.playbook import Playbook, PlaybookParameter
from engine.domain.run import RunRequest
from planner_graph.degraded.values import Period, find_amounts, find_choices, find_periods, last_complete_quarter


@dataclass(frozen=True, slots=True)
class Filled:
    """The plan document with every parameter in place."""

    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unfilled:
    """Required parameters that neither the context nor the words of the intent gave."""

    missing: tuple[str, ...]


class _Absent:
    """Marks a parameter without a value: an object member holding one is left out."""


_ABSENT = _Absent()


def fill(playbook: Playbook, request: RunRequest, today: date) -> Filled | Unfilled:
    """Substitute every ``{"$param": name}`` of the playbook's plan; the goal becomes the caller's intent."""
    periods = find_periods(request.intent, today)
    period = periods[0] if periods else last_complete_quarter(today)
    values = {p.name: _value(p, request, period) for p in playbook.parameters}
    missing = tuple(p.name for p in playbook.parameters if p.required and values[p.name] is _ABSENT)
    if missing:
        return Unfilled(missing)
    document: dict[str, Any] = _substitute(playbook.plan, values)
    return Filled(document | {"goal": request.intent[:2_000]})


def _value(parameter: PlaybookParameter, request: RunRequest, period: Period) -> Any:
    if parameter.name in request.context.values:
        return {"$ref": f"run#/context/values/{parameter.name}"}
    found = _from_words(parameter, request.intent, period)
    if found is not None:
        return found
    return _ABSENT if parameter.default is None else parameter.default


def _from_words(parameter: PlaybookParameter, intent: str, period: Period) -> Any:
    match parameter.source:
        case None:
            return None
        case "intent":
            return {"$ref": "run#/intent"}
        case "amount":
            amounts = find_amounts(intent)
            return amounts[0] if amounts else None
        case "choice":
            named = find_choices(parameter, intent)
            return named[0] if named else None
        case "second_choice":
            named = find_choices(parameter, intent)
            return named[1] if len(named) > 1 else None
        case "choices":
            return list(find_choices(parameter, intent)) or None
        case _:
            which, edge = parameter.source.split(".")
            chosen = {"period": period, "previous": period.previous, "following": period.following}[which]
            return (chosen.start if edge == "start" else chosen.end).isoformat()


def _substitute(node: Any, values: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if set(node) == {"$param"}:
            return values.get(node["$param"], _ABSENT)
        members = ((key, _substitute(value, values)) for key, value in node.items())
        return {key: value for key, value in members if value is not _ABSENT}
    if isinstance(node, list):
        return [value for value in (_substitute(item, values) for item in node) if value is not _ABSENT]
    return node
