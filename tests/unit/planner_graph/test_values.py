"""Dates, amounts and choices are found in the words people write, and nowhere else."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.playbook import PlaybookParameter
from planner_graph.degraded.values import Period, find_amounts, find_choices, find_periods, last_complete_quarter

TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Why did ROI fall in Q3?", (date(2026, 7, 1), date(2026, 9, 30))),
        ("compare q4 2025 with plan", (date(2025, 10, 1), date(2025, 12, 31))),
        ("Q4 so far", (date(2026, 10, 1), date(2026, 12, 31))),
        ("spend in December", (date(2025, 12, 1), date(2025, 12, 31))),
        ("spend in March 2025", (date(2025, 3, 1), date(2025, 3, 31))),
        ("from 2026-01-05 to 2026-02-01", (date(2026, 1, 5), date(2026, 2, 1))),
        ("how was last month", (date(2026, 10, 1), date(2026, 10, 31))),
        ("this quarter", (date(2026, 10, 1), date(2026, 12, 31))),
        ("last quarter", (date(2026, 7, 1), date(2026, 9, 30))),
        ("previous year", (date(2025, 1, 1), date(2025, 12, 31))),
        ("last week", (date(2026, 11, 9), date(2026, 11, 15))),
        ("the past 12 weeks", (date(2026, 8, 30), date(2026, 11, 21))),
        ("sales in 2024", (date(2024, 1, 1), date(2024, 12, 31))),
    ],
)
def test_a_named_period_is_found(text, expected):
    assert find_periods(text, TODAY)[0] == Period(*expected)


@pytest.mark.parametrize("text", ["may we spend more?", "2026-13-45 to 2026-14-01", "nothing here", "Q5 and q0"])
def test_words_that_name_no_period_give_none(text):
    assert find_periods(text, TODAY) == ()


def test_periods_come_in_the_order_they_are_named():
    first, second = find_periods("compare March 2025 with Q1 2024", TODAY)
    assert (first.start, second.start) == (date(2025, 3, 1), date(2024, 1, 1))


def test_neighbours_of_a_quarter_are_quarters():
    quarter = Period(date(2026, 7, 1), date(2026, 9, 30))
    assert quarter.previous == Period(date(2026, 4, 1), date(2026, 6, 30))
    assert quarter.following == Period(date(2026, 10, 1), date(2026, 12, 31))


@given(st.dates(min_value=date(1990, 1, 1), max_value=date(2090, 1, 1)))
def test_the_last_complete_quarter_is_over_and_adjacent(today):
    period = last_complete_quarter(today)
    assert period.end < today
    assert period.following.start <= today <= period.following.end


@given(st.dates(min_value=date(1990, 1, 1), max_value=date(2090, 1, 1)), st.integers(0, 400))
def test_the_previous_period_ends_the_day_before(start, days):
    period = Period(start, date.fromordinal(start.toordinal() + days))
    assert (period.start - period.previous.end).days == 1


@given(st.text(max_size=300))
def test_no_text_breaks_the_readers(text):
    find_periods(text, TODAY)
    find_amounts(text)


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("split £120,000 over channels", (120_000.0,)),
        ("a budget of 50k", (50_000.0,)),
        ("1.5 million for Q4 2026", (1_500_000.0,)),
        ("raise by 10% in 2026", ()),
        ("the last 12 weeks", ()),
        ("from 2026-01-05 to 2026-02-01", ()),
    ],
)
def test_amounts_are_told_from_dates_and_percentages(text, amounts):
    assert find_amounts(text) == amounts


def test_choices_are_found_by_name_or_synonym_in_order():
    parameter = PlaybookParameter(
        name="channels",
        choices=("paid_search", "tv"),
        synonyms={"paid_search": ("search ads", "SEM"), "tv": ("television",)},
    )
    assert find_choices(parameter, "Is television better than SEM?") == ("tv", "paid_search")
    assert find_choices(parameter, "paid-search ROI") == ("paid_search",)
    assert find_choices(parameter, "researching activity") == ()


@pytest.mark.parametrize(
    "text", ["from 0001-01-01 to 0001-02-01", "9999-10-01 to 9999-12-31", "0001-01-01 to 9999-12-31"]
)
def test_periods_at_the_edge_of_the_calendar_are_no_periods(text):
    """They have no neighbours, and asking for one would end planning with an exception."""
    assert find_periods(text, TODAY) == ()


def test_a_number_beyond_every_amount_is_none():
    assert find_amounts("spend " + "9" * 400) == ()
