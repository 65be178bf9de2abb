"""Queries add up to what is in the files, whatever the grain, and comparisons compare like with like."""

from __future__ import annotations

import csv
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_kit import CapabilityError
from sample_agents.dataset import Dataset, Datasets, period_start, require_consecutive
from sample_agents.performance import CompareInputs, QueryInputs, compare, query
from tests.unit.sample_agents.conftest import SAMPLES


def asked(start: str, end: str, **more: object) -> QueryInputs:
    return QueryInputs.model_validate({"from": start, "to": end, **more})


def test_a_quarter_has_the_sums_of_the_file(contoso: Dataset) -> None:
    with (SAMPLES / "contoso" / "media.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if "2026-07-01" <= row["week"] <= "2026-09-30"]
    found = query(contoso, asked("2026-07-01", "2026-09-30", grain="quarter"))
    assert found["weeks"] == 13
    assert found["totals"]["spend"] == sum(float(row["spend"]) for row in rows)
    assert found["totals"]["clicks"] == sum(int(row["clicks"]) for row in rows)
    assert [row["channel"] for row in found["rows"]] == ["paid_search", "paid_social", "display", "tv", "email"]
    assert {row["period"] for row in found["rows"]} == {"2026-07-01"}
    assert found["to"] == "2026-10-04"


days = st.dates(date(2023, 10, 9), date(2026, 10, 4))


@given(days, days, st.sampled_from(["week", "month", "quarter"]))
@settings(max_examples=60, deadline=None)
def test_no_grain_loses_or_doubles_a_week(contoso: Dataset, start: date, end: date, grain: str) -> None:
    start, end = min(start, end), max(start, end)
    weeks = [row for row in contoso.sales if start <= row.week <= end]
    if not weeks:
        with pytest.raises(CapabilityError):
            query(contoso, asked(start.isoformat(), end.isoformat(), grain=grain))
        return
    found = query(contoso, asked(start.isoformat(), end.isoformat(), grain=grain))
    assert found["weeks"] == len(weeks)
    assert sum(row["sales"] for row in found["sales"]) == found["totals"]["sales"] == sum(w.sales for w in weeks)
    assert sum(row["spend"] for row in found["rows"]) == pytest.approx(found["totals"]["spend"])
    assert sum(one["spend_share"] for one in found["channels"]) == pytest.approx(1, abs=0.001)


def test_a_channel_without_clicks_has_no_price_per_click(contoso: Dataset) -> None:
    found = query(contoso, asked("2026-07-01", "2026-09-30", channels=["tv"]))
    assert all("cost_per_click" not in row for row in found["rows"])
    assert found["channels"][0]["spend_share"] == 1


def test_sales_of_the_company_are_never_divided_by_the_spend_of_some_channels(contoso: Dataset) -> None:
    found = query(contoso, asked("2026-07-01", "2026-09-30", channels=["email", "tv"]))
    email = next(one for one in found["channels"] if one["channel"] == "email")
    assert "sales_per_spend" not in found["totals"]
    ratios = {one["name"]: one["value"] for one in found["kpis"] if one["unit"] == "x"}
    assert ratios == {"Tracked sales per unit of spend (Email)": round(email["attributed_roi"], 2)}
    assert found["totals"]["attributed_roi"] == email["attributed_roi"]
    everything = query(contoso, asked("2026-07-01", "2026-09-30", channels=list(contoso.channels)))
    assert everything["totals"]["sales_per_spend"] > 0


def test_channels_are_ranked_by_tracked_sales_with_the_period_and_what_cannot_be_ranked(contoso: Dataset) -> None:
    found = query(contoso, asked("2026-07-01", "2026-09-30"))
    tracked = [one for one in found["channels"] if one["attributed_sales"]]
    best = max(tracked, key=lambda one: one["attributed_sales"])["channel"]
    first, *others = found["insights"]
    assert first["channel"] == best
    assert first["text"].startswith("Between 2026-07-06 and 2026-10-04: by tracked sales, most came from ")
    assert first["text"].count("for each unit spent") == len(tracked) == 4
    assert any(one["kind"] == "caveat" and one["text"].startswith("TV: no sales are tracked") for one in others)


def test_clicks_and_shares_of_the_spend_are_said_in_words(contoso: Dataset) -> None:
    found = query(contoso, asked("2026-07-01", "2026-09-30"))
    said = " ".join(one["text"] for one in found["insights"])
    assert f"{found['totals']['clicks']:,} clicks" in said
    for one in found["channels"]:
        assert f"({one['spend_share']:.0%})" in said


def test_a_channel_without_tracking_still_gets_its_period_and_its_spend(contoso: Dataset) -> None:
    found = query(contoso, asked("2026-07-01", "2026-09-30", channels=["tv"]))
    assert found["insights"][0]["text"].startswith("Between 2026-07-06 and 2026-10-04: GBP ")
    assert not any("Tracked" in one["name"] for one in found["kpis"])


def test_a_comparison_begins_with_both_periods_and_what_total_sales_did(contoso: Dataset) -> None:
    found = compare(contoso, CompareInputs.model_validate({"from": "2026-07-01", "to": "2026-09-30"}))
    moved = next(one for one in found["kpis"] if one["name"] == "Total sales of the company")["change"]
    text = found["insights"][0]["text"]
    assert text.startswith("Between 2026-07-06 and 2026-10-04, against 2026-04-06 to 2026-07-05: total sales ")
    assert f"{'rose' if moved > 0 else 'fell'} {abs(moved):.1%}" in text
    assert text.endswith("; marketing spend rose 30%.")


def test_weeks_belong_to_the_period_of_their_monday() -> None:
    assert period_start(date(2026, 9, 28), "quarter") == date(2026, 7, 1)
    assert period_start(date(2026, 12, 31), "quarter") == date(2026, 10, 1)
    assert period_start(date(2026, 2, 28), "month") == date(2026, 2, 1)
    assert period_start(date(2026, 3, 1), "week") == date(2026, 2, 23)


def test_the_last_complete_quarter_is_the_one_whose_mondays_are_all_there(contoso: Dataset) -> None:
    assert contoso.last_complete_quarter() == (date(2026, 7, 1), date(2026, 9, 30))


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        (asked("2026-09-30", "2026-07-01"), "data.period_invalid"),
        (asked("2030-01-01", "2030-03-31"), "data.period_empty"),
        (asked("2026-07-01", "2026-09-30", channels=["tv", "radio"]), "data.channel_unknown"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_code(contoso: Dataset, inputs: QueryInputs, code: str) -> None:
    with pytest.raises(CapabilityError) as caught:
        query(contoso, inputs)
    assert caught.value.error.code == code


def test_an_empty_period_says_what_there_is(contoso: Dataset) -> None:
    with pytest.raises(CapabilityError, match="from 2023-10-09 to 2026-10-04"):
        query(contoso, asked("2030-01-01", "2030-03-31"))


def test_without_a_previous_period_the_weeks_just_before_are_taken(contoso: Dataset) -> None:
    found = compare(contoso, CompareInputs.model_validate({"from": "2026-07-01", "to": "2026-09-30"}))
    assert found["current"]["weeks"] == found["previous"]["weeks"] == 13
    assert found["previous"]["to"] == "2026-07-05"
    search = next(one for one in found["changes"] if one["channel"] == "paid_search")
    assert search["spend_change"] == pytest.approx(search["spend"] / search["previous_spend"] - 1, abs=1e-4)
    assert any("Paid search rose" in one["text"] for one in found["insights"])


def test_periods_of_unequal_length_are_compared_by_the_week(contoso: Dataset) -> None:
    inputs = {"from": "2026-07-01", "to": "2026-09-30", "previous_from": "2025-10-01", "previous_to": "2026-06-30"}
    found = compare(contoso, CompareInputs.model_validate(inputs))
    now, before = found["current"], found["previous"]
    assert before["weeks"] == 39
    sales = next(one for one in found["kpis"] if one["name"] == "Total sales of the company")
    assert sales["change"] == pytest.approx(now["sales"] / 13 / (before["sales"] / 39) - 1, abs=1e-4)
    assert abs(sales["change"]) < 0.2


def test_a_tenant_reaches_its_own_folder_only() -> None:
    datasets = Datasets(SAMPLES)
    assert datasets.of("contoso").currency == "GBP"
    assert datasets.of("fabrikam").currency == "EUR"
    for foreign in ("northwind", "truth", "..", ".", "../contoso", "contoso/briefs", ""):
        with pytest.raises(CapabilityError) as caught:
            datasets.of(foreign)
        assert caught.value.error.code == "data.not_found"


@pytest.mark.parametrize("weeks", [[], [date(2026, 7, 7)], [date(2026, 7, 6), date(2026, 7, 20)]])
def test_weeks_with_gaps_or_of_other_days_are_refused(weeks: list[date]) -> None:
    with pytest.raises(ValueError, match="week"):
        require_consecutive(weeks)
