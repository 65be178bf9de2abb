"""The plan language: models, checks, skeleton, and the binding of references to values.

Pure: no I/O, no clock, no SDK. A plan is proposed by a model, a playbook or a caller; what ``check_plan`` returns is the only
form in which anything else sees one.
"""

from engine.plan.check import check_plan
from engine.plan.contracts import validate_inputs, validate_output
from engine.plan.models import (
    AnswerSpec,
    Approval,
    Call,
    Plan,
    Retry,
    Step,
    Wait,
    When,
    parse_checked_plan,
    plan_schema,
)
from engine.plan.results import CheckedPlan, CheckResult
from engine.plan.skeletons import skeleton_of

__all__ = [
    "AnswerSpec",
    "Approval",
    "Call",
    "CheckResult",
    "CheckedPlan",
    "Plan",
    "Retry",
    "Step",
    "Wait",
    "When",
    "check_plan",
    "parse_checked_plan",
    "plan_schema",
    "skeleton_of",
    "validate_inputs",
    "validate_output",
]
