"""From bytes or JSON to an outline: the envelope and each step, read strictly and apart from one another.

A step with a broken shape does not hide what is wrong with the others, so a caller or a model gets all of it in one answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from engine.domain.base import JsonObject, JsonValue
from engine.domain.errors import LivoaError
from engine.domain.plan import PlanHead, Step
from engine.domain.strict_json import MAX_INTEGER, Place, parse
from engine.domain.tenant import PLATFORM_MAX_JSON_DEPTH, PLATFORM_MAX_PLAN_BYTES, PLATFORM_MAX_STEPS
from engine.plan.findings import Findings
from engine.plan.pointers import NOWHERE, Nowhere

_CODES = {
    "json.too_large": "plan.too_large",
    "json.too_deep": "plan.too_deep",
    "json.duplicate_key": "plan.duplicate_key",
    "json.not_a_number": "plan.not_a_number",
    "json.integer_range": "plan.number_range",
    "json.number_range": "plan.number_range",
    "json.lone_surrogate": "plan.lone_surrogate",
}
_STEPS: Place = (None, "steps")


@dataclass(frozen=True, slots=True)
class Entry:
    """One element of ``steps``. ``step`` is None when its shape is broken; ``step_id`` is kept if it has a usable one."""

    index: int
    step_id: str | None
    step: Step | None

    @property
    def place(self) -> Place:
        """Where the step stands."""
        return _STEPS, self.index


@dataclass(frozen=True, slots=True)
class Outline:
    """The parts of a plan document. ``head`` is None when the envelope is broken."""

    raw: JsonObject
    head: PlanHead | None
    entries: tuple[Entry, ...]
    index_of: dict[str, int]
    """Index of the first step with each id."""


def read_outline(document: JsonValue | bytes, findings: Findings) -> Outline | None:
    """The outline of a document, or None when there is nothing to look into. What is wrong goes to ``findings``."""
    raw = _strict(document, findings)
    if raw is NOWHERE:
        return None
    if not isinstance(raw, dict):
        findings.error("plan.schema", None, "a plan is a JSON object")
        return None
    head = _read_head(raw, findings)
    steps = raw.get("steps")
    if not isinstance(steps, list):
        findings.error("plan.schema", _STEPS if "steps" in raw else None, "a plan has 'steps', an array")
        return None
    if not steps:
        findings.error("plan.empty", _STEPS, "a plan has at least one step")
    if len(steps) > PLATFORM_MAX_STEPS:
        findings.error(
            "plan.too_many_steps", _STEPS, f"the plan has {len(steps)} steps; the platform allows {PLATFORM_MAX_STEPS}"
        )
        return None
    entries = tuple(_read_step(index, value, findings) for index, value in enumerate(steps))
    return Outline(raw, head, entries, _index(entries, findings))


def _strict(document: JsonValue | bytes, findings: Findings) -> JsonValue | Nowhere:
    data = document if isinstance(document, bytes) else _to_bytes(document, findings)
    if data is None:
        return NOWHERE
    try:
        return parse(data, max_bytes=PLATFORM_MAX_PLAN_BYTES, max_depth=PLATFORM_MAX_JSON_DEPTH)
    except LivoaError as error:
        if not error.violations:
            findings.error(_CODES.get(error.code, "plan.syntax"), None, error.message)
        for violation in error.violations:
            place: Place = None
            for token in violation.pointer.split("/")[1:]:
                place = (place, token.replace("~1", "/").replace("~0", "~"))
            findings.error(_CODES.get(violation.code, "plan.syntax"), place, violation.message)
        return NOWHERE


def _to_bytes(document: JsonValue, findings: Findings) -> bytes | None:
    """JSON text of a value from inside the process, so that it goes through the same checks and is nobody else's object."""
    stack: list[tuple[Place, Any, int]] = [(None, document, 1)]
    while stack:
        place, node, depth = stack.pop()
        if isinstance(node, dict | list | tuple) and depth > PLATFORM_MAX_JSON_DEPTH:
            findings.error("plan.too_deep", place, f"the plan is more than {PLATFORM_MAX_JSON_DEPTH} levels deep")
            return None
        if isinstance(node, dict):
            if not all(isinstance(key, str) for key in node):
                findings.error("plan.schema", place, "member names are text")
                return None
            stack.extend(((place, key), member, depth + 1) for key, member in node.items())
        elif isinstance(node, list | tuple):
            stack.extend(((place, index), element, depth + 1) for index, element in enumerate(node))
        elif isinstance(node, int) and abs(node) > MAX_INTEGER:
            findings.error("plan.number_range", place, "this integer lies outside ±(2^53 - 1)")
            return None
        elif not (node is None or isinstance(node, str | int | float)):
            findings.error("plan.schema", place, "this is not a JSON value")
            return None
    try:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair: escaped, so that the reader can say where it is
        return json.dumps(document, separators=(",", ":")).encode()


def _read_head(raw: JsonObject, findings: Findings) -> PlanHead | None:
    try:
        return PlanHead.model_validate({key: value for key, value in raw.items() if key != "steps"})
    except ValidationError as error:
        _report(error, None, findings)
        return None


def _read_step(index: int, value: JsonValue, findings: Findings) -> Entry:
    step_id = value.get("id") if isinstance(value, dict) else None
    step_id = step_id if isinstance(step_id, str) else None
    try:
        return Entry(index, step_id, Step.model_validate(value))
    except ValidationError as error:
        _report(error, (_STEPS, index), findings)
        return Entry(index, step_id, None)


def _report(error: ValidationError, place: Place, findings: Findings) -> None:
    for detail in error.errors(include_input=False, include_url=False):
        here = place
        for token in detail["loc"]:
            here = (here, token)
        findings.error("plan.schema", here, detail["msg"].removeprefix("Value error, "))


def _index(entries: tuple[Entry, ...], findings: Findings) -> dict[str, int]:
    index_of: dict[str, int] = {}
    for entry in entries:
        if entry.step_id is None:
            continue
        first = index_of.setdefault(entry.step_id, entry.index)
        if first != entry.index:
            findings.error(
                "plan.duplicate_step", (entry.place, "id"), f"step {first} has the id {entry.step_id[:100]!r} already"
            )
    return index_of
