"""Which node comes next: pure decisions over plain facts, without LangGraph, so that every edge is a line of a table in a test.

Bounds: one revision after a self-critique, at most ``max_repairs`` repairs, then planning without a model, then the end. So no
path is longer than ``longest_path``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NodeName = Literal["classify", "plan", "self_critique", "validate", "repair", "degrade", "end"]

MIN_CALL_S = 5.0
"""With less time than this left, no further model call is begun."""
MAX_REPAIRS = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a planning stands, as far as edges care."""

    has_planner: bool = True
    has_router: bool = True
    suffix: bool = False
    decided: bool = False
    """There is an outcome."""
    trouble: bool = False
    """No model can go on."""
    faults: bool = False
    """The latest draft has faults."""
    findings: bool = False
    """A self-critique found something, and no revision has answered it."""
    critique_due: bool = False
    """This tenant's rules ask for a self-critique of this draft."""
    revisions: int = 0
    repairs: int = 0
    max_repairs: int = 2
    time_left_s: float = 240.0


def first(standing: Standing) -> NodeName:
    """The rest of a plan needs no routing; without any model there is nothing to ask."""
    if not standing.has_planner:
        return "classify" if standing.has_router and not standing.suffix else "degrade"
    return "plan" if standing.suffix else "classify"


def after_classify(standing: Standing) -> NodeName:
    """An intent that is out of scope is decided."""
    if standing.decided:
        return "end"
    return "plan" if standing.has_planner and standing.time_left_s >= MIN_CALL_S else "degrade"


def after_draft(standing: Standing) -> NodeName:
    """After ``plan``: a draft is reviewed by the model first if that is due, and there is no use in reviewing a broken one."""
    if standing.decided:
        return "end"
    if standing.trouble:
        return "degrade"
    if standing.critique_due and not standing.faults and standing.revisions == 0 and _has_time(standing):
        return "self_critique"
    return "validate"


def after_critique(standing: Standing) -> NodeName:
    """Findings lead to one revision."""
    return "repair" if standing.findings and standing.revisions == 0 and _has_time(standing) else "validate"


def after_repair(standing: Standing) -> NodeName:
    """After a repair or a revision every draft is validated."""
    if standing.decided:
        return "end"
    return "degrade" if standing.trouble else "validate"


def after_validate(standing: Standing) -> NodeName:
    """Faults go back to the model as long as its bound and the time allow; then planning goes on without it."""
    if standing.decided:
        return "end"
    return "repair" if standing.repairs < min(standing.max_repairs, MAX_REPAIRS) and _has_time(standing) else "degrade"


def _has_time(standing: Standing) -> bool:
    return standing.time_left_s >= MIN_CALL_S


def longest_path(max_repairs: int) -> int:
    """The most nodes any planning visits: classify, plan, self_critique, revision, validate, repairs with validation, degrade."""
    return 6 + 2 * min(max_repairs, MAX_REPAIRS)
