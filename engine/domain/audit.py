"""The audit record: an append-only fact in the tenant's hash chain. The format is final; later work adds entry types.

``AuditEntry`` is what somebody wants recorded; ``AuditRecord`` is the entry as it stands in the chain. Content (prompts,
arguments, outputs, plans) never stands in a record: the record holds its SHA-256 commitment and a payload reference.
Hashing lives in engine.evidence; the canonical form is RFC 8785.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from engine.domain.base import Frozen, JsonObject, UtcDatetime
from engine.domain.ids import WireId

AUDIT_FORMAT_VERSION = 1
GENESIS_HASH = "0" * 64
"""``prev`` of the first record of a tenant's chain."""
ENGINE_ACTOR = "livoa"
"""Who does what nobody asked for: checkpoints, circuits."""


class AuditType(StrEnum):
    """What a record is about."""

    AUTH_REJECTED = "auth.rejected"
    RUN_SUBMITTED = "run.submitted"
    RUN_CANCEL_REQUESTED = "run.cancel_requested"
    RUN_SUSPENDED = "run.suspended"
    RUN_RESUMED = "run.resumed"
    RUN_TERMINATE_REQUESTED = "run.terminate_requested"
    RUN_FINISHED = "run.finished"
    PLANNER_PROMPT = "planner.prompt"
    PLANNER_COMPLETION = "planner.completion"
    PLAN_PROPOSED = "plan.proposed"
    PLAN_VALIDATED = "plan.validated"
    PLAN_REJECTED = "plan.rejected"
    PLAN_REPAIRED = "plan.repaired"
    POLICY_DECISION = "policy.decision"
    POLICY_CHANGED = "policy.changed"
    CONFIG_CHANGED = "config.changed"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_REFUSED = "approval.refused"
    APPROVAL_EXPIRED = "approval.expired"
    APPROVAL_VOIDED = "approval.voided"
    EGRESS_REFUSED = "egress.refused"
    DISPATCH_INTENDED = "dispatch.intended"
    DISPATCH_RESULT = "dispatch.result"
    RESULT_UNKNOWN = "result.unknown"
    RESULT_REFUSED = "result.refused"
    QUOTA_REFUSED = "quota.refused"
    RESULT_REUSED = "result.reused"
    BUDGET_EXHAUSTED = "budget.exhausted"
    BREAKER_OPENED = "breaker.opened"
    DEGRADED_ENTERED = "degraded.entered"
    SYNTHESIS = "synthesis"
    AUDIT_READ = "audit.read"
    AUDIT_ERASE = "audit.erase"
    CONTENT_LINKED = "content.linked"
    CONTENT_READ = "content.read"
    CHECKPOINT = "checkpoint"


class AuditEntry(Frozen):
    """A fact to append.

    ``entry_id`` is deterministic (``{run}/{step}[/{item}]/{attempt}/{type}`` and the like): appending it twice keeps one
    record. ``body`` holds facts and commitments as JSON with integers only, no floats and no content.
    """

    tenant_id: WireId
    entry_id: str = Field(min_length=1, max_length=400)
    type: AuditType
    at: UtcDatetime
    run_id: str | None = None
    actor: str = Field(min_length=1, max_length=300)
    body: JsonObject = Field(default_factory=dict)


class AuditRecord(Frozen):
    """An entry in its tenant's chain.

    ``seq`` counts from 1 without gaps per tenant; ``prev`` is the ``hash`` of the record before (``GENESIS_HASH`` for the
    first); ``hash`` is SHA-256 over 0x00 followed by the RFC 8785 form of every other field.
    """

    v: int = AUDIT_FORMAT_VERSION
    tenant_id: WireId
    seq: int = Field(ge=1)
    entry_id: str
    type: AuditType
    at: UtcDatetime
    run_id: str | None = None
    actor: str
    body: JsonObject
    prev: str = Field(pattern=r"^[0-9a-f]{64}$")
    hash: str = Field(pattern=r"^[0-9a-f]{64}$")
