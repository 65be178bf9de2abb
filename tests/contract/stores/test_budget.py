"""What every budget ledger promises: money is set aside once, settled once, and never past the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text

from engine.adapters.memory import FixedClock
from engine.adapters.sql import Database
from engine.ports.budget import BudgetState, DailyLimits, DailyState, Share
from engine.ports.model_results import ModelCallKey
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


DAILY = DailyLimits(micro_usd=150, tokens=1_000)


async def test_a_share_is_a_limit_of_its_keys_within_the_account(stores: Stores) -> None:
    share = Share("model/repairs/", 100)
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=150)
    await stores.budgets.open("contoso", "run-2", limit_micro_usd=150)

    async def reserve(key: str, amount_micro_usd: int, run_id: str = "run-1") -> bool:
        return await stores.budgets.reserve("contoso", run_id, key, amount_micro_usd=amount_micro_usd, share=share)

    assert await stores.budgets.reserve("contoso", "run-1", "model/1/plan", amount_micro_usd=20)
    assert await reserve("model/repairs/2/plan", 60)
    assert not await reserve("model/repairs/2/critique", 41)
    assert await reserve("model/repairs/2/plan", 60), "known already, and it counts once"
    await stores.budgets.settle("contoso", "run-1", "model/repairs/2/plan", spent_micro_usd=30)
    assert await reserve("model/repairs/3/plan", 70), "what was spent counts, not what was set aside for it"
    assert not await reserve("model/repairs/3/critique", 1)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(90, 30, 150)
    assert not await stores.budgets.reserve("contoso", "run-1", "run-1/step", amount_micro_usd=31), (
        "the account's own limit"
    )
    assert await reserve("model/repairs/2/plan", 100, "run-2"), "another run's share is its own"


async def test_shares_of_many_at_once_do_not_overshoot(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=1_000)
    share = Share("model/repairs/", 100)
    granted = await asyncio.gather(
        *(
            stores.budgets.reserve("contoso", "run-1", f"model/repairs/{n}", amount_micro_usd=30, share=share)
            for n in range(20)
        )
    )
    assert sum(granted) == 3


async def test_tokens_are_limited_like_money(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100, limit_tokens=50)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=1, tokens=50)
    assert not await stores.budgets.reserve("contoso", "run-1", "b", amount_micro_usd=1, tokens=1)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=1, spent_tokens=20)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 1, 100, 0, 20, 50)
    assert await stores.budgets.reserve("contoso", "run-1", "b", amount_micro_usd=1, tokens=30)


async def test_without_a_limit_tokens_are_counted_only(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=0, tokens=10**9)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, 0, 100, 10**9, 0, None)


async def test_a_tenants_day_limits_its_runs_together(stores: Stores) -> None:
    day = stores.clock.now().date()
    for run_id in ("run-1", "run-2"):
        await stores.budgets.open("contoso", run_id, limit_micro_usd=100, daily=DAILY)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=100)
    assert not await stores.budgets.reserve("contoso", "run-2", "a", amount_micro_usd=51)
    assert await stores.budgets.state("contoso", "run-2") == BudgetState(0, 0, 100)
    assert await stores.budgets.reserve("contoso", "run-2", "b", amount_micro_usd=50, tokens=1_000)
    assert not await stores.budgets.reserve("contoso", "run-2", "c", amount_micro_usd=0, tokens=1)
    assert await stores.budgets.daily_state("contoso", day) == DailyState(150, 0, 1_000, 0)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=40)
    assert await stores.budgets.daily_state("contoso", day) == DailyState(50, 40, 1_000, 0)
    assert await stores.budgets.reserve("contoso", "run-2", "d", amount_micro_usd=50)


async def test_days_of_tenants_are_apart(stores: Stores) -> None:
    day = stores.clock.now().date()
    for tenant_id in ("contoso", "fabrikam"):
        await stores.budgets.open(tenant_id, "run-1", limit_micro_usd=200, daily=DAILY)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=150)
    assert await stores.budgets.reserve("fabrikam", "run-1", "a", amount_micro_usd=150)
    assert await stores.budgets.daily_state("northwind", day) == DailyState()


async def test_a_new_day_begins_at_nothing_and_settles_the_old_one(stores: Stores) -> None:
    yesterday = stores.clock.now().date()
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=1_000, daily=DAILY)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=150)
    stores.clock.advance(86_400)
    assert await stores.budgets.reserve("contoso", "run-1", "b", amount_micro_usd=150)
    assert await stores.budgets.reserve("contoso", "run-1", "a", amount_micro_usd=150)
    await stores.budgets.settle("contoso", "run-1", "a", spent_micro_usd=90, spent_tokens=7)
    assert await stores.budgets.daily_state("contoso", yesterday) == DailyState(0, 90, 0, 7)
    assert await stores.budgets.daily_state("contoso", stores.clock.now().date()) == DailyState(150, 0, 0, 0)


@pytest.mark.parametrize("as_spent", [False, True])
async def test_closing_ends_what_is_open_once(stores: Stores, as_spent: bool) -> None:
    day = stores.clock.now().date()
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "model/1/plan/a/1", amount_micro_usd=10, tokens=100)
    await stores.budgets.reserve("contoso", "run-1", "model/1/plan/b/1", amount_micro_usd=20, tokens=200)
    await stores.budgets.reserve("contoso", "run-1", "run-1/model/1", amount_micro_usd=30)
    await stores.budgets.settle("contoso", "run-1", "model/1/plan/a/1", spent_micro_usd=4, spent_tokens=40)
    assert await stores.budgets.close("contoso", "run-1", prefix="model/", as_spent=as_spent) == 1
    assert await stores.budgets.close("contoso", "run-1", prefix="model/", as_spent=as_spent) == 0
    spent = (24, 240) if as_spent else (4, 40)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(30, spent[0], 100, 0, spent[1], None)
    assert await stores.budgets.close("contoso", "run-1") == 1
    assert await stores.budgets.close("contoso", "run-1") == 0
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, spent[0], 100, 0, spent[1], None)
    assert await stores.budgets.daily_state("contoso", day) == DailyState(0, spent[0], 0, spent[1])
    await stores.budgets.settle("contoso", "run-1", "model/1/plan/b/1", spent_micro_usd=99)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(0, spent[0], 100, 0, spent[1], None)


async def test_closing_what_is_not_there_changes_nothing(stores: Stores) -> None:
    assert await stores.budgets.close("contoso", "run-1") == 0
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    await stores.budgets.reserve("contoso", "run-1", "a%", amount_micro_usd=1)
    assert await stores.budgets.close("contoso", "run-1", prefix="%") == 0
    assert await stores.budgets.close("fabrikam", "run-1") == 0


async def test_runs_of_one_tenant_at_once_do_not_overshoot_its_day(open_sql: Callable[[], Stores]) -> None:
    openers = [open_sql().budgets, open_sql().budgets]
    for number in range(10):
        await openers[number % 2].open(
            "contoso", f"run-{number}", limit_micro_usd=1_000, daily=DailyLimits(micro_usd=500)
        )

    async def one(number: int) -> bool:
        ledger, run_id = openers[number % 2], f"run-{number % 10}"
        if not await ledger.reserve("contoso", run_id, f"k{number}", amount_micro_usd=20, tokens=3):
            return False
        await ledger.settle("contoso", run_id, f"k{number}", spent_micro_usd=20, spent_tokens=3)
        return True

    granted = await asyncio.gather(*map(one, range(60)))
    assert sum(granted) == 25
    assert await openers[0].daily_state("contoso", FixedClock().now().date()) == DailyState(0, 500, 0, 75)


V1_BUDGETS = (
    "DROP TABLE reservations",
    "DROP TABLE budgets",
    "DROP TABLE daily_budgets",
    "DROP TABLE model_results",
    "CREATE TABLE budgets (tenant_id VARCHAR(100) NOT NULL, run_id VARCHAR(100) NOT NULL, limit_micro_usd BIGINT NOT NULL,"
    " reserved_micro_usd BIGINT NOT NULL, spent_micro_usd BIGINT NOT NULL, PRIMARY KEY (tenant_id, run_id))",
    "CREATE TABLE reservations (tenant_id VARCHAR(100) NOT NULL, run_id VARCHAR(100) NOT NULL, key VARCHAR(300) NOT NULL,"
    " amount_micro_usd BIGINT NOT NULL, spent_micro_usd BIGINT, PRIMARY KEY (tenant_id, run_id, key))",
    "INSERT INTO budgets VALUES ('contoso', 'run-1', 100, 40, 10)",
    "INSERT INTO reservations VALUES ('contoso', 'run-1', 'a', 10, 10)",
    "INSERT INTO reservations VALUES ('contoso', 'run-1', 'b', 40, NULL)",
    "DELETE FROM schema_version",
    "INSERT INTO schema_version VALUES (2, 'then')",
)


async def test_accounts_of_the_version_before_go_on(sql_url: str, open_sql: Callable[[], Stores]) -> None:
    old = Database(sql_url, FixedClock())
    for statement in V1_BUDGETS:
        await old.write(lambda connection, statement=statement: connection.execute(text(statement)))
    await old.dispose()
    stores = open_sql()
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(40, 10, 100)
    assert not await stores.budgets.reserve("contoso", "run-1", "c", amount_micro_usd=51)
    assert await stores.budgets.reserve("contoso", "run-1", "c", amount_micro_usd=50, tokens=9)
    await stores.budgets.settle("contoso", "run-1", "b", spent_micro_usd=30)
    assert await stores.budgets.state("contoso", "run-1") == BudgetState(50, 40, 100, 9, 0, None)
    assert await stores.budgets.daily_state("contoso", FixedClock().now().date()) == DailyState(50, 0, 9, 0)
    assert await stores.model_results.begin(ModelCallKey("contoso", "run-1", 1, "plan", "a" * 64)) == 1


async def test_a_limit_is_raised_and_never_lowered(stores: Stores) -> None:
    await stores.budgets.open("contoso", "run-1", limit_micro_usd=100)
    assert not await stores.budgets.reserve("contoso", "run-1", "k", amount_micro_usd=150)
    for limit, then in ((200, 200), (120, 200), (200, 200)):
        state = await stores.budgets.raise_limit("contoso", "run-1", limit_micro_usd=limit)
        assert state is not None
        assert state.limit_micro_usd == then
    assert await stores.budgets.reserve("contoso", "run-1", "k", amount_micro_usd=150)
    assert await stores.budgets.raise_limit("contoso", "run-none", limit_micro_usd=9) is None
