"""The one answer of a run, structured: what a caller shows and what the payload store keeps as JSON."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from engine.domain.base import Frozen, JsonValue

Figure = Annotated[float, Field(allow_inf_nan=False)]
"""A number that JSON can carry: an infinite one would be stored as null and not be readable again."""


class Kpi(Frozen):
    """One figure with its unit and the step it comes from. ``low`` and ``high`` bound it where the step gave an interval."""

    name: str
    value: Figure | int | str
    unit: str = ""
    change: Figure | None = None
    low: Figure | None = None
    high: Figure | None = None
    step_id: str


class AnswerTable(Frozen):
    """A small table; rows hold one JSON scalar per column.

    ``units`` holds one for each column, empty where the step gave none; it is empty when it gave none at all. Values stay as the
    step gave them: of a ``fraction`` (0.4) or a ``change`` (0.1) whoever shows them writes 40 % or +10 %.
    """

    title: str
    columns: tuple[str, ...]
    units: tuple[str, ...] = ()
    rows: tuple[tuple[JsonValue, ...], ...]
    step_id: str


class Insight(Frozen):
    """One finding in words, with the steps that support it."""

    text: str
    step_ids: tuple[str, ...] = ()


class Answer(Frozen):
    """The composed answer.

    ``degraded_reason`` is set when no model wrote it; ``missing`` names steps whose output the answer lacks and why.
    ``model`` wrote the summary, if one did: then ``cited`` are the steps it names, ``unsupported_figures`` its figures that
    no step's output bears out (each is marked in the text). ``removed_links`` counts addresses taken out of the answer.
    """

    goal: str
    summary: str
    kpis: tuple[Kpi, ...] = ()
    tables: tuple[AnswerTable, ...] = ()
    insights: tuple[Insight, ...] = ()
    missing: tuple[str, ...] = Field(default=())
    degraded_reason: str | None = None
    model: str | None = None
    cited: tuple[str, ...] = ()
    unsupported_figures: tuple[str, ...] = ()
    removed_links: int = 0
