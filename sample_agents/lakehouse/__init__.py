"""``lakehouse.report``: prepared reports, run by a Databricks job, or by SQLite over the sample data where none is configured."""

from sample_agents.lakehouse.capability import register
from sample_agents.lakehouse.databricks_jobs import DatabricksEngine, DatabricksSettings, read_settings
from sample_agents.lakehouse.local_sql import SqliteEngine

__all__ = ["DatabricksEngine", "DatabricksSettings", "SqliteEngine", "read_settings", "register"]
