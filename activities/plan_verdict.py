"""How it ends with a plan that is checked: policy allows it, a person was asked and policy once more, or it is refused.

The same for a run's first plan and for each version that repairs it. What an end means is the caller's business; nothing is
written here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from activities.plan_approval import needs_a_person
from engine.domain.approval import Approval
from engine.domain.policy import Cures, PlanPolicyDecision
from engine.domain.run import ErrorInfo

_MAX_ROUNDS = 4
"""How often policy is asked about one plan: as it is, approved, and once more for a policy set that changed meanwhile."""

Ask = Callable[[PlanPolicyDecision], Awaitable[Approval | ErrorInfo | dict[str, Any]]]
"""Keep the plan and ask a person about it: the approval that was given, why there is none, or an answer for the orchestration
while there is no word yet."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """``approval`` where one was needed. ``at_once``: policy was asked no more than once."""

    decision: PlanPolicyDecision
    approval: Approval | None
    at_once: bool


@dataclass(frozen=True, slots=True)
class NotApproved:
    """Whoever was asked said no, or nothing in time."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class Denied:
    """Policy's last word. ``at_once`` as above."""

    decision: PlanPolicyDecision
    approval: Approval | None
    at_once: bool


async def verdict_of(
    decision: PlanPolicyDecision, decide: Callable[[Cures], Awaitable[PlanPolicyDecision]], ask: Ask
) -> Allowed | NotApproved | Denied | dict[str, Any]:
    """Begin with what policy says of the plan as it is; ask a person where that helps, and policy again."""
    approval, at_once = None, True
    for _ in range(_MAX_ROUNDS):
        if decision.allows and (approval is None or approval.binding.policy_set_hash == decision.policy_set_hash):
            return Allowed(decision, approval, at_once)
        if decision.allows:
            approval = None  # it was given under other policies
        elif approval is not None or not needs_a_person(decision):
            break
        else:
            answer = await ask(decision)
            if isinstance(answer, dict):
                return answer
            if isinstance(answer, ErrorInfo):
                return NotApproved(answer)
            approval = answer
        differs = approval is not None and approval.approver_differs
        decision, at_once = await decide(Cures(approved=approval is not None, approver_differs=differs)), False
    return Denied(decision, approval, at_once)


def words_of(decision: PlanPolicyDecision) -> ErrorInfo:
    """A denial as the run's error."""
    words = "; ".join(decision.reasons) or "policy denies this plan"
    return ErrorInfo(code=decision.code or "policy.denied", message=words)
