"""Budget accounts in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import date

from engine.adapters.memory.clock import SystemClock
from engine.limits.amounts import Amount, Limits, Totals
from engine.limits.budget import BudgetAccount, BudgetOp, BudgetResult, Close, Raise, Reserve, Settle, apply_budget
from engine.ports.budget import BudgetState, DailyLimits, DailyState, Share
from engine.ports.clock import Clock


@dataclass(slots=True)
class _Run:
    account: BudgetAccount
    daily: Limits
    days: dict[str, date] = field(default_factory=dict)
    """The day that each key counts into."""


class MemoryBudgetLedger:
    """One account per run, and one per tenant and day."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], _Run] = {}
        self._days: dict[tuple[str, date], Totals] = {}

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
        with self._lock:
            self._runs.setdefault((tenant_id, run_id), _Run(account, limits))

    async def reserve(
        self,
        tenant_id: str,
        run_id: str,
        key: str,
        *,
        amount_micro_usd: int,
        tokens: int = 0,
        share: Share | None = None,
    ) -> bool:
        """See ``BudgetLedger.reserve``."""
        amount = Amount(amount_micro_usd, tokens)
        with self._lock:
            run = self._runs.get((tenant_id, run_id))
            if run is None:
                return False
            if key in run.days:
                return True
            if share is not None and not Limits(share.limit_micro_usd).cover(run.account.used(share.prefix) + amount):
                return False
            account, result = apply_budget(run.account, Reserve(key, amount))
            day = self._clock.now().date()
            totals = self._days.get((tenant_id, day), Totals()).reserve(amount, run.daily)
            if not result.granted or totals is None:
                return False
            run.account, run.days[key], self._days[tenant_id, day] = account, day, totals
            return True

    async def settle(
        self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int, spent_tokens: int = 0
    ) -> None:
        """See ``BudgetLedger.settle``."""
        self._end(tenant_id, run_id, Settle(key, Amount(spent_micro_usd, spent_tokens)))

    async def close(self, tenant_id: str, run_id: str, *, prefix: str = "", as_spent: bool = False) -> int:
        """See ``BudgetLedger.close``."""
        return len(self._end(tenant_id, run_id, Close(prefix, as_spent)).settled)

    def _end(self, tenant_id: str, run_id: str, op: BudgetOp) -> BudgetResult:
        with self._lock:
            run = self._runs.get((tenant_id, run_id))
            if run is None:
                return BudgetResult()
            run.account, result = apply_budget(run.account, op)
            for key, reserved, spent in result.settled:
                of_day = tenant_id, run.days[key]
                self._days[of_day] = self._days[of_day].settle(reserved, spent)
            return result

    async def raise_limit(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> BudgetState | None:
        """See ``BudgetLedger.raise_limit``."""
        self._end(tenant_id, run_id, Raise(limit_micro_usd))
        return await self.state(tenant_id, run_id)

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """See ``BudgetLedger.state``."""
        with self._lock:
            run = self._runs.get((tenant_id, run_id))
            if run is None:
                return None
            reserved, spent = run.account.totals.reserved, run.account.totals.spent
            limits = run.account.limits
            assert limits.micro_usd is not None
            return BudgetState(
                reserved.micro_usd, spent.micro_usd, limits.micro_usd, reserved.tokens, spent.tokens, limits.tokens
            )

    async def daily_state(self, tenant_id: str, day: date) -> DailyState:
        """See ``BudgetLedger.daily_state``."""
        with self._lock:
            totals = self._days.get((tenant_id, day), Totals())
        reserved, spent = totals.reserved, totals.spent
        return DailyState(reserved.micro_usd, spent.micro_usd, reserved.tokens, spent.tokens)
