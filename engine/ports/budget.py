"""Budgets: reserve before dispatch, settle after it, both idempotent by key, so a fan-out cannot overshoot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BudgetState:
    """Money of one run in micro-USD: what is set aside, what is spent, and the limit."""

    reserved_micro_usd: int
    spent_micro_usd: int
    limit_micro_usd: int


class BudgetLedger(Protocol):
    """One account per run."""

    async def open(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> None:
        """Open the account. A second call changes nothing: the limit a run was admitted with stays."""
        ...

    async def reserve(self, tenant_id: str, run_id: str, key: str, *, amount_micro_usd: int) -> bool:
        """Set money aside. False when reserved + spent + amount would pass the limit, or there is no account.
        A key that is reserved or settled already is True and changes nothing."""
        ...

    async def settle(self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int) -> None:
        """Replace the reservation of ``key`` by what was spent. A settled key stays as it is; an unknown key is ignored."""
        ...

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """The account, or None."""
        ...
