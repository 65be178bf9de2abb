"""Budget accounts in memory. Not durable: only tests may rely on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from engine.ports.budget import BudgetState


@dataclass(slots=True)
class _Account:
    limit: int
    reserved: dict[str, int] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)

    def state(self) -> BudgetState:
        return BudgetState(sum(self.reserved.values()), sum(self.spent.values()), self.limit)


class MemoryBudgetLedger:
    """One account per run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[tuple[str, str], _Account] = {}

    async def open(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> None:
        """See ``BudgetLedger.open``."""
        _not_negative(limit_micro_usd)
        with self._lock:
            self._accounts.setdefault((tenant_id, run_id), _Account(limit_micro_usd))

    async def reserve(self, tenant_id: str, run_id: str, key: str, *, amount_micro_usd: int) -> bool:
        """See ``BudgetLedger.reserve``."""
        _not_negative(amount_micro_usd)
        with self._lock:
            account = self._accounts.get((tenant_id, run_id))
            if account is None:
                return False
            if key in account.reserved or key in account.spent:
                return True
            state = account.state()
            if state.reserved_micro_usd + state.spent_micro_usd + amount_micro_usd > state.limit_micro_usd:
                return False
            account.reserved[key] = amount_micro_usd
            return True

    async def settle(self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int) -> None:
        """See ``BudgetLedger.settle``."""
        _not_negative(spent_micro_usd)
        with self._lock:
            account = self._accounts.get((tenant_id, run_id))
            if account is not None and account.reserved.pop(key, None) is not None:
                account.spent[key] = spent_micro_usd

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """See ``BudgetLedger.state``."""
        with self._lock:
            account = self._accounts.get((tenant_id, run_id))
            return account.state() if account else None


def _not_negative(amount_micro_usd: int) -> None:
    if amount_micro_usd < 0:
        raise ValueError("money in a budget is not negative")
