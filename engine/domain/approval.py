"""Approvals: a person's answer to "may this go on?", bound to exactly what was asked.

An approval holds for one run, one plan, one subject (the plan, a step or an item of one), one set of arguments and one policy
set. A change of any of them is another question with another id, so an answer can never be carried over to it. What the
approver reads (arguments as they will be used) lies in the payload store; the record holds its reference and hash.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, UtcDatetime
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import ApprovalEventData, EventType, NewEvent, new_event
from engine.domain.ids import WireId
from engine.domain.policy import PolicyFinding
from engine.domain.principal import Principal
from engine.domain.run import PayloadRef

PLAN_SUBJECT = "plan"
"""The subject of an approval of the plan as a whole; of any other approval it is the id of the step."""
MAX_COMMENT_CHARS = 1_000

ApprovalKind = Literal["plan", "step", "question"]
"""``plan``: policy wants the plan approved; ``step``: policy wants one call approved; ``question``: an ``approval`` step."""


class ApprovalStatus(StrEnum):
    """Where an approval stands. Only ``pending`` can change, and ``granted`` to ``void`` when another question replaces it."""

    PENDING = "pending"
    GRANTED = "granted"
    REFUSED = "refused"
    EXPIRED = "expired"
    VOID = "void"


VoidCode = Literal[
    "approval.plan_changed",
    "approval.arguments_changed",
    "approval.policies_changed",
    "approval.asked_again",
    "approval.run_over",
]
VOID_WORDS: dict[VoidCode, str] = {
    "approval.plan_changed": "the run has another plan now, and asks about that",
    "approval.arguments_changed": "the arguments are not those that were shown; it is asked about what would be used now",
    "approval.policies_changed": "the policies have changed since; it is asked under those of now",
    "approval.asked_again": "the same was asked anew",
    "approval.run_over": "the run ended before anybody answered",
}
"""Why an approval is void, for people."""


class ApprovalBinding(Frozen):
    """What an approval is good for, and for nothing else. ``arguments_sha256`` is over what the call will be made with."""

    kind: ApprovalKind
    step_id: WireId | None = None
    item: int | None = Field(default=None, ge=0)
    plan_hash: str
    arguments_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    policy_set_hash: str = ""

    @property
    def subject(self) -> str:
        """``plan``, or the id of the step."""
        return self.step_id or PLAN_SUBJECT

    @property
    def place(self) -> tuple[ApprovalKind, str | None, int | None]:
        """Whose approval it is: at most one of a place is open."""
        return self.kind, self.step_id, self.item


class Approval(Frozen):
    """One question and, in time, its answer.

    ``expires_at`` is by when it must be answered; a grant then lasts as long as the run asks the same. ``waiter`` is the durable
    instance to wake with the answer. ``step_hash`` is over capability, bound inputs, condition and transitive needs: what would
    have to be unchanged for the step to be the same one in a later version of the plan. ``void_code`` says why it is void.
    """

    tenant_id: WireId
    run_id: WireId
    approval_id: WireId
    binding: ApprovalBinding
    plan_version: int = 0
    vetting_id: str = ""
    step_hash: str = ""
    capability: str | None = None
    arguments_ref: PayloadRef | None = None
    reasons: tuple[str, ...] = ()
    findings: tuple[PolicyFinding, ...] = ()
    redacted: tuple[str, ...] = ()
    requested_by: str = Field(min_length=1, max_length=200)
    requested_at: UtcDatetime
    expires_at: UtcDatetime
    waiter: WireId
    status: ApprovalStatus = ApprovalStatus.PENDING
    decided_by: str | None = None
    decided_at: UtcDatetime | None = None
    comment: str | None = Field(default=None, max_length=MAX_COMMENT_CHARS)
    void_code: VoidCode | None = None

    @property
    def subject(self) -> str:
        """``plan``, or the id of the step."""
        return self.binding.subject

    @property
    def is_pending(self) -> bool:
        """True while it can be answered, its time aside."""
        return self.status is ApprovalStatus.PENDING

    @property
    def approver_differs(self) -> bool:
        """True when somebody other than the requester gave the answer."""
        return self.decided_by is not None and self.decided_by != self.requested_by


class ApprovalAnswer(Frozen):
    """What a person said. ``by`` is the subject of their token."""

    granted: bool
    by: str = Field(min_length=1, max_length=200)
    comment: str | None = Field(default=None, max_length=MAX_COMMENT_CHARS)

    @property
    def status(self) -> ApprovalStatus:
        """The status that this answer leads to."""
        return ApprovalStatus.GRANTED if self.granted else ApprovalStatus.REFUSED


def asked_sha256(run_id: str, binding: ApprovalBinding) -> str:
    """The hash of this very question: over the run and the binding."""
    asked = [run_id, *binding.place, binding.plan_hash, binding.arguments_sha256, binding.policy_set_hash]
    return hashlib.sha256(json.dumps(asked, separators=(",", ":")).encode()).hexdigest()


def approval_id_of(commitment: str) -> str:
    """The id of the question with this commitment to its hash: ``ap-`` and 128 bits of it. Asking twice is asking once.

    A commitment and not the hash, because ids stand on record for years: with a hash, whoever guesses what was shown could tell
    that the guess is right.
    """
    return f"ap-{commitment[:32]}"


def require_approver(approval: Approval, principal: Principal) -> None:
    """Raises ``LivoaError`` (403): ``approval.app_only`` for an app, ``approval.self`` for the requester."""
    if principal.kind != "user":
        raise LivoaError("approval.app_only", "Only a person can answer this; the token is an app's.", status=403)
    if principal.subject == approval.requested_by:
        raise LivoaError("approval.self", "Somebody other than the run's requester must answer this.", status=403)


def answered(approval: Approval, answer: ApprovalAnswer, now: datetime) -> Approval:
    """The approval with its answer. The same answer of the same person again changes nothing.

    Raises ``ConflictError("approval.closed")`` when it has another answer or is void, and
    ``LivoaError("approval.expired", status=410)`` when its time is over.
    """
    if approval.status is answer.status and approval.decided_by == answer.by:
        return approval
    if approval.status is ApprovalStatus.EXPIRED or (approval.is_pending and now >= approval.expires_at):
        raise LivoaError("approval.expired", "The time to answer this is over.", status=410)
    if not approval.is_pending:
        why = f" ({VOID_WORDS[approval.void_code]})" if approval.void_code is not None else ""
        raise ConflictError("approval.closed", f"This is {approval.status.value}{why} and cannot be answered any more.")
    fields = {"status": answer.status, "decided_by": answer.by, "decided_at": now, "comment": answer.comment}
    return Approval(**(dict(approval) | fields))


def expired(approval: Approval, now: datetime) -> Approval:
    """The approval, expired when nobody answered in time."""
    if not approval.is_pending or now < approval.expires_at:
        return approval
    return Approval(**(dict(approval) | {"status": ApprovalStatus.EXPIRED, "decided_at": now}))


def replaced_by(before: ApprovalBinding, now: ApprovalBinding) -> VoidCode:
    """Why a question about the same place takes the place of an earlier one: the first of what differs."""
    if before.plan_hash != now.plan_hash:
        return "approval.plan_changed"
    if before.arguments_sha256 != now.arguments_sha256:
        return "approval.arguments_changed"
    if before.policy_set_hash != now.policy_set_hash:
        return "approval.policies_changed"
    return "approval.asked_again"


def voided(approval: Approval, now: datetime, code: VoidCode) -> Approval:
    """The approval, void when it was open or granted: what it was asked for will not be done any more, for the reason given."""
    if approval.status not in (ApprovalStatus.PENDING, ApprovalStatus.GRANTED):
        return approval
    return Approval(
        **(
            dict(approval)
            | {"status": ApprovalStatus.VOID, "decided_at": approval.decided_at or now, "void_code": code}
        )
    )


_EVENTS = {
    ApprovalStatus.PENDING: EventType.APPROVAL_REQUESTED,
    ApprovalStatus.GRANTED: EventType.APPROVAL_GRANTED,
    ApprovalStatus.REFUSED: EventType.APPROVAL_REFUSED,
    ApprovalStatus.EXPIRED: EventType.APPROVAL_EXPIRED,
    ApprovalStatus.VOID: EventType.APPROVAL_VOIDED,
}


def event_of(approval: Approval) -> NewEvent:
    """The event that tells where the approval stands now: ids and codes, nothing of what is to be approved."""
    event_type = _EVENTS[approval.status]
    data = ApprovalEventData(
        subject=approval.subject,
        approval_id=approval.approval_id,
        kind=approval.binding.kind,
        item=approval.binding.item,
        capability=approval.capability,
        expires_at=approval.expires_at,
        approver=approval.decided_by,
        code=approval.void_code,
        message=VOID_WORDS[approval.void_code] if approval.void_code is not None else None,
    )
    return new_event(event_type, data, f"{event_type.value}/{approval.approval_id}")
