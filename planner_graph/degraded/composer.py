"""The composer that needs no model: collects KPIs, tables and insights from step outputs and says in words what they show.

It states nothing that is not in an output: figures are copied with the step they come from, insights and
passages are quoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from engine.domain.answer import Answer, AnswerTable, Insight, Kpi
from engine.ports.planner import AnswerSink, ComposeRequest, StepResult
from planner_graph.degraded.quotes import quotes

_MAX_KPIS = 24
_MAX_TABLES = 8
_MAX_ROWS = 50
_MAX_INSIGHTS = 12
_MAX_COLUMNS = 40
_MAX_NAME_CHARS = 120
_MAX_CELL_CHARS = 500
_MAX_INSIGHT_CHARS = 2_000
_PLAIN_BELOW = 1e15
"""A figure from here on is written with an exponent: nobody reads three hundred digits."""


class DegradedComposer:
    """Implements the ``AnswerComposer`` port by rule. ``reason`` says why no model was asked."""

    def __init__(self, *, reason: str = "no model is configured") -> None:
        self._reason = reason

    async def compose(self, request: ComposeRequest, sink: AnswerSink) -> Answer:
        """Compose the answer; each sentence of the summary is one delta."""
        done = [step for step in request.steps if step.status == "succeeded"]
        outputs = [(step, part) for step in done for part in _objects(step.output)]
        kpis = _first_by_name([kpi for step, part in outputs for kpi in _kpis(step, part)])[:_MAX_KPIS]
        tables = [table for step, part in outputs for table in _tables(step, part)][:_MAX_TABLES]
        found = [insight for step, part in outputs for insight in _insights(step, part)]
        # Passages speak for themselves only where no step has made findings of them.
        found = found or [quote for step, part in outputs for quote in quotes(step.step_id, part)]
        insights = _distinct(found)[:_MAX_INSIGHTS]
        missing = tuple(
            _missing(step) for step in request.steps if step.status != "succeeded" or step.error is not None
        )
        sentences = list(_summary(done, kpis, insights, missing))
        for sentence in sentences:
            await sink.write(sentence + "\n")
        return Answer(
            goal=request.goal,
            summary="\n".join(sentences),
            kpis=tuple(kpis),
            tables=tuple(tables),
            insights=tuple(insights),
            missing=missing,
            degraded_reason=self._reason,
        )


def _objects(output: Any) -> Iterator[dict[str, Any]]:
    """The objects that may carry KPIs, tables and insights: the output itself, or the items of a map's output."""
    if isinstance(output, dict):
        yield output
    elif isinstance(output, list):
        yield from (item for item in output if isinstance(item, dict))


def _entries(part: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    value = part.get(key)
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def _kpis(step: StepResult, part: dict[str, Any]) -> Iterator[Kpi]:
    for entry in _entries(part, "kpis"):
        fields = {
            key: entry[key] for key in ("name", "value", "unit", "change", "low", "high") if entry.get(key) is not None
        }
        for key in ("name", "value", "unit"):
            if isinstance(fields.get(key), str):
                fields[key] = fields[key][:_MAX_NAME_CHARS]
        try:
            yield Kpi.model_validate(fields | {"step_id": step.step_id})
        except ValidationError:
            continue


def _tables(step: StepResult, part: dict[str, Any]) -> Iterator[AnswerTable]:
    for entry in _entries(part, "tables"):
        columns, rows = entry.get("columns"), entry.get("rows")
        if not isinstance(columns, list) or not isinstance(rows, list):
            continue
        yield AnswerTable(
            title=str(entry.get("title", step.title))[:_MAX_NAME_CHARS],
            columns=tuple(str(column)[:_MAX_NAME_CHARS] for column in columns[:_MAX_COLUMNS]),
            rows=tuple(
                tuple(_cell(cell) for cell in row[:_MAX_COLUMNS]) for row in rows[:_MAX_ROWS] if isinstance(row, list)
            ),
            step_id=step.step_id,
        )


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    return str(value)[:_MAX_CELL_CHARS]


def _insights(step: StepResult, part: dict[str, Any]) -> Iterator[Insight]:
    for entry in _entries(part, "insights"):
        text = entry.get("text")
        if isinstance(text, str) and text.strip():
            yield Insight(text=_cut(text.strip(), _MAX_INSIGHT_CHARS), step_ids=(step.step_id,))


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _first_by_name(kpis: list[Kpi]) -> list[Kpi]:
    first: dict[str, Kpi] = {}
    for kpi in kpis:
        first.setdefault(kpi.name, kpi)
    return list(first.values())


def _distinct(insights: list[Insight]) -> list[Insight]:
    first: dict[str, Insight] = {}
    for insight in insights:
        first.setdefault(insight.text, insight)
    return list(first.values())


def _missing(step: StepResult) -> str:
    reason = f" ({step.error.code})" if step.error is not None else ""
    return f"{step.title} {step.status}{reason}"


def _summary(
    done: list[StepResult], kpis: list[Kpi], insights: list[Insight], missing: tuple[str, ...]
) -> Iterator[str]:
    if insights:
        yield from (insight.text for insight in insights[:5])
    elif kpis:
        yield "; ".join(f"{kpi.name}: {_figure(kpi)}" for kpi in kpis[:6]) + "."
    elif done:
        yield f"Finished: {', '.join(step.title for step in done)}. The outputs hold no KPIs or insights; see the steps."
    else:
        yield "No step that the answer needs has succeeded."
    if missing:
        yield f"Missing from this answer: {'; '.join(missing)}."


def _figure(kpi: Kpi) -> str:
    if isinstance(kpi.value, float):
        plain = abs(kpi.value) < _PLAIN_BELOW
        value = f"{kpi.value:,.2f}".rstrip("0").rstrip(".") if plain else f"{kpi.value:.3g}"
    else:
        value = str(kpi.value)
    return f"{value} {kpi.unit}".strip()
