"""A fixed set of tenants."""

from __future__ import annotations

from collections.abc import Iterable

from engine.domain.tenant import TenantConfig


class MemoryTenantDirectory:
    """Tenants as given. Raises ``ValueError`` when two tenants claim one tenant id or one (issuer, directory) pair."""

    def __init__(self, tenants: Iterable[TenantConfig]) -> None:
        self._tenants: dict[str, TenantConfig] = {}
        self._directories: dict[tuple[str, str], TenantConfig] = {}
        for tenant in tenants:
            if self._tenants.setdefault(tenant.tenant_id, tenant) is not tenant:
                raise ValueError(f"tenant {tenant.tenant_id} is given twice")
            for trusted in tenant.issuers:
                pair = (trusted.issuer, trusted.directory_id)
                if self._directories.setdefault(pair, tenant) is not tenant:
                    raise ValueError(f"{pair} speaks for two tenants")

    async def get(self, tenant_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.get``."""
        return self._tenants.get(tenant_id)

    async def by_directory(self, issuer: str, directory_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.by_directory``."""
        return self._directories.get((issuer, directory_id))

    async def all(self) -> tuple[TenantConfig, ...]:
        """See ``TenantDirectory.all``."""
        return tuple(self._tenants[tenant_id] for tenant_id in sorted(self._tenants))
