"""The containers: keys, time-to-live and indexes. What an operator creates, and what nothing here creates by itself.

Every container is partitioned by tenant first. The key is where data lies, not who may read it: access is granted for whole
containers, so the confinement to one tenant is ``TenantRepository``'s. Key paths cannot be changed once a container exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TENANT = "tenantId"
SCHEMA = "schemaVersion"
"""The field of every document that says which version of its layout it has; documents without it have version 1."""
DOCUMENT_VERSION = 1
"""The layout that this application writes, of all kinds but ``LATER_LAYOUTS``. It grows when an older application would misread
what is written; this one then reads all versions until then."""
LATER_LAYOUTS = {"account": 2}
"""Kinds of documents whose layout has changed since, and its number now. 2: a budget account holds sums, and no keys."""


@dataclass(frozen=True, slots=True)
class ContainerDefinition:
    """``level`` is the second part of the hierarchical key, after the tenant. ``default_ttl_s``: None is off, -1 lets a document
    name its own. ``composites`` are the orders over two fields that queries ask for.
    Text that no query looks into is not indexed."""

    name: str
    level: str
    default_ttl_s: int | None
    composites: tuple[tuple[tuple[str, str], ...], ...] = ()
    unique: tuple[str, ...] = ()
    """Paths of which no two documents of one logical partition have the same value."""

    @property
    def properties(self) -> dict[str, Any]:
        """As the service's REST interface, and with it an ARM or Bicep template, names them."""
        ordered = [[{"path": path, "order": order} for path, order in index] for index in self.composites]
        found: dict[str, Any] = {
            "id": self.name,
            "partitionKey": {"paths": [f"/{TENANT}", f"/{self.level}"], "kind": "MultiHash", "version": 2},
            "indexingPolicy": {
                "indexingMode": "consistent",
                "includedPaths": [{"path": "/*"}],
                "excludedPaths": [{"path": "/document/?"}, {"path": "/events/*"}, {"path": '/"_etag"/?'}],
                "compositeIndexes": ordered,
            },
        }
        if self.unique:
            found["uniqueKeyPolicy"] = {"uniqueKeys": [{"paths": [path]} for path in self.unique]}
        return found if self.default_ttl_s is None else found | {"defaultTtl": self.default_ttl_s}


RUNS = ContainerDefinition(
    "runs",
    "runId",
    -1,
    (
        (("/createdAt", "ascending"), ("/runId", "ascending")),
        (("/requestedAt", "ascending"), ("/approvalId", "ascending")),
        (("/decidedAt", "ascending"), ("/approvalId", "ascending")),
        (("/createdAt", "ascending"), ("/key", "ascending")),
        (("/endedAt", "ascending"), ("/key", "ascending")),
    ),
)
"""A run with its steps, events, approvals, assignments to workers and results of models: one logical partition, so one
transaction."""

AUDIT = ContainerDefinition("audit", "span", None, unique=("/entryId",))
"""Audit chains. Nothing here ever expires; the app's identity should have no right to delete in it."""

TENANTS = ContainerDefinition("tenants", "scope", -1)
"""What a tenant has beside its runs: versions of its configuration, claims on idempotency keys, budgets, permits, cached
results."""

CONTAINERS = (RUNS, AUDIT, TENANTS)
