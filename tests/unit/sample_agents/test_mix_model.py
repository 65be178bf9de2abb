"""The mix model finds what is known to be there, and its intervals are honest."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest

from agent_kit import CapabilityError
from sample_agents.dataset import Dataset, MediaWeek
from sample_agents.mix_model.curves import Curve, carry_over
from sample_agents.mix_report import FitWindow, report

Q3 = FitWindow(date(2026, 7, 1), date(2026, 9, 30), date(2026, 4, 1), date(2026, 6, 30))
TOLERANCE = 0.2
"""For channels that cause more than five per cent of sales. Of the small ones only the interval can be asked to be right."""


def true_figures(truth: dict[str, Any], data: Dataset, start: date, end: date) -> dict[str, tuple[float, float]]:
    """ROI and marginal ROI per channel in a period, from the parameters that made the data."""
    inside = [start <= date.fromisoformat(week) <= end for week in truth["weeks"]]
    figures = {}
    for name, one in truth["channels"].items():
        spend = [row.spend for row in data.media if row.channel == name and start <= row.week <= end]
        caused = sum(value for value, counts in zip(one["contributions"], inside, strict=True) if counts)
        curve = Curve(one["decay"], one["half_saturation"], one["ceiling"])
        figures[name] = (caused / sum(spend), curve.marginal(sum(spend) / len(spend)))
    return figures


@pytest.fixture(scope="session")
def fitted(contoso: Dataset) -> dict[str, Any]:
    return report(contoso, Q3)


@pytest.fixture(scope="session")
def truth_q3(contoso: Dataset, truths: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    return true_figures(truths["contoso"], contoso, Q3.start, Q3.end)


def test_returns_are_close_to_the_truth(fitted: dict[str, Any], truth_q3: dict[str, tuple[float, float]]) -> None:
    large = {one["channel"]: one["roi"] for one in fitted["channels"] if one["contribution_share"] > 0.05}
    assert set(large) == {"paid_search", "paid_social", "tv"}
    for name, roi in large.items():
        assert roi == pytest.approx(truth_q3[name][0], rel=TOLERANCE), name


def test_intervals_hold_the_truth_and_are_not_empty_words(
    fitted: dict[str, Any], truth_q3: dict[str, tuple[float, float]]
) -> None:
    for one in fitted["channels"]:
        roi, marginal = truth_q3[one["channel"]]
        assert one["roi_low"] <= roi <= one["roi_high"], one["channel"]
        assert one["marginal_roi_low"] * 0.95 <= marginal <= one["marginal_roi_high"] * 1.05, one["channel"]
    widths = {one["channel"]: (one["roi_high"] - one["roi_low"]) / one["roi"] for one in fitted["channels"]}
    assert widths["paid_search"] < 0.3
    assert widths["display"] > widths["paid_search"], "the small channel is the uncertain one"


def test_the_second_tenant_is_fitted_as_honestly(fabrikam: Dataset, truths: dict[str, dict[str, Any]]) -> None:
    truth = true_figures(truths["fabrikam"], fabrikam, Q3.start, Q3.end)
    found = report(fabrikam, FitWindow(Q3.start, Q3.end))["channels"]
    held = [one["roi_low"] <= truth[one["channel"]][0] <= one["roi_high"] for one in found]
    assert sum(held) >= 3, "90 % intervals of four channels"


def test_the_fall_of_paid_search_is_found_with_its_cause(fitted: dict[str, Any]) -> None:
    search = next(one for one in fitted["channels"] if one["channel"] == "paid_search")
    assert search["roi_change"] < -0.25
    assert search["marginal_roi"] < 0.5 * search["roi"]
    assert any("Paid search fell" in one["text"] for one in fitted["insights"])


def test_the_first_finding_names_both_periods(fitted: dict[str, Any]) -> None:
    text = fitted["insights"][0]["text"]
    assert text.startswith("Between 2026-07-06 and 2026-10-04, against 2026-04-06 to 2026-07-05: by the model, ")


def test_the_model_predicts_weeks_it_has_not_seen(fitted: dict[str, Any]) -> None:
    assert fitted["quality"]["r2"] > 0.95
    assert fitted["quality"]["validation_mape"] < 0.02


def test_the_baseline_share_is_that_of_the_truth(
    fitted: dict[str, Any], contoso: Dataset, truths: dict[str, dict[str, Any]]
) -> None:
    truth = truths["contoso"]
    inside = [Q3.start <= date.fromisoformat(week) <= Q3.end for week in truth["weeks"]]
    caused = sum(np.array(one["contributions"])[inside].sum() for one in truth["channels"].values())
    sold = sum(row.sales for row in contoso.sales if Q3.start <= row.week <= Q3.end)
    assert fitted["baseline_share"] == pytest.approx(1 - caused / sold, abs=0.05)


def test_the_same_data_give_the_same_answer_and_soon(contoso: Dataset, fitted: dict[str, Any]) -> None:
    began = time.process_time()
    assert report(contoso, Q3) == fitted
    assert time.process_time() - began < 4, "about a second on a quiet machine"


def test_weeks_after_the_period_are_not_used(contoso: Dataset) -> None:
    window = FitWindow(date(2026, 1, 1), date(2026, 3, 31))
    later = tuple(replace(row, sales=row.sales * 5) if row.week > window.end else row for row in contoso.sales)
    assert report(replace(contoso, sales=later), window) == report(contoso, window)


def test_a_channel_that_does_nothing_gets_no_credit(contoso: Dataset) -> None:
    rng = np.random.default_rng(3)
    idle = tuple(MediaWeek(row.week, "posters", float(rng.integers(1_000, 9_000)), 0, 0, 0.0) for row in contoso.sales)
    found = report(replace(contoso, media=contoso.media + idle), FitWindow(Q3.start, Q3.end))
    posters = next(one for one in found["channels"] if one["channel"] == "posters")
    assert posters["contribution_share"] < 0.02
    assert posters["roi_low"] < 0.5


def test_noise_is_called_noise(contoso: Dataset) -> None:
    rng = np.random.default_rng(5)
    noise = tuple(replace(row, sales=float(rng.normal(400_000, 40_000))) for row in contoso.sales)
    found = report(replace(contoso, sales=noise), FitWindow(Q3.start, Q3.end))
    assert found["quality"]["r2"] < 0.5
    assert any("treat it as a hint" in warning for warning in found["warnings"])
    assert any("uncertain" in warning for warning in found["warnings"])


def test_too_little_history_is_refused_with_both_numbers(contoso: Dataset) -> None:
    with pytest.raises(CapabilityError) as caught:
        report(contoso, FitWindow(date(2024, 1, 1), date(2024, 3, 31)))
    assert caught.value.error.code == "mmm.too_few_weeks"
    assert "78" in caught.value.error.message
    assert "25" in caught.value.error.message


def test_carry_over_decays_geometrically() -> None:
    assert carry_over(np.array([100.0, 0, 0, 10]), 0.5).tolist() == [100.0, 50.0, 25.0, 22.5]


def test_the_marginal_return_is_the_slope_of_the_curve() -> None:
    curve = Curve(0.4, 30_000, 90_000)
    for spend in (0.0, 5_000.0, 40_000.0):
        slope = (curve.weekly(spend + 0.01) - curve.weekly(spend)) / 0.01
        assert curve.marginal(spend) == pytest.approx(slope, rel=1e-4)
        assert curve.spend_at(curve.marginal(spend)) == pytest.approx(spend, abs=1e-3)
