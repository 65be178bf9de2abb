"""Tenants: who they are, and which (issuer, directory) speaks for which of them."""

from __future__ import annotations

from typing import Protocol

from engine.domain.tenant import TenantConfig


class TenantDirectory(Protocol):
    """Tenant configuration, read-only. Implementations may cache for seconds."""

    async def get(self, tenant_id: str) -> TenantConfig | None:
        """The tenant's configuration, or None."""
        ...

    async def by_directory(self, issuer: str, directory_id: str) -> TenantConfig | None:
        """The tenant for which tokens of this issuer and ``tid`` speak, or None when it is not onboarded."""
        ...

    async def all(self) -> tuple[TenantConfig, ...]:
        """Every tenant, in order of id."""
        ...
