"""The database's own refusal to change or remove audit records: triggers, for SQLite and PostgreSQL.

It keeps the application, with all its bugs, from rewriting evidence. It keeps nobody from it who may change the schema: what they
do is found by checking the chain against its anchors. In PostgreSQL give the application a role that does not own the tables.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

# REPLACE would remove a row without a DELETE that a trigger sees, so an insert over a row is refused by itself.
_SQLITE = (
    """CREATE TRIGGER IF NOT EXISTS audit_records_not_updated BEFORE UPDATE ON audit_records
        BEGIN SELECT RAISE(ABORT, 'audit records are written once'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_records_not_deleted BEFORE DELETE ON audit_records
        BEGIN SELECT RAISE(ABORT, 'audit records are written once'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_records_not_replaced BEFORE INSERT ON audit_records
        WHEN EXISTS (SELECT 1 FROM audit_records WHERE tenant_id = NEW.tenant_id AND seq = NEW.seq)
          OR EXISTS (SELECT 1 FROM audit_records WHERE tenant_id = NEW.tenant_id AND entry_id = NEW.entry_id)
        BEGIN SELECT RAISE(ABORT, 'audit records are written once'); END""",
)
_POSTGRESQL = (
    """CREATE OR REPLACE FUNCTION audit_records_written_once() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'audit records are written once' USING ERRCODE = 'restrict_violation'; END $$""",
    "DROP TRIGGER IF EXISTS audit_records_written_once ON audit_records",
    """CREATE TRIGGER audit_records_written_once BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
       FOR EACH STATEMENT EXECUTE FUNCTION audit_records_written_once()""",
)


def guard_audit_records(connection: Connection) -> None:
    """Make the triggers. Repeatable."""
    for statement in _POSTGRESQL if connection.dialect.name == "postgresql" else _SQLITE:
        connection.execute(text(statement))
