"""Generate the sample marketing data: what two invented retailers spent, week by week, and what they sold.

Standard library only, and deterministic: uniform numbers come from ``random.Random`` (stable across Python versions by its
documentation), normal ones from our own Box-Muller transform, and figures are rounded before they are written.

The data are invented; no real company, price or rate stands behind them. How they came about is known, so that an estimate
can be judged: weekly sales = (base + trend + season + promotion) + sum over channels of
``ceiling * a / (a + half_saturation)`` + noise, where ``a`` is spend with a geometric carry-over
(``a[t] = spend[t] + decay * a[t-1]``). The parameters and the resulting contributions are written to ``truth/``, which only
tests read. The story in contoso's data: in the quarter from July 2026 paid search is pushed far up its saturation curve while
its price per click rises, and its return falls.

Run ``python catalog/samples/generate.py`` to write the files anew, ``--out DIR`` to write them elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

SEED = 20_260_928
LAST_WEEK = date(2026, 9, 28)
"""Monday of the last week. A week belongs to the month and quarter of its Monday, so the third quarter of 2026 is complete."""
PUSH_FROM = date(2026, 7, 6)


@dataclass(frozen=True)
class Channel:
    """One channel. Money is per week in the tenant's currency; ``decay`` is the share of effect carried into the next week."""

    name: str
    spend: float
    decay: float
    half_saturation: float
    ceiling: float
    cost_per_click: float
    click_rate: float
    over_credit: float
    """What the channel's own tracking claims, as a multiple of what it really contributed."""
    flighted: bool = False
    push: float = 1.0
    """Factor on spend from ``PUSH_FROM`` on."""


@dataclass(frozen=True)
class Retailer:
    """One tenant's data set."""

    tenant_id: str
    currency: str
    weeks: int
    base: float
    noise: float
    channels: tuple[Channel, ...]


CONTOSO = Retailer(
    tenant_id="contoso",
    currency="GBP",
    weeks=156,
    base=250_000,
    noise=3_000,
    channels=(
        Channel("paid_search", 20_000, 0.2, 30_000, 141_000, 0.85, 0.045, 1.25, push=2.0),
        Channel("paid_social", 14_000, 0.4, 35_000, 84_000, 0.55, 0.012, 0.9),
        Channel("display", 8_000, 0.3, 12_000, 18_000, 0.4, 0.004, 0.6),
        Channel("tv", 25_000, 0.7, 120_000, 104_000, 0.0, 0.0, 0.0, flighted=True),
        Channel("email", 2_200, 0.1, 3_000, 34_000, 0.06, 0.03, 1.3),
    ),
)
FABRIKAM = Retailer(
    tenant_id="fabrikam",
    currency="EUR",
    weeks=104,
    base=90_000,
    noise=1_500,
    channels=(
        Channel("paid_search", 7_000, 0.2, 11_000, 45_000, 0.7, 0.05, 1.2),
        Channel("paid_social", 6_000, 0.4, 14_000, 34_000, 0.5, 0.014, 0.8),
        Channel("display", 2_500, 0.3, 4_000, 6_000, 0.35, 0.005, 0.5),
        Channel("email", 900, 0.1, 1_200, 13_000, 0.05, 0.035, 1.2),
    ),
)
RETAILERS = (CONTOSO, FABRIKAM)
RATES_FIRST, RATES_LAST = date(2023, 10, 2), date(2027, 12, 27)
RATES_START = {"GBP": 0.866, "USD": 1.058, "CHF": 0.966}
"""Units of each currency for one euro in the first week; from there a slow random walk that reverts to it."""


def normal(source: random.Random) -> float:
    """One standard normal number."""
    return math.sqrt(-2.0 * math.log(1.0 - source.random())) * math.cos(2.0 * math.pi * source.random())


def next_burst(channel: Channel, burst: float, source: random.Random) -> float:
    """The factor for the next few weeks: on or off for a flighted channel, else one of a few levels."""
    if channel.flighted:
        return 2.1 if burst < 0.5 else 0.05
    return (0.35, 1.0, 1.0, 1.2, 1.9)[int(source.random() * 5)]


def spend_series(channel: Channel, weeks: list[date], source: random.Random) -> list[int]:
    """Weekly spend: wandering around the channel's mean, with tests (weeks far above or below) or on-off flights."""
    level, burst, left, series = 0.0, 1.0, 0, []
    for week in weeks:
        level = 0.6 * level + 0.22 * normal(source)
        if left == 0:
            left = 3 + int(source.random() * 5)
            burst = next_burst(channel, burst, source)
        left -= 1
        if week >= PUSH_FROM and channel.push != 1.0:
            amount = channel.spend * channel.push * math.exp(0.35 * level)
        else:
            amount = channel.spend * burst * math.exp(level)
        series.append(round(amount / 10) * 10)
    return series


def contributions(channel: Channel, spend: list[int]) -> list[float]:
    """Sales that the channel caused in each week."""
    carried, result = 0.0, []
    for amount in spend:
        carried = amount + channel.decay * carried
        result.append(channel.ceiling * carried / (carried + channel.half_saturation))
    return result


