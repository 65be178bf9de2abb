"""The budget reducer: never negative, never granted past the limit, idempotent by key, the sum of its entries."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.limits.amounts import NOTHING, Amount, Limits
from engine.limits.budget import BudgetAccount, BudgetOp, Close, Release, Reserve, Settle, apply_budget

KEYS = st.sampled_from(["model/a/1", "model/a/2", "model/b/1", "step/x", "step/y"])
AMOUNTS = st.builds(Amount, st.integers(0, 60), st.integers(0, 60))
LIMITS = st.builds(Limits, st.none() | st.integers(0, 150), st.none() | st.integers(0, 150))
OPS: st.SearchStrategy[BudgetOp] = st.one_of(
    st.builds(Reserve, KEYS, AMOUNTS),
    st.builds(Settle, KEYS, AMOUNTS),
    st.builds(Release, KEYS),
    st.builds(Close, st.sampled_from(["", "model/", "model/a/", "none"]), st.booleans()),
)


def sum_of(amounts: list[Amount]) -> Amount:
    return sum(amounts, NOTHING)


@given(LIMITS, st.lists(OPS, max_size=40))
def test_any_operations_keep_the_books(limits: Limits, ops: list[BudgetOp]) -> None:
    account = BudgetAccount(limits)
    for op in ops:
        before = account
        account, result = apply_budget(account, op)
        assert account.totals.reserved == sum_of(list(account.open.values()))
        assert account.totals.spent == sum_of(list(account.settled.values()))
        assert not set(account.open) & set(account.settled)
        assert {**account.settled, **before.settled} == account.settled  # what is settled stays as it is
        if isinstance(op, Reserve) and result.granted and op.key not in {**before.open, **before.settled}:
            assert limits.cover(account.totals.reserved + account.totals.spent)
        if not result.granted:
            assert account == before
        if isinstance(op, Close) and op.prefix == "":
            assert account.totals.reserved == NOTHING
        assert BudgetAccount.from_json(json.loads(json.dumps(account.to_json()))) == account


@given(LIMITS, st.lists(OPS, max_size=15), OPS)
def test_any_operation_delivered_twice_counts_once(limits: Limits, ops: list[BudgetOp], last: BudgetOp) -> None:
    account = BudgetAccount(limits)
    for op in ops:
        account, _ = apply_budget(account, op)
    once, first = apply_budget(account, last)
    twice, second = apply_budget(once, last)
    assert twice == once
    assert second.granted == first.granted
    assert not second.settled


def test_a_limit_of_either_kind_refuses() -> None:
    for limits in (Limits(100, None), Limits(None, 100)):
        account, result = apply_budget(BudgetAccount(limits), Reserve("a", Amount(101, 101)))
        assert not result.granted
        account, result = apply_budget(account, Reserve("a", Amount(100, 100)))
        assert result.granted


def test_closing_by_prefix_leaves_the_rest_and_may_charge_what_was_set_aside() -> None:
    account = BudgetAccount(Limits(100))
    for key in ("model/a", "step/b"):
        account, _ = apply_budget(account, Reserve(key, Amount(10, 5)))
    account, result = apply_budget(account, Close("model/", as_spent=True))
    assert result.settled == (("model/a", Amount(10, 5), Amount(10, 5)),)
    assert (account.totals.reserved, account.totals.spent) == (Amount(10, 5), Amount(10, 5))
    account, result = apply_budget(account, Close())
    assert (account.totals.reserved, account.totals.spent) == (NOTHING, Amount(10, 5))


def test_nothing_is_negative() -> None:
    for make in (lambda: Amount(-1), lambda: Amount(0, -1), lambda: Limits(-1), lambda: Limits(None, -1)):
        with pytest.raises(ValueError, match="negative"):
            make()
