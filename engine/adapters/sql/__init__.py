"""The stores in a relational database through SQLAlchemy Core: SQLite in one file by default, PostgreSQL by address.

Importing this package imports SQLAlchemy, which is why only engine.bootstrap does it, and lazily. Opening is cheap: nothing
connects before the first query. One ``Database`` is shared by all stores of a process.
"""

from engine.adapters.sql.approvals import SqlApprovalStore
from engine.adapters.sql.assignments import SqlAssignments
from engine.adapters.sql.audit_log import SqlAuditLog
from engine.adapters.sql.budget import SqlBudgetLedger
from engine.adapters.sql.calls import SqlCallLedger
from engine.adapters.sql.ended_runs import SqlEndedRuns
from engine.adapters.sql.engine import Database
from engine.adapters.sql.event_log import SqlEventLog
from engine.adapters.sql.model_results import SqlModelResults
from engine.adapters.sql.outbox import SqlOutbox
from engine.adapters.sql.permits import SqlPermitLedger
from engine.adapters.sql.result_cache import SqlResultCache
from engine.adapters.sql.run_keys import SqlRunKeys
from engine.adapters.sql.run_store import SqlRunStore
from engine.adapters.sql.tenant_configs import SqlTenantVersions

__all__ = [
    "Database",
    "SqlApprovalStore",
    "SqlAssignments",
    "SqlAuditLog",
    "SqlBudgetLedger",
    "SqlCallLedger",
    "SqlEndedRuns",
    "SqlEventLog",
    "SqlModelResults",
    "SqlOutbox",
    "SqlPermitLedger",
    "SqlResultCache",
    "SqlRunKeys",
    "SqlRunStore",
    "SqlTenantVersions",
]
