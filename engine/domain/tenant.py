"""What the platform knows about a tenant: who may call for it, what it may use, and how much."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.domain.base import Frozen
from engine.domain.ids import WireId

PLATFORM_MAX_STEPS = 5_000
PLATFORM_MAX_ITEMS = 10_000
PLATFORM_MAX_JSON_DEPTH = 64
PLATFORM_MAX_PLAN_BYTES = 4 * 1024 * 1024


class Bounds(Frozen):
    """Limits of one run of this tenant. None exceeds the platform's."""

    max_steps: int = Field(default=200, ge=1, le=PLATFORM_MAX_STEPS)
    max_depth: int = Field(default=64, ge=1, le=PLATFORM_MAX_STEPS)
    max_fan_out: int = Field(default=1_000, ge=1, le=PLATFORM_MAX_ITEMS)
    max_parallel_steps: int = Field(default=32, ge=1, le=64)
    max_wall_time_s: float = Field(default=3_600, gt=0, le=30 * 86_400)
    max_cost_micro_usd: int = Field(default=5_000_000, ge=0)


class ModelChoice(Frozen):
    """Which model deployments work for this tenant, by name and in order of preference: the first, then its fallbacks.

    Addresses and keys are settings of the platform, not of a tenant. An empty list means the platform's defaults for that
    work, which may be none: then the deterministic degraded mode does it.
    """

    router: tuple[str, ...] = Field(default=(), max_length=8)
    planner: tuple[str, ...] = Field(default=(), max_length=8)
    synthesiser: tuple[str, ...] = Field(default=(), max_length=8)


class PlannerRules(Frozen):
    """How planning works for this tenant. ``max_repairs`` bounds how often a rejected proposal goes back to the model."""

    self_critique: Literal["never", "on_risk", "always"] = "on_risk"
    max_repairs: int = Field(default=2, ge=0, le=5)


class ApprovalRules(Frozen):
    """How long a requested approval may be answered, in seconds."""

    timeout_s: float = Field(default=86_400, gt=0, le=5 * 86_400)


class AnswerRules(Frozen):
    """Hosts that links and images of an answer may point to. Others are removed."""

    link_hosts: tuple[str, ...] = Field(default=(), max_length=200)


class TrustedIssuer(Frozen):
    """One (issuer, directory) pair whose tokens speak for this tenant."""

    issuer: str = Field(min_length=1, max_length=300)
    directory_id: str = Field(min_length=1, max_length=100)
    """The ``tid`` claim."""


class TenantConfig(Frozen):
    """One tenant's configuration (``catalog/tenants/{tenant}.yaml`` or a configuration store)."""

    tenant_id: WireId
    display_name: str = Field(min_length=1, max_length=200)
    status: Literal["active", "suspended"] = "active"
    region: str = "any"
    tier: Literal["shared", "dedicated"] = "shared"
    issuers: tuple[TrustedIssuer, ...] = ()
    allowed_client_apps: tuple[str, ...] = ()
    enabled_capabilities: tuple[str, ...] = ()
    bounds: Bounds = Bounds()
    models: ModelChoice = ModelChoice()
    planner: PlannerRules = PlannerRules()
    approvals: ApprovalRules = ApprovalRules()
    answer: AnswerRules = AnswerRules()
    directories: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Trusted values by directory name (``recipients``, ``accounts``, …): a literal that stands in one is grounded."""

    def enables(self, capability: str) -> bool:
        """True when steps of this tenant may ask for ``capability``."""
        return capability in self.enabled_capabilities