def is_promotion(week: date) -> bool:
    """Weeks of a price promotion: late November, Christmas, mid-January, Easter-ish, midsummer."""
    return (week.month, (week.day - 1) // 7) in {(11, 3), (11, 4), (12, 1), (12, 2), (1, 1), (4, 1), (7, 1)}


def baseline(retailer: Retailer, index: int, week: date) -> float:
    """Sales without any marketing: base, growth of about four per cent a year, two annual waves, promotions."""
    angle = 2.0 * math.pi * index / (365.25 / 7)
    season = 0.06 * math.sin(angle + 0.4) + 0.03 * math.cos(2.0 * angle)
    promotion = 0.13 if is_promotion(week) else 0.0
    return retailer.base * (1.0 + 0.04 * index / 52.0 + season + promotion)


def media_row(
    channel: Channel, week: date, index: int, spend: int, effect: float, source: random.Random
) -> list[object]:
    """One line of media.csv. The price of a click rises with the bids, and by four per cent a year."""
    if channel.cost_per_click == 0.0:
        return [week.isoformat(), channel.name, spend, 0, 0, 0]
    pressure = max(0.4, spend / channel.spend) ** 0.35 * (1.0 + 0.04 * index / 52.0)
    clicks = round(spend / (channel.cost_per_click * pressure) * math.exp(0.03 * normal(source)))
    impressions = round(clicks / (channel.click_rate * math.exp(0.05 * normal(source))))
    attributed = round(effect * channel.over_credit * math.exp(0.06 * normal(source)))
    return [week.isoformat(), channel.name, spend, impressions, clicks, attributed if spend else 0]


def write_csv(path: Path, header: list[str], rows: list[list[object]]) -> None:
    """Write a CSV file with Unix line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, keys sorted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write_retailer(retailer: Retailer, out: Path) -> None:
    """Write one retailer's media.csv, sales.csv, dataset.json and its truth."""
    weeks = [LAST_WEEK - timedelta(weeks=retailer.weeks - 1 - index) for index in range(retailer.weeks)]
    spends, effects = {}, {}
    for channel in retailer.channels:
        source = random.Random(f"{SEED}:{retailer.tenant_id}:{channel.name}")  # noqa: S311 - data, not secrets
        spends[channel.name] = spend_series(channel, weeks, source)
        effects[channel.name] = contributions(channel, spends[channel.name])
    source = random.Random(f"{SEED}:{retailer.tenant_id}:weeks")  # noqa: S311
    media: list[list[object]] = []
    sales: list[list[object]] = []
    for index, week in enumerate(weeks):
        for channel in retailer.channels:
            figures = spends[channel.name][index], effects[channel.name][index]
            media.append(media_row(channel, week, index, *figures, source))
        caused = sum(series[index] for series in effects.values())
        total = baseline(retailer, index, week) + caused + retailer.noise * normal(source)
        sales.append([week.isoformat(), round(total), int(is_promotion(week))])
    folder = out / retailer.tenant_id
    write_csv(folder / "media.csv", ["week", "channel", "spend", "impressions", "clicks", "attributed_sales"], media)
    write_csv(folder / "sales.csv", ["week", "sales", "promotion"], sales)
    write_json(
        folder / "dataset.json", {"currency": retailer.currency, "source": "generated by catalog/samples/generate.py"}
    )
    write_json(out / "truth" / f"{retailer.tenant_id}.json", truth(retailer, weeks, effects))


def truth(retailer: Retailer, weeks: list[date], effects: dict[str, list[float]]) -> dict[str, object]:
    """What an estimate should find."""
    return {
        "weeks": [week.isoformat() for week in weeks],
        "channels": {
            channel.name: {
                "decay": channel.decay,
                "half_saturation": channel.half_saturation,
                "ceiling": channel.ceiling,
                "contributions": [round(value) for value in effects[channel.name]],
            }
            for channel in retailer.channels
        },
    }


def write_rates(out: Path) -> None:
    """Write rates.csv: one invented fixing a week, units of each currency for one euro."""
    source = random.Random(f"{SEED}:rates")  # noqa: S311
    rates, rows, week = dict(RATES_START), [], RATES_FIRST
    while week <= RATES_LAST:
        rows.append([week.isoformat(), *(f"{rates[currency]:.4f}" for currency in RATES_START)])
        for currency, start in RATES_START.items():
            rates[currency] += 0.03 * (start - rates[currency]) + 0.006 * start * normal(source)
        week += timedelta(weeks=1)
    write_csv(out / "rates.csv", ["date", *RATES_START], [list(row) for row in rows])


def main() -> None:
    """Write every generated file."""
    parser = argparse.ArgumentParser(description="Write the sample marketing data.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    for retailer in RETAILERS:
        write_retailer(retailer, out)
    write_rates(out)


if __name__ == "__main__":
    main()
