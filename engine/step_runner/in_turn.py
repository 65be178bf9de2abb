"""The writes around a call: together where the stores are one database, one store after the other elsewhere.

Each order is such that whoever finds the writes cut short can go on. Before the call: money, start, intent, so that no call
happens without all three. After it: result, settlement, record, because a record that is final is never looked at again.

Every call of a capability comes through here: of steps, items of maps, fallbacks and undoings, made from here or handed to a
worker. What makes no call (denials, waits, questions, a step answered with an earlier result) writes to its stores directly.
"""

from __future__ import annotations

from engine.evidence.on_record import put_on_record
from engine.ports.audit_log import AuditLog
from engine.ports.budget import BudgetLedger
from engine.ports.calls import (
    CallLedger,
    Closing,
    NotIntended,
    Opened,
    Opening,
    OpeningResult,
    OutOfBudget,
    StepWrite,
    Void,
)
from engine.ports.deps import Deps
from engine.ports.run_store import RunStore
from engine.step_runner.persistence import persistently


class InTurn:
    """Implements ``CallLedger`` over any stores."""

    def __init__(self, runs: RunStore, budgets: BudgetLedger, audit: AuditLog) -> None:
        self._runs, self._budgets, self._audit = runs, budgets, audit

    async def open(self, opening: Opening) -> OpeningResult:
        """See ``CallLedger.open``."""
        tenant_id, run_id = opening.step.record.tenant_id, opening.step.record.run_id
        for key in opening.abandoned:
            await self._budgets.settle(tenant_id, run_id, key, spent_micro_usd=0)
        if not await self._budgets.reserve(tenant_id, run_id, opening.key, amount_micro_usd=opening.amount_micro_usd):
            return OutOfBudget()
        if not await self._put(opening.step):
            await self._budgets.settle(tenant_id, run_id, opening.key, spent_micro_usd=0)
            return Void()
        try:
            return Opened(await put_on_record(opening.intent, self._audit))
        except Exception as err:
            return NotIntended(err)

    async def close(self, closing: Closing) -> bool:
        """See ``CallLedger.close``."""
        record, spent = closing.step.record, closing.spent_micro_usd
        await persistently(lambda: put_on_record(closing.result, self._audit))
        await persistently(
            lambda: self._budgets.settle(record.tenant_id, record.run_id, closing.key, spent_micro_usd=spent)
        )
        return await persistently(lambda: self._put(closing.step))

    async def _put(self, step: StepWrite) -> bool:
        return await self._runs.put_step(step.record, step.events, add_cost_micro_usd=step.add_cost_micro_usd)


async def open_call(opening: Opening, deps: Deps) -> OpeningResult:
    """See ``CallLedger.open``."""
    ledger: CallLedger = deps.calls or _in_turn(deps)
    return await ledger.open(opening)


async def close_call(closing: Closing, deps: Deps) -> bool:
    """See ``CallLedger.close``. Each write is tried again while its store says that it is unavailable."""
    ledger = deps.calls
    if ledger is None:
        return await _in_turn(deps).close(closing)
    return await persistently(lambda: ledger.close(closing))


def _in_turn(deps: Deps) -> InTurn:
    return InTurn(deps.runs, deps.budgets, deps.audit)
