"""Faults to plant into the commits around a call: each must be noticed by a seed (``test_call_faults``)."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Connection

from engine.adapters.sql import SqlCallLedger
from engine.adapters.sql import calls as sql_calls
from engine.adapters.sql.audit_log import record_in
from engine.adapters.sql.budget import settle_in
from engine.domain.audit import AuditEntry
from engine.evidence import chain
from engine.limits.amounts import Amount
from engine.ports.calls import Closing, Opened, Opening, OpeningResult, Void


def _without(name: str, instead: Any, work: Any) -> Any:
    """What ``work`` returns while a part of the transaction is left out. Transactions run inline here, one at a time."""
    real = getattr(sql_calls, name)
    setattr(sql_calls, name, instead)
    try:
        return work()
    finally:
        setattr(sql_calls, name, real)


class IntentLeftOut(SqlCallLedger):
    """The intent is not in the first commit, nor anywhere."""

    def _open(self, connection: Connection, opening: Opening, wanted: AuditEntry) -> OpeningResult:
        work = super()._open
        return _without("record_in", lambda _, entry: chain(None, entry), lambda: work(connection, opening, wanted))


class IntentLater(IntentLeftOut):
    """The intent is written by itself, while the call is under way."""

    async def open(self, opening: Opening) -> OpeningResult:
        opened = await super().open(opening)
        if isinstance(opened, Opened):
            self._later = asyncio.ensure_future(self._chain(opening.intent))
        return opened

    async def _chain(self, intent: AuditEntry) -> None:
        await asyncio.sleep(0)
        await self._database.write(lambda connection: record_in(connection, intent))


class SettlementLater(SqlCallLedger):
    """The settlement has a commit of its own, after that of the record."""

    def _close(self, connection: Connection, closing: Closing, wanted: AuditEntry) -> Any:
        work = super()._close
        return _without("settle_in", lambda *_: None, lambda: work(connection, closing, wanted))

    async def close(self, closing: Closing) -> bool:
        written = await super().close(closing)
        step, spent = closing.step.record, Amount(closing.spent_micro_usd)
        await self._database.write(lambda found: settle_in(found, step.tenant_id, step.run_id, closing.key, spent))
        return written


class ResultLater(SqlCallLedger):
    """The result has a commit of its own, after that of the record."""

    def _close(self, connection: Connection, closing: Closing, wanted: AuditEntry) -> Any:
        work = super()._close
        return _without("record_in", lambda _, entry: chain(None, entry), lambda: work(connection, closing, wanted))

    async def close(self, closing: Closing) -> bool:
        written = await super().close(closing)
        await self._database.write(lambda connection: record_in(connection, closing.result))
        return written


class VoidOpens(SqlCallLedger):
    """A start that is void opens its call all the same."""

    async def open(self, opening: Opening) -> OpeningResult:
        opened = await super().open(opening)
        return Opened(await self._audit.append(opening.intent)) if isinstance(opened, Void) else opened


FAULTS: tuple[tuple[type[SqlCallLedger], str], ...] = (
    (IntentLeftOut, "every_call_is_announced"),
    (IntentLater, "every_call_is_announced"),
    (SettlementLater, "money_adds_up"),
    (ResultLater, "every_call_is_announced"),
    (VoidOpens, "no_finished_step_runs_again"),
)
"""Each with the sentence that has to say so."""
