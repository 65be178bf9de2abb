"""Budget accounts that an earlier build wrote as one document: a run under way goes on with its money, keys and limits."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from engine.adapters.cosmos.definitions import TENANTS
from engine.adapters.cosmos.repository import Create, Operation, TenantRepository
from engine.domain.errors import LivoaError
from engine.ports.budget import BudgetState, DailyState
from tests.contract.stores.conftest import CosmosWorld, Stores
from tests.support.cosmos_fake import Fault
from tests.support.cosmos_fake.faults import Kind

OPEN, SETTLED = 130, 120


async def former_account(world: CosmosWorld) -> None:
    """What the earlier build left: keys of two days, open ones of 10 and settled ones of 3, limits of 5,000 and 4,000 a day."""
    today = world.clock.now().date()
    yesterday = today - timedelta(days=1)
    is_open = {f"run-1/open/{n}": [10, 1] for n in range(OPEN)}
    settled = {f"run-1/settled/{n}": [3, 2] for n in range(SETTLED)}
    account = {"limits": [5_000, None], "open": is_open, "settled": settled}
    days = dict.fromkeys(settled, yesterday.isoformat()) | dict.fromkeys(is_open, today.isoformat())
    documents = [
        {"id": "run:run-1", "kind": "account", "document": json.dumps(account), "days": days, "daily": [4_000, None]},
        {"id": f"day:{yesterday}", "kind": "day", "totals": [[0, 0], [3 * SETTLED, 2 * SETTLED]]},
        {"id": f"day:{today}", "kind": "day", "totals": [[10 * OPEN, OPEN], [0, 0]]},
    ]
    operations: list[Operation] = [Create(document | {"ttl": 1_000}) for document in documents]
    await TenantRepository(world.connect(), TENANTS, "contoso").write("budget", operations)


async def day_of(stores: Stores) -> DailyState:
    return await stores.budgets.daily_state("contoso", stores.clock.now().date())


async def test_it_is_read_as_it_is(cosmos: CosmosWorld) -> None:
    await former_account(cosmos)
    expected = BudgetState(10 * OPEN, 3 * SETTLED, 5_000, OPEN, 2 * SETTLED)
    assert await cosmos.open().budgets.state("contoso", "run-1") == expected


async def test_its_keys_are_known_and_settled_once_and_its_limits_hold(cosmos: CosmosWorld) -> None:
    await former_account(cosmos)
    budgets = cosmos.open().budgets
    await budgets.open("contoso", "run-1", limit_micro_usd=99)
    await budgets.settle("contoso", "run-1", "run-1/open/7", spent_micro_usd=4)
    for key in ("run-1/open/7", "run-1/open/129", "run-1/settled/0"):
        assert await budgets.reserve("contoso", "run-1", key, amount_micro_usd=10)
    await budgets.settle("contoso", "run-1", "run-1/settled/0", spent_micro_usd=999)
    state = await budgets.state("contoso", "run-1")
    assert state == BudgetState(10 * (OPEN - 1), 3 * SETTLED + 4, 5_000, OPEN - 1, 2 * SETTLED)
    assert await day_of(cosmos.open()) == DailyState(10 * (OPEN - 1), 4, OPEN - 1, 0)
    assert not await budgets.reserve("contoso", "run-1", "new", amount_micro_usd=4_000 - 10 * (OPEN - 1) - 4 + 1)
    assert await budgets.reserve("contoso", "run-1", "new", amount_micro_usd=4_000 - 10 * (OPEN - 1) - 4)


@pytest.mark.parametrize("as_spent", [False, True])
async def test_closing_ends_all_that_is_open(cosmos: CosmosWorld, as_spent: bool) -> None:
    await former_account(cosmos)
    budgets = cosmos.open().budgets
    assert await budgets.close("contoso", "run-1", as_spent=as_spent) == OPEN
    spent = 10 * OPEN if as_spent else 0
    state = await budgets.state("contoso", "run-1")
    assert state is not None
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (0, 3 * SETTLED + spent)
    day = await day_of(cosmos.open())
    assert (day.reserved_micro_usd, day.spent_micro_usd) == (0, spent)


@pytest.mark.parametrize("kind", ["lost_answer", "lost_connection", "timed_out"])
@pytest.mark.parametrize("skip", [0, 1, 2])
async def test_an_interruption_on_the_way_changes_nothing(cosmos: CosmosWorld, kind: Kind, skip: int) -> None:
    await former_account(cosmos)
    cosmos.fake.faults.add(Fault(kind, "batch:tenants", skip=skip))
    await cosmos.open().budgets.settle("contoso", "run-1", "run-1/open/0", spent_micro_usd=4)
    assert len(cosmos.fake.faults.struck) == 1
    state = await cosmos.open().budgets.state("contoso", "run-1")
    assert state == BudgetState(10 * (OPEN - 1), 3 * SETTLED + 4, 5_000, OPEN - 1, 2 * SETTLED)


async def test_several_processes_bring_it_over_once(cosmos: CosmosWorld) -> None:
    await former_account(cosmos)
    ledgers = [cosmos.open().budgets for _ in range(4)]
    keys = [f"run-1/open/{n}" for n in range(12)]
    settling = (ledgers[n % 4].settle("contoso", "run-1", key, spent_micro_usd=4) for n, key in enumerate(keys))
    await asyncio.gather(*settling)
    state = await ledgers[0].state("contoso", "run-1")
    assert state is not None
    assert (state.reserved_micro_usd, state.spent_micro_usd) == (10 * (OPEN - 12), 3 * SETTLED + 4 * 12)
    day = await day_of(cosmos.open())
    assert (day.reserved_micro_usd, day.spent_micro_usd) == (10 * (OPEN - 12), 4 * 12)


async def test_an_account_of_today_is_refused_by_an_earlier_build(
    cosmos: CosmosWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await former_account(cosmos)
    await cosmos.open().budgets.settle("contoso", "run-1", "run-1/open/0", spent_micro_usd=4)
    monkeypatch.setattr("engine.adapters.cosmos.repository.LATER_LAYOUTS", {})
    with pytest.raises(LivoaError) as caught:
        await cosmos.open().budgets.state("contoso", "run-1")
    assert caught.value.code == "store.schema_newer"
