"""Budgets: reserve before dispatch, settle after it, both idempotent by key, so a fan-out cannot overshoot.

Money and tokens count together, in the account of the run and in that of its tenant's day (UTC, the day of the reservation), in
one transaction. Keys of model calls begin with ``MODEL_KEYS``; all others are of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol

MODEL_KEYS = "model/"
"""How keys of model calls begin. Keys of steps begin with the id of their run, which starts with ``run-``."""
REPAIR_KEYS = f"{MODEL_KEYS}repairs/"
"""How keys of model calls begin that are made to repair the plan of a run under way."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """One run's money in micro-USD and tokens: what is set aside, what is spent, and the limits (None: no limit)."""

    reserved_micro_usd: int
    spent_micro_usd: int
    limit_micro_usd: int
    reserved_tokens: int = 0
    spent_tokens: int = 0
    limit_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a run's money: what all keys that begin with ``prefix`` may set aside and spend together, in micro-USD. It is a
    limit within that of the account, no money of its own."""

    prefix: str
    limit_micro_usd: int


@dataclass(frozen=True, slots=True)
class DailyLimits:
    """What all runs of a tenant may use between two midnights UTC. None: no limit."""

    micro_usd: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class DailyState:
    """What all runs of a tenant have set aside and spent in one day."""

    reserved_micro_usd: int = 0
    spent_micro_usd: int = 0
    reserved_tokens: int = 0
    spent_tokens: int = 0


class BudgetLedger(Protocol):
    """One account per run, and one per tenant and day."""

    async def open(
        self,
        tenant_id: str,
        run_id: str,
        *,
        limit_micro_usd: int,
        limit_tokens: int | None = None,
        daily: DailyLimits | None = None,
    ) -> None:
        """Open the account. A second call changes nothing: the limits a run was admitted with stay, its tenant's included."""
        ...

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
        """Set money and tokens aside, for the run and for its tenant's day.

        False, with nothing changed, when reserved + spent + amount would pass a limit of either or of the ``share`` that
        ``key`` belongs to, or there is no account.
        A key that is reserved or settled already is True and changes nothing."""
        ...

    async def settle(
        self, tenant_id: str, run_id: str, key: str, *, spent_micro_usd: int, spent_tokens: int = 0
    ) -> None:
        """Replace the reservation of ``key`` by what was spent. A settled key stays as it is; an unknown key is ignored."""
        ...

    async def close(self, tenant_id: str, run_id: str, *, prefix: str = "", as_spent: bool = False) -> int:
        """Settle every open reservation whose key begins with ``prefix``: at nothing, or at its full amount (``as_spent``).

        Returns how many there were; doing it again finds none. The account stays, and its history with it."""
        ...

    async def raise_limit(self, tenant_id: str, run_id: str, *, limit_micro_usd: int) -> BudgetState | None:
        """Let the run cost up to ``limit_micro_usd``, if that is more than now; a limit is never lowered. The account as it is
        then, or None where there is none."""
        ...

    async def state(self, tenant_id: str, run_id: str) -> BudgetState | None:
        """The account, or None."""
        ...

    async def daily_state(self, tenant_id: str, day: date) -> DailyState:
        """What the tenant's runs have reserved and spent on ``day`` (UTC)."""
        ...
