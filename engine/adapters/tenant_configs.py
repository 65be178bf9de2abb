"""The operator's pages and the changes of tenants' admins, as one directory: the read port of every request and the admin's port.

Which of the two decides what stands in ``engine.domain.tenant_changes``. A change is seen by every process within
``LOOK_AGAIN_AFTER_S``, by the one that made it at once. While changes cannot be read, no tenant can: going on with the operator's
page alone would undo what an admin has narrowed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from engine.domain.errors import ConflictError
from engine.domain.tenant import TenantConfig
from engine.domain.tenant_changes import effective
from engine.ports.clock import Clock
from engine.ports.tenant_configs import CurrentTenant, TenantVersion
from engine.ports.tenant_directory import TenantDirectory

LOOK_AGAIN_AFTER_S = 2.0
MAX_VERSIONS_READ = 200


class VersionStore(Protocol):
    """Versions by tenant and number, append-only."""

    async def latest(self, tenant_id: str) -> TenantVersion | None:
        """The version with the highest number."""
        ...

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """See ``TenantConfigs.add``; the operator's number is the caller's business."""
        ...

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """See ``TenantConfigs.versions``."""
        ...


def conflict() -> ConflictError:
    """The refusal of a version that comes too late."""
    return ConflictError(
        "tenant.version_conflict", "Somebody else has changed this configuration meanwhile; read it again."
    )


class VersionedTenants:
    """``TenantDirectory`` and ``TenantConfigs`` over the operator's pages and a store of versions."""

    def __init__(self, pages: TenantDirectory, store: VersionStore, clock: Clock) -> None:
        self._pages, self._store, self._clock = pages, store, clock
        self._seen: dict[str, tuple[datetime, TenantConfig | None]] = {}

    async def get(self, tenant_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.get``."""
        base = await self._pages.get(tenant_id)
        return None if base is None else effective(base, await self._own(tenant_id))

    async def by_directory(self, issuer: str, directory_id: str) -> TenantConfig | None:
        """See ``TenantDirectory.by_directory``. Whom a tenant trusts is the operator's alone."""
        base = await self._pages.by_directory(issuer, directory_id)
        return None if base is None else effective(base, await self._own(base.tenant_id))

    async def all(self) -> tuple[TenantConfig, ...]:
        """See ``TenantDirectory.all``."""
        return tuple([effective(base, await self._own(base.tenant_id)) for base in await self._pages.all()])

    async def current(self, tenant_id: str) -> CurrentTenant | None:
        """See ``TenantConfigs.current``."""
        base = await self._pages.get(tenant_id)
        if base is None:
            return None
        return CurrentTenant(base, effective(base, await self._look(tenant_id)))

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """See ``TenantConfigs.add``."""
        base = await self._pages.get(tenant_id)
        if base is None or version.config.version <= base.version:
            raise conflict()
        await self._store.add(tenant_id, version)
        self._seen.pop(tenant_id, None)

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """See ``TenantConfigs.versions``."""
        return await self._store.versions(tenant_id, below=below, limit=limit)

    async def _own(self, tenant_id: str) -> TenantConfig | None:
        seen = self._seen.get(tenant_id)
        # The lower bound: after a clock was set back, "not yet" could last for hours.
        if seen is not None and timedelta() <= self._clock.now() - seen[0] < timedelta(seconds=LOOK_AGAIN_AFTER_S):
            return seen[1]
        return await self._look(tenant_id)

    async def _look(self, tenant_id: str) -> TenantConfig | None:
        # The time before the question: a change in between is seen next time.
        at = self._clock.now()
        found = await self._store.latest(tenant_id)
        own = found.config if found is not None else None
        self._seen[tenant_id] = (at, own)
        return own
