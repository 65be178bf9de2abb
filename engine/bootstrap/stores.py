"""Opens the stores that settings ask for. All of them keep what they promise in one place: a relational database or Cosmos DB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from engine.adapters.tenant_configs import VersionStore
from engine.adapters.wakeups import Wakeups
from engine.bootstrap.settings import Settings
from engine.domain.errors import LivoaError
from engine.ports.audit_log import AuditLog
from engine.ports.calls import CallLedger
from engine.ports.clock import Clock
from engine.ports.quota import PermitLedger
from engine.ports.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Stores:
    """``audit``, ``versions`` and ``permits`` are wrapped before they become ports; ``ports`` are fields of ``Deps`` already.
    ``calls`` makes the ledger of calls around the wrapped audit log, or None where the stores are not one database."""

    audit: AuditLog
    versions: VersionStore
    permits: PermitLedger
    ports: dict[str, Any]
    calls: Callable[[AuditLog], CallLedger | None]


def open_stores(settings: Settings, clock: Clock, telemetry: Telemetry) -> Stores:
    """Connects to nothing: every store opens on first use."""
    if settings.stores.cosmos is not None:
        return _cosmos(settings, clock, telemetry)
    return _sql(settings, clock)


def _sql(settings: Settings, clock: Clock) -> Stores:
    from engine.adapters.sql import (
        Database,
        SqlApprovalStore,
        SqlAssignments,
        SqlAuditLog,
        SqlBudgetLedger,
        SqlCallLedger,
        SqlEndedRuns,
        SqlEventLog,
        SqlModelResults,
        SqlOutbox,
        SqlPermitLedger,
        SqlResultCache,
        SqlRunKeys,
        SqlRunStore,
        SqlTenantVersions,
    )

    database = Database(settings.database_url, clock, wakeups=_wakeups(settings), outbox=settings.bus.bus is not None)
    ports = {
        "runs": SqlRunStore(database, clock),
        "events": SqlEventLog(database, clock),
        "approvals": SqlApprovalStore(database, clock),
        "budgets": SqlBudgetLedger(database),
        "model_results": SqlModelResults(database),
        "result_cache": SqlResultCache(database),
        "assignments": SqlAssignments(database),
        "run_keys": SqlRunKeys(database),
        "outbox": SqlOutbox(database),
        "ended_runs": SqlEndedRuns(database),
    }
    audit, versions, permits = SqlAuditLog(database), SqlTenantVersions(database), SqlPermitLedger(database)
    return Stores(audit, versions, permits, ports, lambda wrapped: SqlCallLedger(database, wrapped))


def _cosmos(settings: Settings, clock: Clock, telemetry: Telemetry) -> Stores:
    from engine.adapters.cosmos import (
        CosmosApprovalStore,
        CosmosAssignments,
        CosmosAuditLog,
        CosmosBudgetLedger,
        CosmosConnection,
        CosmosEndedRuns,
        CosmosEventLog,
        CosmosModelResults,
        CosmosOutbox,
        CosmosPermitLedger,
        CosmosResultCache,
        CosmosRunKeys,
        CosmosRunStore,
        CosmosTenantVersions,
        RunPartitions,
    )

    assert settings.stores.cosmos is not None
    connection = CosmosConnection(settings.stores.cosmos, telemetry)
    partitions = RunPartitions(connection, clock, wakeups=_wakeups(settings), outbox=settings.bus.bus is not None)
    ports = {
        "runs": CosmosRunStore(partitions),
        "events": CosmosEventLog(partitions),
        "approvals": CosmosApprovalStore(partitions),
        "budgets": CosmosBudgetLedger(connection, clock),
        "model_results": CosmosModelResults(connection),
        "result_cache": CosmosResultCache(connection),
        "assignments": CosmosAssignments(connection),
        "run_keys": CosmosRunKeys(connection),
        "outbox": CosmosOutbox(connection),
        "ended_runs": CosmosEndedRuns(partitions),
    }
    audit, versions = CosmosAuditLog(connection), CosmosTenantVersions(connection)
    return Stores(audit, versions, CosmosPermitLedger(connection, clock), ports, lambda _: None)


def _wakeups(settings: Settings) -> Wakeups:
    if settings.stores.redis_url is None:
        return Wakeups()
    if find_spec("redis") is None:
        message = "setting LIVOA_REDIS_URL: needs the library of requirements-redis.txt"
        raise LivoaError("settings.invalid", message, status=500, pointer="/LIVOA_REDIS_URL")
    from engine.adapters.redis import RedisWakeups

    return RedisWakeups(settings.stores.redis_url)
