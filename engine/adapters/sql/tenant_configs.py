"""Versions of tenants' configurations as rows that are only ever inserted.

(tenant, version) is the primary key, so two writers of one number cannot both succeed: the slower one's transaction is run again
and then finds the other's row.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, insert, select

from engine.adapters.sql.engine import Database
from engine.adapters.sql.tables import TENANT_VERSIONS
from engine.adapters.tenant_configs import MAX_VERSIONS_READ, conflict
from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError
from engine.domain.tenant import TenantConfig
from engine.ports.tenant_configs import TenantVersion

_TABLE = TENANT_VERSIONS.c


class SqlTenantVersions:
    """``VersionStore`` in a ``Database``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, tenant_id: str) -> TenantVersion | None:
        """See ``VersionStore.latest``."""
        found = await self.versions(tenant_id, below=None, limit=1)
        return found[0] if found else None

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """See ``VersionStore.add``. Durable (synced) when it returns."""
        await self._database.write(lambda connection: _add(connection, tenant_id, version))

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """See ``VersionStore.versions``."""
        query = select(TENANT_VERSIONS).where(_TABLE.tenant_id == tenant_id).order_by(_TABLE.version.desc())
        if below is not None:
            query = query.where(_TABLE.version < below)
        query = query.limit(max(0, min(limit, MAX_VERSIONS_READ)))
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return tuple(_version(row) for row in rows)


def _add(connection: Connection, tenant_id: str, version: TenantVersion) -> None:
    number = version.config.version
    above = select(_TABLE.version, _TABLE.sha256).where(_TABLE.tenant_id == tenant_id, _TABLE.version >= number)
    found = connection.execute(above.order_by(_TABLE.version.desc()).limit(1)).one_or_none()
    if found is not None:
        if (found.version, found.sha256) == (number, version.sha256):
            return
        raise conflict()
    row = {
        "tenant_id": tenant_id,
        "version": number,
        "document": version.config.model_dump_json(),
        "sha256": version.sha256,
        "changed_by": version.changed_by,
        "changed_at": iso_utc(version.changed_at),
    }
    connection.execute(insert(TENANT_VERSIONS), row)


def _version(row: Row[Any]) -> TenantVersion:
    try:
        config = TenantConfig.model_validate_json(row.document)
    except ValidationError as err:
        message = (
            f"version {row.version} of a tenant's configuration is not understood by this version of the application"
        )
        raise LivoaError("tenants.invalid", message, status=503) from err
    return TenantVersion(config, row.sha256, row.changed_by, datetime.fromisoformat(row.changed_at))
