"""May this call be made? Policy decides with the bound inputs; what it can cure is cured, and then it is asked again.

Only a clean allow clears a call. Redactions come first, so that a person approves what will really be sent; whatever changes
after an approval (inputs, policy set) makes it worthless, because it is bound to both. A verdict that names no cure, a hard
finding beside a curable one, a cure that does not help: each is a denial.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from engine.domain.approval import Approval
from engine.domain.audit import AuditEntry
from engine.domain.base import JsonObject
from engine.domain.capability import Capability
from engine.domain.policy import Cures, PolicyDecision, StepPolicyRequest, Verdict
from engine.domain.telemetry_names import METRIC_POLICY_DECISIONS
from engine.evidence.canonical import canonical_sha256
from engine.ports.deps import Deps
from engine.step_runner.asking import NotApproved, Question, Unanswered, ask
from engine.step_runner.evidence import decision_entry
from engine.step_runner.records import Journal
from engine.step_runner.redaction import masked_inputs, redacted_inputs
from engine.step_runner.task import StepTask
from engine.step_runner.view import StepView

_MAX_ROUNDS = 6
"""How often policy is asked about one call: redact, approve, and once more for a policy set that changed meanwhile."""


@dataclass(frozen=True, slots=True)
class CallInQuestion:
    """A call that is to be authorised, as far as it is cured."""

    task: StepTask
    view: StepView
    journal: Journal
    name: str
    capability: Capability | None
    inputs: JsonObject
    redacted: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    approval: Approval | None = None

    @property
    def inputs_sha256(self) -> str:
        """What names the call in records: the hash over capability and inputs."""
        return canonical_sha256({"capability": self.name, "inputs": self.inputs})

    @property
    def cures(self) -> Cures:
        """What has been done already to cure it."""
        approval = self.approval
        return Cures(
            approved=approval is not None,
            approver_differs=approval is not None and approval.approver_differs,
            redacted=self.redacted,
            masked=self.masked,
        )


@dataclass(frozen=True, slots=True)
class Cleared:
    """The call may be made, with these inputs, by this decision."""

    call: CallInQuestion
    capability: Capability
    decision: PolicyDecision


@dataclass(frozen=True, slots=True)
class Barred:
    """The call may not be made. ``decision`` is the last one, ``code`` and ``message`` say why."""

    call: CallInQuestion
    decision: PolicyDecision
    code: str
    message: str


async def authorise(call: CallInQuestion, deps: Deps) -> Cleared | Barred | Unanswered:
    """Ask policy, cure what can be cured, ask again."""
    for _ in range(_MAX_ROUNDS):
        decision = await _decide(call, deps)
        if decision.allows:
            if call.capability is None:
                return _barred(call, decision, "policy.capability_unknown", "the catalog has no such capability")
            stale = call.approval is not None and call.approval.binding.policy_set_hash != decision.policy_set_hash
            if not stale:
                return Cleared(call, call.capability, decision)
            call = replace(call, approval=None)
            continue
        if decision.verdict not in (Verdict.ESCALATE, Verdict.TRANSFORM):
            return _barred(call, decision)
        await deps.audit.append(_entry(call, decision, deps))
        cured = await _cured(call, decision, deps)
        if not isinstance(cured, CallInQuestion):
            return cured
        call = cured
    return _barred(call, decision, "policy.uncurable", "no cure led to an allow")


async def _decide(call: CallInQuestion, deps: Deps) -> PolicyDecision:
    view, task = call.view, call.task
    decision = await deps.policy.decide_step(
        StepPolicyRequest(
            principal=view.run.principal,
            tenant=view.tenant,
            run_id=task.run_id,
            plan_hash=view.plan_hash,
            step_id=task.step_id,
            item=task.item,
            capability_name=call.name,
            capability=call.capability,
            inputs=call.inputs,
            plan=view.plan,
            request=view.request,
            provenance=view.run.provenance,
            cures=call.cures,
            purpose=task.purpose,
        )
    )
    deps.telemetry.count(METRIC_POLICY_DECISIONS, attributes={"verdict": decision.verdict.value})
    return decision


async def _cured(call: CallInQuestion, decision: PolicyDecision, deps: Deps) -> CallInQuestion | Barred | Unanswered:
    """The call with one more cure."""
    if any(finding.severity == "hard" for finding in decision.findings):
        return _barred(call, decision)
    kinds = {cure.kind for cure in decision.cures}
    if not kinds or not kinds <= {"approval", "redaction", "masking"}:
        return _barred(call, decision)
    redact = _places(decision, "redaction") - set(call.redacted)
    mask = _places(decision, "masking") - set(call.masked) - redact
    if redact or mask:
        return await _changed(call, decision, tuple(sorted(redact)), tuple(sorted(mask)), deps)
    if "masking" in kinds:
        return _barred(call, decision, "policy.masking_impossible", "masking did not take the personal data out")
    if "approval" in kinds and call.task.purpose == "compensation":
        # The run is ending, and would have to wait for days; who looks at it is told instead.
        return _barred(call, decision, "undo.needs_approval", "nobody is asked about undoing")
    if "approval" in kinds and call.approval is None:
        return await _approved(call, decision, deps)
    return _barred(call, decision)


def _places(decision: PolicyDecision, kind: str) -> set[str]:
    return {place for cure in decision.cures if cure.kind == kind for place in cure.detail.split(" ")}


async def _changed(
    call: CallInQuestion, decision: PolicyDecision, redact: tuple[str, ...], mask: tuple[str, ...], deps: Deps
) -> CallInQuestion | Barred:
    """The call without what policy wants taken out of its inputs."""
    inputs = call.inputs if call.capability is not None else None
    if call.capability is not None and redact:
        inputs = redacted_inputs(call.inputs, redact, call.capability)
    if inputs is None:
        message = "what policy wants taken out cannot be replaced without breaking the inputs"
        return _barred(call, decision, "policy.redaction_impossible", message)
    if call.capability is not None and mask:
        types = call.view.tenant.personal_data.types
        inputs = await asyncio.to_thread(masked_inputs, inputs, mask, call.capability, deps.personal_data, types)
    if inputs is None:
        message = "the personal data found in the inputs cannot be masked without breaking them"
        return _barred(call, decision, "policy.masking_impossible", message)
    # An approval was for other inputs.
    redacted, masked = (*call.redacted, *redact), (*call.masked, *mask)
    return replace(call, inputs=inputs, redacted=redacted, masked=masked, approval=None)


async def _approved(call: CallInQuestion, decision: PolicyDecision, deps: Deps) -> CallInQuestion | Barred | Unanswered:
    question = Question(
        kind="step",
        shown={"capability": call.name, "inputs": call.inputs},
        timeout_s=call.view.tenant.approvals.timeout_s,
        arguments_sha256=call.inputs_sha256,
        capability=call.name,
        decision=decision,
        redacted=(*call.redacted, *call.masked),
    )
    answer = await ask(question, call.task, call.view, call.journal, deps)
    if isinstance(answer, Approval):
        return replace(call, approval=answer)
    if isinstance(answer, NotApproved):
        return _barred(call, decision, answer.code, answer.message)
    return answer


def _entry(call: CallInQuestion, decision: PolicyDecision, deps: Deps) -> AuditEntry:
    return decision_entry(
        call.task,
        call.view.run.principal,
        deps.clock.now(),
        capability=call.name,
        plan_hash=call.view.plan_hash,
        inputs_sha256=call.inputs_sha256,
        decision=decision,
        cures=call.cures,
    )


def _barred(call: CallInQuestion, decision: PolicyDecision, code: str = "", message: str = "") -> Barred:
    reasons = "; ".join(decision.reasons) or "policy denies this step"
    words = f"{message}: {reasons}" if message else reasons
    return Barred(call, decision, code or decision.code or "policy.denied", words)
