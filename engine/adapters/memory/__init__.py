"""The stores in memory: for tests and small tools. They honour the same contract suites as the durable ones and keep nothing."""

from engine.adapters.memory.approvals import MemoryApprovalStore
from engine.adapters.memory.assignments import MemoryAssignments
from engine.adapters.memory.audit_log import MemoryAuditLog
from engine.adapters.memory.budget import MemoryBudgetLedger
from engine.adapters.memory.catalog import MemoryCatalog
from engine.adapters.memory.clock import FixedClock, SystemClock
from engine.adapters.memory.ended_runs import MemoryEndedRuns
from engine.adapters.memory.model_results import MemoryModelResults
from engine.adapters.memory.payload_objects import MemoryPayloadObjects
from engine.adapters.memory.payload_store import MemoryPayloadStore
from engine.adapters.memory.permits import MemoryPermitLedger
from engine.adapters.memory.result_cache import MemoryResultCache
from engine.adapters.memory.run_keys import MemoryRunKeys
from engine.adapters.memory.run_store import MemoryEventLog, MemoryOutbox, MemoryRunStore
from engine.adapters.memory.tenant_configs import MemoryTenantVersions
from engine.adapters.memory.tenant_directory import MemoryTenantDirectory

__all__ = [
    "FixedClock",
    "MemoryApprovalStore",
    "MemoryAssignments",
    "MemoryAuditLog",
    "MemoryBudgetLedger",
    "MemoryCatalog",
    "MemoryEndedRuns",
    "MemoryEventLog",
    "MemoryModelResults",
    "MemoryOutbox",
    "MemoryPayloadObjects",
    "MemoryPayloadStore",
    "MemoryPermitLedger",
    "MemoryResultCache",
    "MemoryRunKeys",
    "MemoryRunStore",
    "MemoryTenantDirectory",
    "MemoryTenantVersions",
    "SystemClock",
]
