"""Assignments in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from engine.adapters.assignment_rules import OPEN, Rule, RuledAssignments, is_overdue
from engine.adapters.store_rules import bounded
from engine.domain.bus import Assignment

T = TypeVar("T")


class MemoryAssignments(RuledAssignments):
    """Assignments by tenant, run and key."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Assignment] = {}

    async def overdue(self, now: datetime, *, unsent_since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments.overdue``. At most 1,000."""
        found = [row for row in self._rows.values() if is_overdue(row, now, unsent_since)]
        return tuple(sorted(found, key=lambda row: (row.created_at, row.key))[: bounded(limit)])

    async def ended_since(self, since: datetime, limit: int) -> tuple[Assignment, ...]:
        """See ``Assignments.ended_since``. At most 1,000."""
        found = [(row.ended_at, row.key, row) for row in self._rows.values() if row.ended_at and row.ended_at >= since]
        return tuple(row for _, _, row in sorted(found, key=lambda entry: entry[:2])[: bounded(limit)])

    async def remove_run(self, tenant_id: str, run_id: str) -> int:
        """See ``Assignments.remove_run``."""
        gone = [key for key in self._rows if key[:2] == (tenant_id, run_id)]
        for key in gone:
            del self._rows[key]
        return len(gone)

    async def _update(self, tenant_id: str, run_id: str, key: str, rule: Rule[T]) -> T:
        answer, row = rule(self._rows.get((tenant_id, run_id, key)))
        if row is not None:
            self._rows[tenant_id, run_id, key] = row
        return answer

    async def _open_of(self, tenant_id: str, run_id: str) -> tuple[Assignment, ...]:
        rows = self._rows.items()
        return tuple(row for key, row in rows if key[:2] == (tenant_id, run_id) and row.status in OPEN)
