"""The stores in Azure Cosmos DB: runs, steps and events in one partition each, and beside them what else a tenant has.

Importing this package is light; the SDK is loaded by the first request. ``docs/stores.md`` says what an operator creates.
"""

from engine.adapters.cosmos.approvals import CosmosApprovalStore
from engine.adapters.cosmos.assignments import CosmosAssignments
from engine.adapters.cosmos.audit_log import CosmosAuditLog
from engine.adapters.cosmos.budget import CosmosBudgetLedger
from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.ended_runs import CosmosEndedRuns
from engine.adapters.cosmos.event_log import CosmosEventLog
from engine.adapters.cosmos.model_results import CosmosModelResults
from engine.adapters.cosmos.outbox import CosmosOutbox
from engine.adapters.cosmos.permits import CosmosPermitLedger
from engine.adapters.cosmos.result_cache import CosmosResultCache
from engine.adapters.cosmos.run_keys import CosmosRunKeys
from engine.adapters.cosmos.run_partition import RunPartitions
from engine.adapters.cosmos.run_store import CosmosRunStore
from engine.adapters.cosmos.tenant_configs import CosmosTenantVersions
from engine.adapters.cosmos_settings import CosmosSettings

__all__ = [
    "CosmosApprovalStore",
    "CosmosAssignments",
    "CosmosAuditLog",
    "CosmosBudgetLedger",
    "CosmosConnection",
    "CosmosEndedRuns",
    "CosmosEventLog",
    "CosmosModelResults",
    "CosmosOutbox",
    "CosmosPermitLedger",
    "CosmosResultCache",
    "CosmosRunKeys",
    "CosmosRunStore",
    "CosmosSettings",
    "CosmosTenantVersions",
    "RunPartitions",
]
