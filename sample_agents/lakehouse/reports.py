"""What a report is, whatever runs it: a name and a period in, a bounded table out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints, ValidationError

from agent_kit import CapabilityError, StepContext
from engine.domain.base import Frozen
from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse

ReportName = Literal["channel_efficiency", "weekly_sales", "promotion_effect"]
MAX_ROWS = 500
MAX_RESULT_BYTES = 256 * 1024
TITLES: dict[ReportName, str] = {
    "channel_efficiency": "Efficiency of the channels",
    "weekly_sales": "Sales and spend by week",
    "promotion_effect": "Weeks with and without a promotion",
}

Cell = Annotated[str, StringConstraints(max_length=500)] | Annotated[float, Field(allow_inf_nan=False)] | None


class ReportInputs(Frozen):
    """See the manifest."""

    report: ReportName
    start: date = Field(alias="from")
    end: date = Field(alias="to")


class ReportRows(Frozen):
    """What an engine answers with. Anything else is refused: in production it is a job's own text."""

    columns: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = Field(
        min_length=1, max_length=12
    )
    rows: tuple[tuple[Cell, ...], ...] = Field(max_length=MAX_ROWS)


@dataclass(frozen=True, slots=True)
class Report:
    """A report that ran. ``job_run`` names the run where there is one."""

    rows: ReportRows
    engine: Literal["databricks", "sqlite"]
    job_run: str | None = None


class ReportEngine(Protocol):
    """What runs reports."""

    async def run(self, inputs: ReportInputs, context: StepContext) -> Report:
        """Run one to its end. ``CapabilityError`` when that cannot be done; being cancelled stops what was started."""
        ...


def read_rows(data: bytes) -> ReportRows:
    """The rows in JSON text: ``{"columns", "rows"}`` within bounds. ``CapabilityError("lakehouse.bad_result")`` for others."""
    try:
        found = ReportRows.model_validate(parse(data, max_bytes=MAX_RESULT_BYTES))
    except (LivoaError, ValidationError):
        raise bad_result() from None
    if any(len(row) != len(found.columns) for row in found.rows):
        raise bad_result()
    return found


def bad_result() -> CapabilityError:
    """What a result in another form is refused with."""
    return CapabilityError("lakehouse.bad_result", "The report's result does not have the agreed form.")


def output_of(inputs: ReportInputs, report: Report) -> dict[str, Any]:
    """The output of ``lakehouse.report``. The table shows the first 50 rows; ``row_count`` counts all."""
    found: dict[str, Any] = {
        "report": inputs.report,
        "from": inputs.start.isoformat(),
        "to": inputs.end.isoformat(),
        "engine": report.engine,
        "row_count": len(report.rows.rows),
        "tables": [
            {
                "title": TITLES[inputs.report],
                "columns": list(report.rows.columns),
                "rows": [list(row) for row in report.rows.rows[:50]],
            }
        ],
    }
    return found if report.job_run is None else found | {"job_run": report.job_run}
