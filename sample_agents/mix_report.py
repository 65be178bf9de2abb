"""From a fitted model to the output of ``mmm.fit``: figures for a period, with intervals, in words too, and honest warnings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from agent_kit import CapabilityError
from sample_agents.dataset import Dataset, Span, span
from sample_agents.figures import Column, between, change, headline, insight, kpi, money, table, without_none
from sample_agents.mix_model.curves import Curve, Shape, saturated
from sample_agents.mix_model.fit import MIN_WEEKS, MixFit, Tell, WeeklyData, fit_mix, nobody

if TYPE_CHECKING:
    from sample_agents.mix_model.curves import Series

LOW, HIGH = 0.05, 0.95
_MODEL_DRAWS = 40
_WIDE = 0.8
_STANDING = (
    "The model sees spend and sales only: prices, stock and competitors are left to the trend, the season and the noise.",
    "Returns are sales, not profit; channels are assumed not to help or hurt each other.",
)


@dataclass(frozen=True, slots=True)
class FitWindow:
    """The period to report on, and an earlier one to compare with."""

    start: date
    end: date
    compare_from: date | None = None
    compare_to: date | None = None


@dataclass(frozen=True)
class _Fitted:
    """A fit, the data it saw, and the parts of it that are reported."""

    fit: MixFit
    weekly: WeeklyData
    now: Any
    """Mask of the weeks to report on."""
    before: Any
    """Mask of the weeks to compare with, or None."""

    def effect(self, channel: str, curve: Curve) -> Series:
        """Sales per week that the channel caused according to ``curve``."""
        return saturated(self.weekly.spend[channel], Shape(curve.decay, curve.half_saturation)) * curve.ceiling

    def roi(self, channel: str, curve: Curve, mask: Any) -> float | None:
        """Sales caused in the masked weeks for each unit spent in them. Carry-over from earlier weeks counts."""
        spent = float(self.weekly.spend[channel][mask].sum())
        return float(self.effect(channel, curve)[mask].sum()) / spent if spent > 0 else None

    def weekly_spend(self, channel: str) -> float:
        """Mean weekly spend in the reported period."""
        return float(self.weekly.spend[channel][self.now].mean())


def report(data: Dataset, window: FitWindow, tell: Tell = nobody) -> dict[str, Any]:
    """Fit all weeks up to the end of the window and report on it. CPU-bound, about a second.

    ``CapabilityError``: ``mmm.too_few_weeks``, ``mmm.nothing_spent``, and those of ``span``.
    """
    part = span(data, window.start, window.end)
    seen = span(data, data.first, window.end)
    fitted = _fit(seen, part, window, data, tell)
    channels = [_channel(fitted, name) for name in fitted.fit.channels if fitted.weekly_spend(name) > 0]
    if not channels:
        raise CapabilityError("mmm.nothing_spent", "Nothing was spent in this period, so there is no return to report.")
    fit = fitted.fit
    caused = sum(one["contribution"] for one in channels)
    sold = float(fitted.weekly.sales[fitted.now].sum())
    warnings = _warnings(fitted, channels)
    return {
        "currency": data.currency,
        "from": part.sales[0].week.isoformat(),
        "to": (part.sales[-1].week + timedelta(days=6)).isoformat(),
        "weeks": part.weeks,
        "train_from": seen.sales[0].week.isoformat(),
        "train_to": (seen.sales[-1].week + timedelta(days=6)).isoformat(),
        "train_weeks": seen.weeks,
        "quality": {name: round(getattr(fit, name), 4) for name in ("r2", "mape", "validation_mape")},
        "channels": channels,
        "baseline_share": round(1.0 - caused / sold, 4) if sold else 0.0,
        "model": _model(fitted, data.currency),
        "kpis": _kpis(fitted, channels, caused, sold, data.currency),
        "tables": [_table(channels, data.currency)],
        "insights": [
            _opening(fitted, part, caused, sold, data.currency),
            *_insights(channels),
        ],
        "warnings": warnings,
    }


def _fit(seen: Span, part: Span, window: FitWindow, data: Dataset, tell: Tell) -> _Fitted:
    import numpy as np

    weeks = tuple(row.week for row in seen.sales)
    place = {week: index for index, week in enumerate(weeks)}
    spend = {name: np.zeros(len(weeks)) for name in data.channels}
    for row in seen.media:
        spend[row.channel][place[row.week]] = row.spend
    weekly = WeeklyData(
        weeks,
        spend,
        np.array([row.sales for row in seen.sales]),
        np.array([float(row.promotion) for row in seen.sales]),
    )
    if len(weeks) < MIN_WEEKS:
        raise CapabilityError(
            "mmm.too_few_weeks", f"A fit needs {MIN_WEEKS} weeks up to the end of the period; there are {len(weeks)}."
        )
    before = None
    if window.compare_from is not None and window.compare_to is not None:
        earlier = span(data, window.compare_from, window.compare_to)
        before = np.isin(np.array(weeks), np.array([row.week for row in earlier.sales]))
    try:
        fit = fit_mix(weekly, tell)
    except ValueError:
        raise CapabilityError("mmm.nothing_spent", "No channel spends anything in these weeks.") from None
    return _Fitted(fit, weekly, np.isin(np.array(weeks), np.array([row.week for row in part.sales])), before)


def _interval(values: list[float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(values, [LOW, HIGH])
    return float(low), float(high)


def _channel(fitted: _Fitted, name: str) -> dict[str, Any]:
    curve, draws = fitted.fit.curves[name], fitted.fit.draws[name]
    spend = float(fitted.weekly.spend[name][fitted.now].sum())
    weekly = fitted.weekly_spend(name)
    contribution = float(fitted.effect(name, curve)[fitted.now].sum())
    sold = float(fitted.weekly.sales[fitted.now].sum())
    low, high = _interval([fitted.roi(name, draw, fitted.now) or 0.0 for draw in draws])
    marginal_low, marginal_high = _interval([draw.marginal(weekly) for draw in draws])
    previous = fitted.roi(name, curve, fitted.before) if fitted.before is not None else None
    roi = contribution / spend
    return without_none(
        {
            "channel": name,
            "spend": round(spend, 2),
            "contribution": round(contribution, 2),
            "contribution_share": round(contribution / sold, 4) if sold else 0.0,
            "roi": round(roi, 4),
            "roi_low": round(min(low, roi), 4),
            "roi_high": round(max(high, roi), 4),
            "marginal_roi": round(curve.marginal(weekly), 4),
            "marginal_roi_low": round(marginal_low, 4),
            "marginal_roi_high": round(marginal_high, 4),
            "saturation": round(curve.saturation(weekly), 4),
            "previous_roi": round(previous, 4) if previous is not None else None,
            "roi_change": change(roi, previous) if previous else None,
        }
    )


def _model(fitted: _Fitted, currency: str) -> dict[str, Any]:
    def parameters(curve: Curve) -> dict[str, float]:
        return {
            "decay": round(curve.decay, 4),
            "half_saturation": round(curve.half_saturation, 2),
            "ceiling": round(curve.ceiling, 2),
        }

    return {
        "currency": currency,
        "channels": [
            {
                "channel": name,
                "weekly_spend": round(fitted.weekly_spend(name), 2),
                **parameters(fitted.fit.curves[name]),
                "draws": [parameters(draw) for draw in fitted.fit.draws[name][:_MODEL_DRAWS]],
            }
            for name in fitted.fit.channels
        ],
    }


def _kpis(
    fitted: _Fitted, channels: list[dict[str, Any]], caused: float, sold: float, currency: str
) -> list[dict[str, Any]]:
    spent = sum(one["spend"] for one in channels)
    found = [
        kpi("Sales caused by marketing", round(caused), currency),
        kpi("Share of sales caused by marketing", round(100 * caused / sold, 1) if sold else 0.0, "%"),
        kpi("Marketing ROI", round(caused / spent, 2), "x"),
    ]
    for one in channels:
        bounds = {"low": round(one["roi_low"], 2), "high": round(one["roi_high"], 2)}
        name = f"ROI {headline(one['channel'])}"
        found.append(kpi(name, round(one["roi"], 2), "x", change=one.get("roi_change"), **bounds))
    found.append(kpi("Model error on unseen weeks", round(100 * fitted.fit.validation_mape, 2), "%"))
    return found[:24]


def _table(channels: list[dict[str, Any]], currency: str) -> dict[str, Any]:
    columns: tuple[Column, ...] = (
        "Channel",
        f"Spend ({currency})",
        f"Caused sales ({currency})",
        "ROI",
        "ROI low",
        "ROI high",
        "Marginal ROI",
        ("Saturation", "fraction"),
    )
    names = ("spend", "contribution", "roi", "roi_low", "roi_high", "marginal_roi", "saturation")
    return table(
        "Return by channel",
        columns,
        ([headline(one["channel"]), *(round(one[n], 2) for n in names)] for one in channels),
    )


def _opening(fitted: _Fitted, part: Span, caused: float, sold: float, currency: str) -> dict[str, Any]:
    """What marketing caused in all, and in which period; the period that returns are compared with, if any."""
    earlier = None
    if fitted.before is not None and fitted.before.any():
        weeks = [week for week, inside in zip(fitted.weekly.weeks, fitted.before, strict=True) if inside]
        earlier = weeks[0].isoformat(), (weeks[-1] + timedelta(days=6)).isoformat()
    start, end = part.sales[0].week, part.sales[-1].week + timedelta(days=6)
    share = f" ({caused / sold:.0%} of all sales)" if sold else ""
    text = f"by the model, marketing caused {money(caused, currency)} of sales{share} in the later period"
    if earlier is None:
        text = text.removesuffix(" in the later period")
    return insight("finding", f"{between(start.isoformat(), end.isoformat(), earlier)}: {text}.")


def _insights(channels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    fallen = [one for one in channels if one.get("roi_change", 0.0) <= -0.1]
    for one in sorted(fallen, key=lambda one: one["roi_change"])[:2]:
        text = (
            f"The return of {headline(one['channel'])} fell from {one['previous_roi']:.2f} to {one['roi']:.2f} "
            f"({one['roi_low']:.2f} to {one['roi_high']:.2f}); the next unit of money brings {one['marginal_roi']:.2f}, "
            f"and the channel stands at {100 * one['saturation']:.0f}% of its ceiling."
        )
        found.append(insight("finding", text, one["channel"]))
    ranked = sorted(channels, key=lambda one: one["marginal_roi"])
    if len(ranked) > 1:
        worst, best = ranked[0], ranked[-1]
        text = (
            f"The next unit of money brings most in {headline(best['channel'])} ({best['marginal_roi']:.2f}) "
            f"and least in {headline(worst['channel'])} ({worst['marginal_roi']:.2f})."
        )
        found.append(insight("finding", text))
    return found


def _warnings(fitted: _Fitted, channels: list[dict[str, Any]]) -> list[str]:
    found = []
    if fitted.fit.r2 < 0.8:
        found.append(
            f"The model explains only {100 * fitted.fit.r2:.0f}% of the variation of sales; treat it as a hint."
        )
    if fitted.fit.validation_mape > 2 * fitted.fit.mape + 0.01:
        found.append("The model predicts unseen weeks much worse than those it was fitted on.")
    for one in channels:
        name = headline(one["channel"])
        if one["roi_high"] - one["roi_low"] > _WIDE * max(one["roi"], 1e-9):
            found.append(
                f"The return of {name} is uncertain: {one['roi_low']:.2f} to {one['roi_high']:.2f}. "
                "A test with the channel switched off in one region would settle it."
            )
        spend = fitted.weekly.spend[one["channel"]]
        if float(spend.std()) < 0.1 * float(spend.mean()):
            found.append(f"Spend on {name} hardly varies, so its effect cannot be told from the base.")
    return [*found, *_STANDING][:20]
