"""The "external" rate service that ``rates.lookup`` calls: a small web app of its own with invented rates.

It stands for somebody else's service: it shares no code with the agents, knows no tenants and takes no tokens.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse

_MAX_AGE_DAYS = 10


class RateTable:
    """Fixings by date, in units of each currency for one euro."""

    def __init__(self, rows: Mapping[date, Mapping[str, float]]) -> None:
        self._rows = dict(sorted(rows.items()))
        self._dates = list(self._rows)

    @classmethod
    def read(cls, path: Path) -> RateTable:
        """Read a CSV file with a column ``date`` and one column per currency."""
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return cls(
            {
                date.fromisoformat(row["date"]): {"EUR": 1.0}
                | {currency: float(value) for currency, value in row.items() if currency != "date"}
                for row in rows
            }
        )

    def rate(self, base: str, quote: str, day: date) -> tuple[date, float] | None:
        """The last fixing on or before ``day``, at most ten days old, as (its date, units of ``quote`` for one ``base``)."""
        place = bisect_right(self._dates, day) - 1
        if place < 0 or (day - self._dates[place]).days > _MAX_AGE_DAYS:
            return None
        fixed = self._dates[place]
        row = self._rows[fixed]
        if base not in row or quote not in row:
            return None
        return fixed, round(row[quote] / row[base], 6)


def create_rates_app(rates: RateTable) -> FastAPI:
    """``GET /rates?base=GBP&quote=EUR&date=2026-09-30`` → ``{fixing_date, rate, source}`` or 404."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/rates")
    async def lookup(base: str, quote: str, date: date) -> JSONResponse:
        found = rates.rate(base, quote, date)
        if found is None:
            return JSONResponse({"error": "no fixing"}, 404)
        fixing_date, rate = found
        body = {"fixing_date": fixing_date.isoformat(), "rate": rate, "source": "sample rate service (invented rates)"}
        return JSONResponse(body)

    return app
