"""Missed parallelism, found by counting: a ``needs`` edge along which no data flows.

Such an edge can be right: a note is sent only after a booking was made. So edges into or out of a step with an effect outside, a
wait or an approval are not reported, nor is an edge into a step whose condition or items come from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.domain.base import JsonObject, JsonValue
from engine.domain.capability import Capability
from engine.plan.expressions import Reference, is_expression, parse_expression
from planner_graph.state import Finding

_QUIET = ("none", "read")
_MAX_FINDINGS = 20


def needless_edges(document: JsonObject, capabilities: Mapping[str, Capability]) -> tuple[Finding, ...]:
    """A finding for each edge between two reading steps that only makes one wait. ``document`` is in the plan language."""
    steps = {step["id"]: step for step in document["steps"]}
    found: list[Finding] = []
    for step_id, step in steps.items():
        used = set(_steps_used(step))
        for need in dict.fromkeys(step.get("needs", ())):
            if (
                need in used
                or need not in steps
                or not (_reads(step, capabilities) and _reads(steps[need], capabilities))
            ):
                continue
            message = f"waits for {need!r} and uses nothing of it; without the edge both run at the same time"
            found.append(Finding(kind="serialisation", step_id=step_id, message=message))
    return tuple(found[:_MAX_FINDINGS])


def _reads(step: JsonObject, capabilities: Mapping[str, Capability]) -> bool:
    capability = capabilities.get(step.get("capability", ""))
    return capability is not None and capability.side_effect in _QUIET


def _steps_used(value: JsonValue) -> Iterator[str]:
    """The steps that a value refers to, at any depth."""
    pending: list[Any] = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            if is_expression(part):
                expression = parse_expression(part)
                if isinstance(expression, Reference):
                    yield from (expression.step_id,) if expression.source == "step" else ()
                    continue
                if "$literal" in part:
                    continue
            pending.extend(member for key, member in part.items() if key != "default")
