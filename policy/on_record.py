"""A decision point that has it put on record when what it decides by has changed: the policies, or the tenant's configuration."""

from __future__ import annotations

from typing import TypeVar

from engine.domain.errors import LivoaError
from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest, PolicyDecision, StepPolicyRequest
from engine.domain.tenant import TenantConfig
from engine.domain.tenant_changes import config_sha256
from engine.ports.catalog import Catalog
from engine.ports.in_force import InForceLog
from engine.ports.policy import PolicyEngine
from policy.cedar import engine_version
from policy.hashes import sha256_of
from policy.library import PolicyLibrary

_MAX_TENANTS = 20_000
T = TypeVar("T")


class RecordingPolicyEngine:
    """Implements the ``PolicyEngine`` port over another one. What is noted is noted before the decision is made."""

    def __init__(self, inner: PolicyEngine, library: PolicyLibrary, catalog: Catalog, records: InForceLog) -> None:
        self._inner, self._library, self._catalog, self._records = inner, library, catalog, records
        # Names alone: the compiled policies of so many tenants are the library's to keep or let go.
        self._policies: dict[str, tuple[tuple[str, ...], str]] = {}
        self._configs: dict[str, tuple[TenantConfig, str]] = {}

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """See ``PolicyEngine.decide_plan``."""
        await self._note(request.tenant)
        return await self._inner.decide_plan(request)

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """See ``PolicyEngine.decide_step``."""
        await self._note(request.tenant)
        return await self._inner.decide_step(request)

    async def _note(self, tenant: TenantConfig) -> None:
        await self._note_config(tenant)
        try:
            today = await self._library.in_force(tenant.tenant_id)
            schema = self._library.words().hash
        except LivoaError:
            return  # nothing is in force; the decision says so
        names = (today.book.hash, today.platform.hash, schema, self._catalog.version, engine_version())
        kept = self._policies.get(tenant.tenant_id)
        if kept is None or kept[0] != names:
            kept = (names, sha256_of(list(names)))
            _bounded(self._policies)[tenant.tenant_id] = kept
        if not self._records.is_noted(tenant.tenant_id, "policy", kept[1]):
            facts = {
                "policy_set": today.book.hash,
                "platform_set": today.platform.hash,
                "schema": schema,
                "catalog": self._catalog.version,
                "engine": engine_version(),
                "rules": len(today.book.rules),
            }
            await self._records.note(tenant.tenant_id, "policy", kept[1], facts)

    async def _note_config(self, tenant: TenantConfig) -> None:
        kept = self._configs.get(tenant.tenant_id)
        if kept is None or (kept[0] is not tenant and kept[0] != tenant):
            kept = (tenant, config_sha256(tenant))
            _bounded(self._configs)[tenant.tenant_id] = kept
        if not self._records.is_noted(tenant.tenant_id, "config", kept[1]):
            await self._records.note(tenant.tenant_id, "config", kept[1], {"version": tenant.version})


def _bounded(kept: dict[str, T]) -> dict[str, T]:
    while len(kept) >= _MAX_TENANTS:
        kept.pop(next(iter(kept)))
    return kept
