"""The writes around a call of a capability, in two transactions: one before it, one after it.

Nothing else changes for a reader: the same rows, written by the same functions as those of the single stores. A transaction takes
the run's row first, as every writer of a run does, then the accounts, then the head of the tenant's chain: what all runs of a
tenant share is held shortest, and no two transactions wait for each other in a circle. But for midnight, where hosts whose clocks
differ may hold two days the other way round: PostgreSQL notices, and the write is made again.
"""

from __future__ import annotations

from sqlalchemy import Connection

from engine.adapters.sql.audit_log import record_in
from engine.adapters.sql.budget import reserve_in, settle_in
from engine.adapters.sql.engine import Database
from engine.adapters.sql.run_store import place_of_step, write_step
from engine.domain.audit import AuditEntry, AuditRecord
from engine.domain.errors import NotFoundError
from engine.domain.run import StepRecord
from engine.evidence.on_record import put_on_record
from engine.limits.amounts import NOTHING, Amount
from engine.ports.audit_log import AuditLog, as_recorded, chained
from engine.ports.calls import Closing, NotIntended, Opened, Opening, OpeningResult, OutOfBudget, Void


class SqlCallLedger:
    """Both writes of a call in a ``Database``, by its clock. ``audit`` is the app's audit log over the same database: what its
    wrappers make of an entry, and do about a record, they do here too."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database, self._audit = database, audit

    async def open(self, opening: Opening) -> OpeningResult:
        """See ``CallLedger.open``. Raises nothing: every failure is one over the intent."""
        try:
            wanted = await as_recorded(opening.intent, self._audit)
            opened = await self._database.write(lambda connection: self._open(connection, opening, wanted))
        except Exception as err:
            return NotIntended(err)
        if isinstance(opened, Opened):
            await self._tell(opening.step.record, opened.intent)
        return opened

    def _open(self, connection: Connection, opening: Opening, wanted: AuditEntry) -> OpeningResult:
        step, now = opening.step.record, self._database.clock.now()
        place = place_of_step(connection, step)
        if place is None:
            settle_in(connection, step.tenant_id, step.run_id, opening.key, NOTHING)
            return Void()
        for key in opening.abandoned:
            settle_in(connection, step.tenant_id, step.run_id, key, NOTHING)
        amount, day = Amount(opening.amount_micro_usd), now.date().isoformat()
        if not reserve_in(connection, step.tenant_id, step.run_id, opening.key, amount, day):
            return OutOfBudget()
        write_step(connection, opening.step, place, now)
        return Opened(record_in(connection, wanted))

    async def close(self, closing: Closing) -> bool:
        """See ``CallLedger.close``."""
        wanted = await as_recorded(closing.result, self._audit)
        try:
            written, record = await self._database.write(lambda connection: self._close(connection, closing, wanted))
        except NotFoundError:  # the run was erased meanwhile; the chain says all the same what came of the call
            await put_on_record(closing.result, self._audit)
            raise
        await self._tell(closing.step.record, record)
        return written

    def _close(self, connection: Connection, closing: Closing, wanted: AuditEntry) -> tuple[bool, AuditRecord]:
        step = closing.step.record
        place = place_of_step(connection, step)
        if place is not None:
            write_step(connection, closing.step, place, self._database.clock.now())
        settle_in(connection, step.tenant_id, step.run_id, closing.key, Amount(closing.spent_micro_usd))
        return place is not None, record_in(connection, wanted)

    async def _tell(self, step: StepRecord, record: AuditRecord) -> None:
        self._database.wakeups.notify((step.tenant_id, step.run_id))
        await chained(record, self._audit)
