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

    def enables(self, capability: str) -> bool:
        """True when steps of this tenant may ask for ``capability``."""
        return capability in self.enabled_capabilities
