"""What every budget ledger promises: money is set aside once, settled once, and never past the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from engine.ports.budget import BudgetState
from tests.contract.stores.conftest import Stores


async def test_an_account_starts_empty(stores: Stores) -> None:
    assert await stores.budgets.state("contoso", "run-1") is None
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 0, 100)


async def test_opening_again_keeps_the_account_and_its_first_limit(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=40)
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=999)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(40, 0, 100)


async def test_what_does_not_fit_is_refused_and_changes_nothing(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=60)
    assert not await stores.budgets.reserve("contoso", "run-1", "b", amount_micro_usd=41)
    assert await stores.budgets.reserve("contoso", "run-1", "c", amount_micro_usd=40)
    assert not await stores.budgets.reserve("contoso", "run-1", "d", amount_micro_usd=1)
    assert await stores.budgets.reserve("contoso", "run-1", "e", amount_micro_usd=0)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(100, 0, 100)


async def test_a_reservation_delivered_twice_counts_once(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    for _ in range(2):
        assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=60)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(60, 0, 100)


async def test_settling_replaces_the_reservation_once(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=60)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=25)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=99)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 25, 100)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=60)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 25, 100)
    assert await stores.budgets.reserve("contoso", "run-1", "b", amount_micro_usd=75)


async def test_more_spent_than_reserved_counts_in_full(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=10)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=130)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 130, 100)
    assert not await stores.budgets.reserve("contoso", "run-1", "b", amount_micro_usd=0)


async def test_settling_what_was_never_reserved_is_ignored(stores: Stores) -> None:
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=5)
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=5)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 0, 100)


async def test_without_an_account_nothing_is_granted(stores: Stores) -> None:
    assert not await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=0)


async def test_accounts_of_tenants_and_runs_are_apart(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    assert await stores.budgets.state("fabrikam", "run-1") is None
    assert not await stores.budgets.reserve("fabrikam", "run-1", "a", amount_micro_usd=1)
    assert not await stores.budgets.reserve("contoso", "run-2", "a", amount_micro_usd=1)
    await stores.budgets.open("fabrikam", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=50)
    await stores.budgets.settle("fabrikam", "run-1", "a", spent_micro_usd=50)
    assert await stores.budgets.state("fabrikam", "run-1") == BudgetState(0, 0, 100)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(50, 0, 100)


async def test_money_is_not_negative(stores: Stores) -> None:
    with pytest.raises(ValueError, match="negative"):
        await stores.budgets.open("contoso", "run-1", limit_micro_usd=-1)
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    with pytest.raises(ValueError, match="negative"):
        await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=-50)
    await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=50)
    with pytest.raises(ValueError, match="negative"):
        await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=-50)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(50, 0, 100)


async def test_a_hundred_reservations_at_once_do_not_overshoot(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=1_000)
    granted = await asyncio.gather(
        *(stores.budgets.reserve("contoso", "run-1", f"k{n}", amount_micro_usd=37) for n in range(100))
    )
    assert sum(granted) == 1_000 // 37
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(27 * 37, 0, 1_000)


async def test_reservations_and_settlements_of_two_openers_at_once_do_not_overshoot(
    open_sql: Callable[[], Stores],
) -> None:
    openers = [open_sql().budgets, open_sql().budgets]
    await openers[0].open("contoso", "run-1", limit_micro_usd=500)

    async def one(number: int) -> bool:
        ledger = openers[number % 2]
        if not await ledger.reserve("contoso", "run-1", f"k{number}", amount_micro_usd=20):
            return False
        await ledger.settle("contoso", "run-1", f"k{number}", spent_micro_usd=20)
        return True

    granted = await asyncio.gather(*map(one, range(60)))
    assert sum(granted) == 25
    assert await openers[1].state("contoso", "run-1") == BudgetState(0, 500, 500)
