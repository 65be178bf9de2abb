"""What crosses the durable border, parsed into what the brain understands. Total: nonsense becomes a failure with a code."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from engine.domain.outcomes import OUTCOME, Failed, StepOutcome
from engine.domain.status import RunStatus
from engine.scheduler.commands import (
    Broken,
    ComposeAnswer,
    Done,
    FinishRun,
    Held,
    More,
    Paused,
    Planned,
    PlanRun,
    Refused,
    RepairPlan,
    RunCall,
    RunOutcome,
    UndoStep,
)
from engine.scheduler.graph import graph_from_wire
from engine.scheduler.steps import CANCELLED_CODE

CRASH_CODE = "activity.crashed"
"""An exception crossed the durable border, where it is bare text: a surprise, worth another attempt within the policy."""


def step_outcome(value: Any) -> StepOutcome:
    """Parse the answer of a call for a step. One that came as an event is JSON text: the SDK's client encodes it once more."""
    try:
        return OUTCOME.validate_json(value) if isinstance(value, str) else OUTCOME.validate_python(value)
    except ValidationError:
        return Failed(code="step.malformed_outcome")


def step_crash() -> StepOutcome:
    """The outcome of a call for a step that raised."""
    return Failed(code=CRASH_CODE, retryable=True)


def run_outcome(call: RunCall, value: Any) -> RunOutcome:
    """Parse the answer of a call for the run itself.

    ``plan_run`` and ``repair_plan``: ``{"status": "planned", "skeleton": wire}``,
    ``{"status": "awaiting_approval", "approval_id", "expires_at", "left_s"?}`` or
    ``{"status": "rejected" | "denied" | "failed", "code"}``; failed with ``run.cancelled`` says that the store knows of a cancel.
    ``undo_step``: ``{"status": "undone" | "more"}``;
    ``compose_answer``: ``{"status": "composed"}``; both of these may answer
    ``{"status": "suspended", "number"}``; ``finish_run``: anything without ``"status": "failed"``. Each may answer
    ``{"status": "failed", "code", "retryable"}``.
    """
    answer = value if isinstance(value, dict) else {}
    status, code = answer.get("status"), answer.get("code")
    if isinstance(call, PlanRun | RepairPlan) and status == "failed" and code == CANCELLED_CODE:
        return Refused(RunStatus.CANCELLED, CANCELLED_CODE)
    if status == "failed" and answer.get("retryable") is True:
        return Broken(_code(code, "run.call_failed"), retryable=True)
    match call, status:
        case PlanRun() | RepairPlan(), "planned":
            return _planned(answer.get("skeleton"))
        case PlanRun() | RepairPlan(), "awaiting_approval":
            return _held(answer)
        case PlanRun() | RepairPlan() | ComposeAnswer(), "suspended":
            return _paused(answer.get("number"))
        case PlanRun() | RepairPlan(), "denied":
            return Refused(RunStatus.DENIED, _code(code, "plan.denied"))
        case PlanRun() | RepairPlan(), "rejected" | "failed":
            return Refused(RunStatus.FAILED, _code(code, f"plan.{status}"))
        case (ComposeAnswer(), "composed") | (UndoStep(), "undone"):
            return Done()
        case UndoStep(), "more":
            return More()
        case FinishRun(), _ if status != "failed":
            return Done()
        case _:
            return Broken(_code(code, "run.malformed_outcome"), retryable=False)


def lease_answer(value: Any) -> Literal["granted", "full", "ended", "unknown"]:
    """Parse the quota's answer: ``{"granted", "ended", …}``. What cannot be understood grants nothing."""
    answer = value if isinstance(value, dict) else {}
    match answer.get("granted"), answer.get("ended"):
        case True, _:
            return "granted"
        case False, True:
            return "ended"
        case False, _:
            return "full"
        case _:
            return "unknown"


def run_crash() -> RunOutcome:
    """The outcome of a call for the run itself that raised."""
    return Broken(CRASH_CODE, retryable=True)


def _planned(skeleton: Any) -> RunOutcome:
    if not isinstance(skeleton, dict):
        return Broken("plan.malformed_skeleton", retryable=False)
    try:
        return Planned(graph_from_wire(skeleton))
    except ValueError:
        return Broken("plan.malformed_skeleton", retryable=False)


def _held(answer: dict[str, Any]) -> RunOutcome:
    approval_id, expires_at, left_s = (answer.get(name) for name in ("approval_id", "expires_at", "left_s"))
    if isinstance(approval_id, str) and isinstance(expires_at, str):
        return Held(approval_id, expires_at, left_s if isinstance(left_s, float | int) else None)
    return Broken("run.malformed_outcome", retryable=False)


def _paused(number: Any) -> RunOutcome:
    if isinstance(number, int) and number >= 1:
        return Paused(number)
    return Broken("run.malformed_outcome", retryable=False)


def _code(code: Any, default: str) -> str:
    return code if isinstance(code, str) and code else default
