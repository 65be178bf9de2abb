"""The allocation is optimal, stays within its limits, and does not promise more than it knows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_kit import CapabilityError
from sample_agents.mix_allocation import Response, allocate, best_spend
from sample_agents.mix_model.curves import Curve

curves = st.builds(
    Curve,
    st.floats(0, 0.9),
    st.floats(100, 1e6),
    st.one_of(st.just(0.0), st.floats(100, 1e6)),
)
responses_of = st.lists(st.builds(Response, st.uuids().map(str), st.floats(1, 1e5), curves), min_size=1, max_size=6)


@given(responses_of, st.floats(0.2, 3), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_budget_is_spent_exactly_within_limits_and_never_worse_than_today(
    responses: list[Response], scale: float, max_shift: float
) -> None:
    today = [one.weekly_spend * scale for one in responses]
    budget = sum(today)
    found = best_spend(responses, budget, max_shift)
    assert sum(found) == pytest.approx(budget, rel=1e-6)
    for spend, before in zip(found, today, strict=True):
        assert before * (1 - max_shift) - 1e-6 * budget <= spend <= before * (1 + max_shift) + 1e-6 * budget

    def sold(spends: list[float]) -> float:
        return sum(one.curve.weekly(spend) for one, spend in zip(responses, spends, strict=True))

    assert sold(found) >= sold(today) * (1 - 1e-9) - 1e-6


@given(responses_of.filter(lambda r: len(r) > 1), st.data())
@settings(max_examples=100, deadline=None)
def test_no_small_move_between_two_channels_improves_it(responses: list[Response], data: st.DataObject) -> None:
    budget = sum(one.weekly_spend for one in responses)
    found = best_spend(responses, budget, 0.5)
    giver, taker = data.draw(st.permutations(range(len(responses))))[:2]
    step = 1e-3 * budget
    low, high = 0.5 * responses[giver].weekly_spend, 1.5 * responses[taker].weekly_spend
    if found[giver] - step < low or found[taker] + step > high:
        return
    before = responses[giver].curve.weekly(found[giver]) + responses[taker].curve.weekly(found[taker])
    after = responses[giver].curve.weekly(found[giver] - step) + responses[taker].curve.weekly(found[taker] + step)
    assert after <= before + 1e-6 * max(1.0, before)


def saturated_and_fresh(draws: int = 0, good: bool = True) -> list[Response]:
    full, fresh = Curve(0.0, 1_000, 50_000), Curve(0.0, 100_000, 500_000)
    other = fresh if good else Curve(0.0, 100_000, 1_000)
    return [Response("full", 20_000, full, (full,) * draws), Response("fresh", 10_000, fresh, (other,) * draws)]


def test_money_moves_from_the_saturated_channel_to_the_fresh_one() -> None:
    found = allocate(saturated_and_fresh(), "GBP", (None, 13, 0.3))
    shifts = {row["channel"]: row["shift"] for row in found["allocation"]}
    assert shifts["full"] == pytest.approx(-0.15, abs=1e-3)
    assert shifts["fresh"] == pytest.approx(0.3, abs=1e-3)
    assert found["expected_uplift"] > 0
    assert sum(row["proposed_spend"] for row in found["allocation"]) == pytest.approx(30_000 * 13)


def test_uplift_is_that_of_moving_not_of_spending_more() -> None:
    stuck = allocate(saturated_and_fresh(), "GBP", (1_000_000, 13, 0.0))
    assert stuck["expected_uplift"] == pytest.approx(0, abs=0.05)
    assert any("far from today's spend" in warning for warning in stuck["warnings"])


def test_an_uplift_that_may_be_none_is_called_so() -> None:
    sure = allocate(saturated_and_fresh(draws=20), "GBP", (None, 13, 0.3))
    unsure = allocate(saturated_and_fresh(draws=20, good=False), "GBP", (None, 13, 0.3))
    assert sure["expected_uplift_low"] > 0
    assert unsure["expected_uplift_low"] < 0
    assert any("cannot be told from zero" in warning for warning in unsure["warnings"])
    assert not any("cannot be told from zero" in warning for warning in sure["warnings"])


def test_without_any_spend_there_is_nothing_to_move() -> None:
    with pytest.raises(CapabilityError) as caught:
        allocate([Response("tv", 0.0, Curve(0, 1, 1))], "GBP", (100.0, 1, 0.3))
    assert caught.value.error.code == "mmm.nothing_spent"
