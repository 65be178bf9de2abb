"""Versions of one plan: what a repair may change, and what it did change. Pure.

A repair is for one failed step. It replaces that step and everything that comes after it; all the rest stays as it is, word for
word, whether it has begun or not. An id that any version has used is never used for another step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from engine.domain.base import JsonObject
from engine.domain.errors import Violation

_MAX_VIOLATIONS = 50


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Ids of the steps that stay, that are gone, and that are new, each in the order of its plan."""

    kept: tuple[str, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """As evidence keeps it."""
        return {"kept": list(self.kept), "removed": list(self.removed), "added": list(self.added)}


def spoilt_by(document: JsonObject, step_id: str) -> frozenset[str]:
    """The step and everything that comes after it, in a document in normal form: there every edge stands in ``needs``."""
    behind: dict[str, list[str]] = {}
    for step in document["steps"]:
        for need in step.get("needs", ()):
            behind.setdefault(need, []).append(step["id"])
    found, waiting = {step_id}, [step_id]
    while waiting:
        new = [one for one in behind.get(waiting.pop(), ()) if one not in found]
        found.update(new)
        waiting += new
    return frozenset(found)


def diff_of(before: JsonObject, after: JsonObject) -> PlanDiff:
    """What changed from one version to the next."""
    old, new = [[step["id"] for step in document["steps"]] for document in (before, after)]
    stays = set(old) & set(new)
    return PlanDiff(
        kept=tuple(step_id for step_id in old if step_id in stays),
        removed=tuple(step_id for step_id in old if step_id not in stays),
        added=tuple(step_id for step_id in new if step_id not in stays),
    )


def repair_violations(
    before: JsonObject, after: JsonObject, failed_step_id: str, taken: Collection[str]
) -> tuple[Violation, ...]:
    """What keeps ``after`` from being the repair of ``before`` for this step; both in normal form. ``taken`` are the ids of all
    versions so far.

    Codes: ``plan.repair_changes`` where a step that had to stay is missing or differs, ``plan.repair_reuses_id``.
    """
    spoilt = spoilt_by(before, failed_step_id)
    had_to_stay = {step["id"]: step for step in before["steps"] if step["id"] not in spoilt}
    found: list[Violation] = []
    seen: set[str] = set()
    for index, step in enumerate(after["steps"]):
        step_id = step["id"]
        seen.add(step_id)
        if step_id in had_to_stay:
            if step != had_to_stay[step_id]:
                found.append(_violation("plan.repair_changes", f"/steps/{index}", "a step that stays is not changed"))
        elif step_id in taken:
            message = "this id belongs to a step of an earlier version; a new step has a new id"
            found.append(_violation("plan.repair_reuses_id", f"/steps/{index}/id", message))
    missing = [step_id for step_id in had_to_stay if step_id not in seen]
    found += [_violation("plan.repair_changes", "/steps", f"the step {step_id!r} has to stay") for step_id in missing]
    return tuple(found[:_MAX_VIOLATIONS])


def _violation(code: str, pointer: str, message: str) -> Violation:
    return Violation(code=code, pointer=pointer, message=message)
