"""What must hold for one step: its capability, its inputs, its condition, its map, its pause, its undoing."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.plan import MAX_WAIT_S, Step, When
from engine.domain.strict_json import Place
from engine.domain.tenant import TenantConfig
from engine.plan.contracts import BrokenSchemaError, kind_of, message_of, schema_errors
from engine.plan.documents import Entry
from engine.plan.findings import Findings
from engine.plan.holes import Hole
from engine.plan.instants import parse_instant
from engine.plan.limits import Limits
from engine.plan.schema_view import ANYTHING, NUMBERS, Atom, View, describe_atoms
from engine.plan.scope import Reader, Reading, atoms_of, default_paths, with_defaults

SERVED_DELIVERIES = frozenset({"tool", "http", "service_bus"})
"""How capabilities can be called today. Others are refused at check time instead of failing at run time."""
_ORDERED = ("lt", "le", "gt", "ge")
_MAX_SUGGESTED = 3
_MAX_SUGGESTING = 20


@dataclass(slots=True)
class StepFacts:
    """What is known of a step after its own checks. ``items`` bounds how often it runs: (expected, at most)."""

    capability: Capability | None = None
    items: tuple[int, int] = (1, 1)


class StepRules:
    """Checks the steps of one plan for one tenant."""

    def __init__(self, reader: Reader, tenant: TenantConfig, limits: Limits, findings: Findings) -> None:
        self._reader = reader
        self._tenant = tenant
        self._limits = limits
        self._findings = findings
        self._suggestions = 0

    def check(self, entry: Entry) -> StepFacts:
        """Check one step and note its edges. A step of broken shape has no facts."""
        step, facts = entry.step, StepFacts()
        if step is None:
            return facts
        for position, need in enumerate(step.needs):
            self._reader.declare(entry, ((entry.place, "needs"), position), need)
        if step.when is not None:
            self._check_when(step.when, entry)
        if step.wait is not None:
            self._check_wait(entry, step)
        if step.on_failure == "fallback":
            self._check_fallback(step, (entry.place, "on_failure"))
        elif step.on_failure == "repair" and not self._tenant.planner.max_run_repairs:
            message = "this tenant has no plans repaired: a failure of this step is treated as 'fail'"
            self._findings.warn("plan.on_failure_as_fail", (entry.place, "on_failure"), message)
        if step.capability is not None:
            self._check_call(entry, step, facts)
        return facts

    def _check_call(self, entry: Entry, step: Step, facts: StepFacts) -> None:
        facts.capability = self._find_capability(step.capability or "", (entry.place, "capability"))
        item: View | None = None
        if step.is_map:
            item, facts.items = self._check_for_each(entry, step)
        self._check_inputs(facts.capability, step.inputs, (entry.place, "inputs"), Reading(entry, item))
        if step.compensate_with is not None:
            place = (entry.place, "compensate_with")
            undo = self._find_capability(step.compensate_with.capability, (place, "capability"))
            reading = Reading(entry, item, itself=True)
            self._check_inputs(undo, step.compensate_with.inputs, (place, "inputs"), reading)
        if facts.capability is not None:
            self._check_against_manifest(facts.capability, step, entry.place)

    def _find_capability(self, name: str, place: Place) -> Capability | None:
        capability = self._reader.capability(name)
        if capability is None:
            message = f"there is no capability {name[:100]!r}{self._suggest(name)}"
            self._findings.error("plan.unknown_capability", place, message)
            return None
        if not self._tenant.enables(name):
            self._findings.error("plan.capability_not_enabled", place, f"{name!r} is not enabled for this tenant")
        if capability.delivery not in SERVED_DELIVERIES:
            message = f"{name!r} is delivered by {capability.delivery!r}, which is not available here yet"
            self._findings.error("plan.delivery_unavailable", place, message)
        return capability

    def _check_fallback(self, step: Step, place: Place) -> None:
        """A step can fall back when the manifest of its capability says on what, and the tenant may use that."""
        capability = self._reader.capability(step.capability) if step.capability is not None else None
        fallback = capability.fallback if capability is not None else None
        if fallback is None:
            message = "its capability declares no fallback: a failure of this step is treated as 'fail'"
            self._findings.warn("plan.on_failure_as_fail", place, message)
        elif not self._tenant.enables(fallback):
            self._findings.error(
                "plan.capability_not_enabled", place, f"the fallback {fallback!r} is not enabled for this tenant"
            )

    def _suggest(self, name: str) -> str:
        """Close names among those the tenant may use; only for the first few, because the search costs."""
        self._suggestions += 1
        if self._suggestions > _MAX_SUGGESTING:
            return ""
        close = difflib.get_close_matches(name, self._tenant.enabled_capabilities[:1_000], n=_MAX_SUGGESTED)
        return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""

    def _check_against_manifest(self, capability: Capability, step: Step, place: Place) -> None:
        if capability.compensation_required and step.compensate_with is None:
            self._check_inverse(capability, place)
        if step.cache and not capability.is_cacheable:
            message = "the manifest does not say that this capability is deterministic and without effects: no result is reused"
            self._findings.warn("plan.cache_ignored", (place, "cache"), message)
        if step.retry is not None and step.retry.max_attempts > 1 and not is_repeatable(capability):
            message = "the manifest does not say that this effect may be repeated; it is attempted once"
            self._findings.warn("plan.retry_ignored", (place, "retry"), message)

    def _check_inverse(self, capability: Capability, place: Place) -> None:
        if capability.inverse is None:
            message = f"{capability.name!r} must say how it is undone: give 'compensate_with'"
            self._findings.error("plan.compensation_missing", place, message)
            return
        inverse = capability.inverse.capability
        if self._reader.capability(inverse) is None or not self._tenant.enables(inverse):
            message = f"the declared inverse {inverse!r} of {capability.name!r} is not available to this tenant"
            self._findings.error("plan.compensation_missing", place, message)

    def _check_inputs(self, capability: Capability | None, inputs: JsonObject, place: Place, reading: Reading) -> None:
        value = self._reader.read(inputs, place, reading)
        literals = self._reader.literals
        if capability is None:
            return
        try:
            self._report(capability, value, place, dict.fromkeys(literals, "$literal"))
            defaulted = default_paths(value)
            if defaulted:
                steps = dict.fromkeys(literals, "$literal") | dict.fromkeys(defaulted, "default")
                self._report(capability, with_defaults(value), place, steps)
        except BrokenSchemaError as error:
            message = f"the input schema of {capability.name!r} cannot be used: {error}"
            self._findings.error("plan.capability_schema", (place[0] if place else None, "capability"), message)

    def _report(
        self, capability: Capability, value: Any, place: Place, steps: dict[tuple[str | int, ...], str]
    ) -> None:
        """Report schema errors at their place in the document: ``steps`` are members to walk through on the way."""
        for error in schema_errors(capability, "input", value):
            here, path = place, tuple(error.absolute_path)
            for length in range(len(path) + 1):
                if length:
                    here = (here, path[length - 1])
                if path[:length] in steps:
                    here = (here, steps[path[:length]])
            hole = error.instance if isinstance(error.instance, Hole) else None
            by_reference = hole is not None and not hole.is_text
            code = "plan.reference_type" if by_reference else f"plan.input_{kind_of(error)}"
            self._findings.error(code, here, message_of(error))

    def _check_for_each(self, entry: Entry, step: Step) -> tuple[View, tuple[int, int]]:
        """The view of an item, and how many items there will be: expected and at most."""
        place = (entry.place, "for_each")
        value = self._reader.read(step.for_each, place, Reading(entry))
        limit = self._limits.max_fan_out
        if step.max_items is not None and step.max_items > limit:
            message = f"{step.max_items} items are more than the {limit} that are allowed"
            self._findings.error("plan.fan_out", (entry.place, "max_items"), message)
        if "array" not in atoms_of(value):
            message = f"'for_each' goes over an array; this is {describe_atoms(atoms_of(value))}"
            self._findings.error("plan.for_each_not_array", place, message)
            return ANYTHING, (1, 1)
        most = min(step.max_items or limit, limit)
        if isinstance(value, list):
            if len(value) > most:
                self._findings.error("plan.fan_out", place, f"{len(value)} elements are more than the {most} allowed")
            return ANYTHING, (len(value), len(value))
        return (value.view.element() or ANYTHING) if isinstance(value, Hole) else ANYTHING, (min(most, 10), most)

    def _check_wait(self, entry: Entry, step: Step) -> None:
        assert step.wait is not None
        name = next(iter(step.wait.model_fields_set))
        place = ((entry.place, "wait"), name)
        value = self._reader.read(getattr(step.wait, name), place, Reading(entry))
        if name == "until":
            literal_ok = isinstance(value, str) and parse_instant(value) is not None
            possible, wanted = "string" in atoms_of(value), "an instant such as '2027-01-31T08:00:00Z', with its offset"
        else:
            literal_ok = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_WAIT_S
            possible, wanted = bool(atoms_of(value) & NUMBERS), f"a number of seconds from 0 to {MAX_WAIT_S}"
        if not (possible if isinstance(value, Hole) else literal_ok):
            self._findings.error("plan.wait_invalid", place, f"{name!r} is {wanted}")

    def _check_when(self, when: When, entry: Entry) -> None:
        place = (entry.place, "when")
        reading = Reading(entry, tolerant=when.op == "exists")
        left = self._reader.read(when.left, (place, "left"), reading)
        if when.op == "exists":
            if not (isinstance(when.left, dict) and when.left.keys() == {"$ref"}):
                message = "'exists' asks about a reference without a default"
                self._findings.error("plan.when_type", (place, "left"), message)
            return
        right = self._reader.read(when.right, (place, "right"), Reading(entry))
        if not can_compare(when.op, atoms_of(left), atoms_of(right)):
            message = (
                f"{when.op!r} cannot compare {describe_atoms(atoms_of(left))} with {describe_atoms(atoms_of(right))}"
            )
            self._findings.error("plan.when_type", place, message)


def can_compare(op: str, left: frozenset[Atom], right: frozenset[Atom]) -> bool:
    """True when some values of these types can be compared by ``op`` (``engine.plan.conditions`` has the rules)."""
    both_numbers = bool(left & NUMBERS and right & NUMBERS)
    if op in _ORDERED:
        return both_numbers or ("string" in left and "string" in right)
    if op == "in":
        return "array" in right
    if op == "contains":
        return "array" in left or ("string" in left and "string" in right)
    return both_numbers or bool(left & right) or "null" in left | right


def is_repeatable(capability: Capability) -> bool:
    """True when another attempt cannot do harm: no effect outside, or one the manifest calls idempotent."""
    return capability.is_repeatable
