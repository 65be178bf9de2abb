"""Budget accounts: one document per run and one per tenant and day, all of a tenant in one logical partition.

A reservation counts in two accounts and must count in both or in neither; in one partition the two are one transaction. The price
is that all reservations of a tenant share what one logical partition can take (10,000 request units a second, 20 GB). Accounts
expire ``ACCOUNT_TTL_S`` after their last use.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import date
from typing import Any
from weakref import WeakValueDictionary

from engine.adapters.cosmos.connection import CosmosConnection
from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.repository import Create, Document, Operation, Replace, TenantRepository
from engine.limits.amounts import Amount, Limits, Totals
from engine.limits.budget import BudgetAccount, BudgetOp, BudgetResult, Close, Raise, Reserve, Settle, apply_budget
from engine.ports.budget import BudgetState, DailyLimits, DailyState
from engine.ports.clock import Clock

ACCOUNT_TTL_S = 400 * 24 * 3_600
"""Longer than any run lasts, and than a year's days are asked for."""
_SCOPE = "budget"
_Planned = tuple[BudgetResult, BudgetAccount | None, dict[str, str], dict[str, Totals]]
"""What came of it, the account as it is now (None: nothing changed), the day each key counts into, and the totals of days."""


class CosmosBudgetLedger:
    """Budget accounts in a Cosmos DB database. A day is one of ``clock``, in UTC."""

    def __init__(self, connection: CosmosConnection, clock: Clock) -> None:
        self._connection, self._clock = connection, clock
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def open(
        self,
        tenant_id: str,
        run_id: str,
        *,
        limit_micro_usd: int,
        limit_tokens: int | None = None,
        daily: DailyLimits | None = None,
    ) -> None:
        """See ``BudgetLedger.open``."""
        account = BudgetAccount(Limits(limit_micro_usd, limit_tokens))
        limits = Limits(daily.micro_usd, daily.tokens) if daily is not None else Limits()
        new = _account_document(run_id, account, {}, [limits.micro_usd, limits.tokens])

        def keep(found: Document | None) -> tuple[None, Document | None]:
            return None, new if found is None else None

        await self._of(tenant_id).update(_SCOPE, new["id"], keep)

    async def reserve(self, tenant_id: str, run_id: str, key: str, *, amount_micro_usd: int, tokens: int = 0) -> bool:
        """See ``BudgetLedger.reserve``."""
        amount, day = Amount(amount_micro_usd, tokens), self._clock.now().date().isoformat()

        async def plan(stored: Document, read: _Reader) -> _Planned:
            account, days = BudgetAccount.from_json(json.loads(stored["document"])), dict(stored["days"])
            if key in days:
                return BudgetResult(), None, days, {}
            after, result = apply_budget(account, Reserve(key, amount))
            totals = (await read.totals(day)).reserve(amount, Limits(*stored["daily"]))
            if not result.granted or totals is None:
                return BudgetResult(granted=False), None, days, {}
            return result, after, days | {key: day}, {day: totals}

        result = await self._change(tenant_id, run_id, plan)
        return result is not None and result.granted

    async def settle(
        self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int, spent_tokens: int = 0
    ) -> None:
        """See ``BudgetLedger.settle``."""
        await self._end(tenant_id, run_id, Settle(key, Amount(spent_micro_usd, spent_tokens)))

    async def close(self, tenant_id: str, run_id: str, *, prefix: str = "", as_spent: bool = False) -> int:
        """See ``BudgetLedger.close``."""
        return await self._end(tenant_id, run_id, Close(prefix, as_spent))

    async def raise_limit(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> BudgetState | None:
        """See ``BudgetLedger.raise_limit``."""
        await self._end(tenant_id, run_id, Raise(limit_micro_usd))
        return await self.state(tenant_id, run_id)

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """See ``BudgetLedger.state``."""
        found = await self._of(tenant_id).read(_SCOPE, _run(run_id))
        if found is None:
            return None
        account = BudgetAccount.from_json(json.loads(found["document"]))
        reserved, spent, limits = account.totals.reserved, account.totals.spent, account.limits
        limit = limits.micro_usd if limits.micro_usd is not None else 0
        return BudgetState(reserved.micro_usd, spent.micro_usd, limit, reserved.tokens, spent.tokens, limits.tokens)

    async def daily_state(self, tenant_id: str, day: date) -> DailyState:
        """See ``BudgetLedger.daily_state``."""
        totals = _totals(await self._of(tenant_id).read(_SCOPE, _day(day.isoformat())))
        reserved, spent = totals.reserved, totals.spent
        return DailyState(reserved.micro_usd, spent.micro_usd, reserved.tokens, spent.tokens)

    async def _end(self, tenant_id: str, run_id: str, op: BudgetOp) -> int:
        """How many reservations it settled; also when its first answer was lost and the second try found none left."""
        settled = 0

        async def plan(stored: Document, read: _Reader) -> _Planned:
            nonlocal settled
            before, days = BudgetAccount.from_json(json.loads(stored["document"])), stored["days"]
            account, result = apply_budget(before, op)
            totals: dict[str, Totals] = {}
            for key, reserved, spent in result.settled:
                day = days[key]
                totals[day] = (totals.get(day) or await read.totals(day)).settle(reserved, spent)
            settled = max(settled, len(result.settled))
            return result, account if account != before else None, days, totals

        await self._change(tenant_id, run_id, plan)
        return settled

    async def _change(self, tenant_id: str, run_id: str, plan: Callable[..., Any]) -> BudgetResult | None:
        """Carry out what ``plan`` makes of a run's account and of its tenant's days. None: there is no account."""
        repository = self._of(tenant_id)

        async def attempt() -> BudgetResult | None:
            stored = await repository.read(_SCOPE, _run(run_id))
            if stored is None:
                return None
            read = _Reader(repository)
            planned: _Planned = await plan(stored, read)
            result, account, days, totals = planned
            if account is not None:
                document = _account_document(run_id, account, days, stored["daily"])
                operations: list[Operation] = [Replace(document, stored["_etag"])]
                await repository.write(_SCOPE, operations + [read.operation(day, now) for day, now in totals.items()])
            return result

        # Every reservation of a tenant changes the document of its day: those of this process wait for each other.
        lock = self._locks.setdefault((id(asyncio.get_running_loop()), tenant_id), asyncio.Lock())
        async with lock:
            return await self._connection.settled(attempt)

    def _of(self, tenant_id: str) -> TenantRepository:
        return TenantRepository(self._connection, TENANTS, tenant_id)


class _Reader:
    """The days that one attempt looked at, with the etags they had."""

    def __init__(self, repository: TenantRepository) -> None:
        self._repository = repository
        self._found: dict[str, Document | None] = {}

    async def totals(self, day: str) -> Totals:
        found = self._found[day] = await self._repository.read(_SCOPE, _day(day))
        return _totals(found)

    def operation(self, day: str, totals: Totals) -> Operation:
        pairs = [[amount.micro_usd, amount.tokens] for amount in (totals.reserved, totals.spent)]
        document = {"id": _day(day), "kind": "day", "totals": pairs, "ttl": ACCOUNT_TTL_S}
        found = self._found[day]
        return Create(document) if found is None else Replace(document, found["_etag"])


def _run(run_id: str) -> str:
    return f"run:{run_id}"


def _day(day: str) -> str:
    return f"day:{day}"


def _totals(found: Document | None) -> Totals:
    if found is None:
        return Totals()
    reserved, spent = found["totals"]
    return Totals(Amount(*reserved), Amount(*spent))


def _account_document(run_id: str, account: BudgetAccount, days: dict[str, str], daily: list[int | None]) -> Document:
    return {
        "id": _run(run_id),
        "kind": "account",
        "document": json.dumps(account.to_json(), separators=(",", ":")),
        "days": days,
        "daily": daily,
        "ttl": ACCOUNT_TTL_S,
    }
