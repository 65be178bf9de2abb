"""The reports in SQL over a tenant's sample data, in a database in memory that holds nobody else's."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from agent_kit import StepContext
from sample_agents.dataset import Dataset, Datasets, span
from sample_agents.lakehouse.reports import MAX_ROWS, Report, ReportInputs, ReportName, ReportRows

_TABLES = """
CREATE TABLE media (week TEXT, channel TEXT, spend REAL, impressions INTEGER, clicks INTEGER, attributed_sales REAL);
CREATE TABLE sales (week TEXT, sales REAL, promotion INTEGER);
"""
_QUERIES: dict[ReportName, str] = {
    "channel_efficiency": """
        SELECT channel AS "Channel", round(sum(spend), 2) AS "Spend", sum(clicks) AS "Clicks",
               round(sum(spend) / nullif(sum(clicks), 0), 4) AS "Cost per click",
               round(sum(attributed_sales) / nullif(sum(spend), 0), 4) AS "Tracked sales per unit"
        FROM media WHERE week BETWEEN :start AND :end GROUP BY channel ORDER BY sum(spend) DESC, channel""",
    "weekly_sales": """
        SELECT sales.week AS "Week", round(sales.sales, 2) AS "Sales", round(coalesce(spent.spend, 0), 2) AS "Spend",
               sales.promotion AS "Promotion"
        FROM sales LEFT JOIN (SELECT week, sum(spend) AS spend FROM media GROUP BY week) AS spent USING (week)
        WHERE sales.week BETWEEN :start AND :end ORDER BY sales.week""",
    "promotion_effect": """
        SELECT CASE promotion WHEN 1 THEN 'With a promotion' ELSE 'Without' END AS "Weeks", count(*) AS "Count",
               round(avg(sales), 2) AS "Average sales"
        FROM sales WHERE week BETWEEN :start AND :end GROUP BY promotion ORDER BY promotion DESC""",
}


class SqliteEngine:
    """Implements ``ReportEngine`` over the sample data."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    async def run(self, inputs: ReportInputs, context: StepContext) -> Report:
        """See ``ReportEngine``. ``CapabilityError`` ``data.*`` for a period without data."""
        data = self._datasets.of(context.tenant_id)
        span(data, inputs.start, inputs.end)  # refuses what the data do not cover
        return Report(await context.compute(query, data, inputs), "sqlite")


def query(data: Dataset, inputs: ReportInputs) -> ReportRows:
    """The rows of one report."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_TABLES)
        database.executemany(
            "INSERT INTO media VALUES (?, ?, ?, ?, ?, ?)",
            [(r.week.isoformat(), r.channel, r.spend, r.impressions, r.clicks, r.attributed_sales) for r in data.media],
        )
        database.executemany(
            "INSERT INTO sales VALUES (?, ?, ?)", [(r.week.isoformat(), r.sales, int(r.promotion)) for r in data.sales]
        )
        period = {"start": inputs.start.isoformat(), "end": inputs.end.isoformat()}
        found = database.execute(_QUERIES[inputs.report], period)
        columns = tuple(column[0] for column in found.description)
        return ReportRows(columns=columns, rows=tuple(found.fetchmany(MAX_ROWS)))
