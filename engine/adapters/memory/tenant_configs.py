"""Versions of tenants' configurations, in memory."""

from __future__ import annotations

from engine.adapters.tenant_configs import MAX_VERSIONS_READ, conflict
from engine.ports.tenant_configs import TenantVersion


class MemoryTenantVersions:
    """Versions by tenant, oldest first."""

    def __init__(self) -> None:
        self._versions: dict[str, list[TenantVersion]] = {}

    async def latest(self, tenant_id: str) -> TenantVersion | None:
        """See ``VersionStore.latest``."""
        known = self._versions.get(tenant_id)
        return known[-1] if known else None

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """See ``VersionStore.add``."""
        known = self._versions.setdefault(tenant_id, [])
        if known and known[-1].config.version >= version.config.version:
            same = (known[-1].config.version, known[-1].sha256) == (version.config.version, version.sha256)
            if same:
                return
            raise conflict()
        known.append(version)

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """See ``VersionStore.versions``."""
        known = self._versions.get(tenant_id, [])
        found = [version for version in reversed(known) if below is None or version.config.version < below]
        return tuple(found[: max(0, min(limit, MAX_VERSIONS_READ))])
