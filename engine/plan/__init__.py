"""The plan language: models, checks, skeleton, and the binding of references to values.

Pure: no I/O, no clock, no SDK. A plan is proposed by a model, a playbook or a caller; what ``check_plan`` returns is the only
form in which anything else sees one.
"""

from engine.domain.plan import (
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
from engine.plan.binding import (
    ABSENT,
    BindingEnvironment,
    Bound,
    Unbound,
    bind_compensation,
    bind_for_each,
    bind_inputs,
    bind_wait,
    referenced_steps,
)
from engine.plan.check import check_plan
from engine.plan.conditions import evaluate_when
from engine.plan.contracts import validate_inputs, validate_output
from engine.plan.estimates import falls_back, max_attempts
from engine.plan.results import CheckedPlan, CheckResult
from engine.plan.skeletons import skeleton_of
from engine.plan.versions import PlanDiff, diff_of, repair_violations, spoilt_by

__all__ = [
    "ABSENT",
    "AnswerSpec",
    "Approval",
    "BindingEnvironment",
    "Bound",
    "Call",
    "CheckResult",
    "CheckedPlan",
    "Plan",
    "PlanDiff",
    "Retry",
    "Step",
    "Unbound",
    "Wait",
    "When",
    "bind_compensation",
    "bind_for_each",
    "bind_inputs",
    "bind_wait",
    "check_plan",
    "diff_of",
    "evaluate_when",
    "falls_back",
    "max_attempts",
    "parse_checked_plan",
    "plan_schema",
    "referenced_steps",
    "repair_violations",
    "skeleton_of",
    "spoilt_by",
    "validate_inputs",
    "validate_output",
]
