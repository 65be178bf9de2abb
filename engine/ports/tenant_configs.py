"""The configuration of tenants as it can be changed: what holds, what was before, and adding a version.

``TenantDirectory`` is for reading it on every request; this is for the admin of one tenant, so nothing here is cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from engine.domain.errors import LivoaError
from engine.domain.tenant import TenantConfig


@dataclass(frozen=True, slots=True)
class CurrentTenant:
    """``base`` is the operator's page, ``config`` what holds (``engine.domain.tenant_changes.effective``)."""

    base: TenantConfig
    config: TenantConfig


@dataclass(frozen=True, slots=True)
class TenantVersion:
    """One change of a tenant's configuration, as its admin wrote it. ``changed_by`` is the subject of the principal."""

    config: TenantConfig
    sha256: str
    changed_by: str
    changed_at: datetime


class TenantConfigs(Protocol):
    """Configurations and their versions. Versions are only ever added."""

    async def current(self, tenant_id: str) -> CurrentTenant | None:
        """What holds now, or None for a tenant that the operator has not onboarded."""
        ...

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """Add a version of ``tenant_id``; it holds from now on.

        Raises ``ConflictError("tenant.version_conflict")`` unless its number is above every other, the operator's included:
        somebody else was quicker. The very same version again (number and hash) changes nothing.
        """
        ...

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """Versions with a number below ``below``, newest first. At most 200 a call."""
        ...


class NoTenantConfigs:
    """Where no configuration can be kept, none can be changed."""

    async def current(self, tenant_id: str) -> CurrentTenant | None:
        """See ``TenantConfigs``."""
        raise self._unavailable()

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """See ``TenantConfigs``."""
        raise self._unavailable()

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """See ``TenantConfigs``."""
        raise self._unavailable()

    @staticmethod
    def _unavailable() -> LivoaError:
        return LivoaError("tenants.unavailable", "Tenant configurations cannot be changed here.", status=503)
