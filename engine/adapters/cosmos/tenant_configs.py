"""Versions of tenants' configurations: documents that are only ever created, and one that names the latest.

Both are one transaction under the etag of the latter, so of two writers of one number the slower one finds the other's.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.repository import Create, Document, Find, Replace, TenantRepository
from engine.adapters.tenant_configs import MAX_VERSIONS_READ, conflict
from engine.domain.base import iso_utc
from engine.domain.errors import LivoaError
from engine.domain.tenant import TenantConfig
from engine.ports.tenant_configs import TenantVersion

_SCOPE = "config"


class CosmosTenantVersions:
    """``VersionStore`` in a Cosmos DB database."""

    def __init__(self, connection: CosmosConnection) -> None:
        self._connection = connection

    async def latest(self, tenant_id: str) -> TenantVersion | None:
        """See ``VersionStore.latest``."""
        found = await self.versions(tenant_id, below=None, limit=1)
        return found[0] if found else None

    async def add(self, tenant_id: str, version: TenantVersion) -> None:
        """See ``VersionStore.add``. Durable when it returns."""
        repository, number = self._of(tenant_id), version.config.version
        latest = {"id": "latest", "kind": "latest", "number": number, "sha256": version.sha256}

        async def attempt() -> None:
            found = await repository.read(_SCOPE, "latest")
            if found is not None and found["number"] >= number:
                if (found["number"], found["sha256"]) == (number, version.sha256):
                    return
                raise conflict()
            head = Create(latest) if found is None else Replace(latest, found["_etag"])
            await repository.write(_SCOPE, [Create(_document(version)), head])

        await self._connection.settled(attempt)

    async def versions(self, tenant_id: str, *, below: int | None, limit: int) -> tuple[TenantVersion, ...]:
        """See ``VersionStore.versions``."""
        size = max(0, min(limit, MAX_VERSIONS_READ))
        if size == 0:
            return ()
        where, parameters = "c.kind = 'version'", {}
        if below is not None:
            where, parameters = f"{where} AND c.number < @below", {"below": below}
        find = Find(where, parameters, size, ("number",), descending=True)
        return tuple(map(_version, await self._of(tenant_id).find(find, _SCOPE)))

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, TENANTS, tenant_id)


def _document(version: TenantVersion) -> Document:
    return {
        "id": f"version:{version.config.version:012d}",
        "kind": "version",
        "number": version.config.version,
        "sha256": version.sha256,
        "changedBy": version.changed_by,
        "changedAt": iso_utc(version.changed_at),
        "document": version.config.model_dump_json(),
    }


def _version(found: Document) -> TenantVersion:
    try:
        config = TenantConfig.model_validate_json(found["document"])
    except ValidationError as err:
        message = f"version {found['number']} of a tenant's configuration is not understood by this version of the application"
        raise LivoaError("tenants.invalid", message, status=503) from err
    return TenantVersion(config, found["sha256"], found["changedBy"], datetime.fromisoformat(found["changedAt"]))
