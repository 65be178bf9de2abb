"""A run and its steps as stores keep them: rows of references and facts, never of content."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen, JsonObject, JsonValue, UtcDatetime
from engine.domain.ids import WireId
from engine.domain.principal import Principal
from engine.domain.status import RunStatus, StepStatus

MAX_INTENT_CHARS = 8_000
MAX_TITLE_CHARS = 120


class PayloadRef(Frozen):
    """Where content lives: SHA-256 of the plaintext, its size and media type. The store adds tenant and run to the key."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)
    media_type: str = "application/json"


class Document(Frozen):
    """A text that came with the request. Untrusted: integrity 0."""

    name: str = Field(min_length=1, max_length=200)
    text: str = Field(max_length=1_000_000)


class RunContext(Frozen):
    """What the caller knows: ``values`` are typed facts (integrity 2), ``documents`` are untrusted text (integrity 0)."""

    values: dict[str, JsonValue] = Field(default_factory=dict)
    documents: tuple[Document, ...] = ()


class RunConstraints(Frozen):
    """What the caller asks for beyond the tenant's bounds; may only tighten them."""

    max_steps: int | None = Field(default=None, ge=1)
    max_cost_micro_usd: int | None = Field(default=None, ge=0)
    deadline_s: float | None = Field(default=None, gt=0)


class RunRequest(Frozen):
    """One intent, normalised and validated. Lives in the payload store; the row keeps a reference."""

    intent: str = Field(min_length=1, max_length=MAX_INTENT_CHARS)
    goals: tuple[str, ...] = Field(default=(), max_length=50)
    context: RunContext = RunContext()
    constraints: RunConstraints = RunConstraints()
    plan: JsonObject | None = None


class PlanProvenance(Frozen):
    """Who wrote the accepted plan, and what it saw while writing.

    ``source``: the caller's own plan, a playbook of the catalog, or a model. ``seen_integrity`` is the meet of the integrity
    of everything the writer read (3: only the request itself and platform text; 0: documents or other untrusted text).
    ``fallbacks`` are the routers that handed on, each with its reason (``small: model.timeout``); ``attempts`` counts proposals.
    ``vetting_id`` is the hash of (plan hash, policy set, catalog version): what approvals and grants name.
    """

    source: Literal["caller", "playbook", "model"]
    playbook: str | None = None
    seen_integrity: int = Field(default=3, ge=0, le=3)
    model: str | None = None
    router: str | None = None
    fallbacks: tuple[str, ...] = ()
    attempts: int = Field(default=1, ge=1)
    policy_set_hash: str = ""
    catalog_version: str = ""
    vetting_id: str = ""


class PlanVersion(Frozen):
    """One version of a run's plan. ``repair`` is the number of the repair that it comes from; 0 for the first version."""

    plan_version: int = Field(ge=1)
    plan_ref: PayloadRef
    plan_hash: str
    provenance: PlanProvenance
    repair: int = Field(default=0, ge=0)


class ErrorInfo(Frozen):
    """Why something ended badly: stable code and words for people."""

    code: str
    message: str


class Run(Frozen):
    """One request being worked on. ``version`` grows by one with each change (optimistic concurrency).

    ``suspensions`` counts how often it was suspended, ``suspended_reason`` says why it was the last time: somebody asked for it,
    or its budget did not cover a step. A run that does another one again has that as ``parent_run_id``, from the step
    ``rerun_from`` on where one was named. ``earlier_plans`` are the versions that repairs have replaced, oldest first;
    ``plan_repair`` is the repair that the plan in force comes from (0: none), ``proposed_plan`` a version that is not in force
    (yet), ``repairs_decided`` the last repair that was accepted or refused.
    """

    tenant_id: WireId
    run_id: WireId
    status: RunStatus
    title: str = Field(max_length=MAX_TITLE_CHARS)
    request_ref: PayloadRef
    principal: Principal
    created_at: UtcDatetime
    updated_at: UtcDatetime
    deadline_at: UtcDatetime
    finished_at: UtcDatetime | None = None
    plan_version: int = 0
    plan_ref: PayloadRef | None = None
    plan_hash: str | None = None
    provenance: PlanProvenance | None = None
    plan_repair: int = 0
    earlier_plans: tuple[PlanVersion, ...] = ()
    proposed_plan: PlanVersion | None = None
    repairs_decided: int = 0
    answer_ref: PayloadRef | None = None
    degraded_reason: str | None = None
    error: ErrorInfo | None = None
    cost_micro_usd: int = 0
    traceparent: str | None = None
    parent_run_id: WireId | None = None
    rerun_from: WireId | None = None
    suspensions: int = 0
    suspended_reason: Literal["request", "budget"] | None = None
    version: int = 1

    @property
    def plan_in_force(self) -> PlanVersion | None:
        """The version of the plan that runs, once one was accepted."""
        if not self.plan_version or self.plan_ref is None or self.plan_hash is None or self.provenance is None:
            return None
        return PlanVersion(
            plan_version=self.plan_version,
            plan_ref=self.plan_ref,
            plan_hash=self.plan_hash,
            provenance=self.provenance,
            repair=self.plan_repair,
        )

    @property
    def degraded(self) -> bool:
        """True when part of the run was done without a model."""
        return self.degraded_reason is not None


class StepRecord(Frozen):
    """The latest state of one step, or of one item of a ``for_each`` step (``item`` counts from 0).

    ``approval_id`` is set while the step waits for that approval. ``degraded`` is set once something stands in for the step's
    capability, and says why: ``fallback: agent.unreachable``. ``reused_from`` is the run whose
    work this is, when the step was not done again.
    """

    tenant_id: WireId
    run_id: WireId
    step_id: WireId
    item: int | None = None
    status: StepStatus
    attempt: int = Field(default=1, ge=1)
    capability: str | None = None
    kind: Literal["call", "map", "wait", "approval"] = "call"
    input_sha256: str | None = None
    output_ref: PayloadRef | None = None
    item_count: int | None = None
    error: ErrorInfo | None = None
    retryable: bool = False
    degraded: str | None = None
    reused_from: WireId | None = None
    approval_id: str | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    cost_micro_usd: int = 0

    @property
    def duration_ms(self) -> int | None:
        """Wall time of the last attempt in milliseconds, once it finished."""
        if self.started_at is None or self.finished_at is None:
            return None
        return round((self.finished_at - self.started_at).total_seconds() * 1000)
