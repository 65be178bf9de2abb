"""The composer that needs no model: collects KPIs, tables and insights from step outputs and says in words what they show.

It states nothing that is not in an output: figures are copied with the step they come from, insights and
passages are quoted. Addresses in any of it are taken out like those of a model's text, because agents may be foreign too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError

from engine.domain.answer import Answer, AnswerTable, Insight, Kpi
from engine.ports.planner import AnswerSink, ComposeRequest, StepResult
from planner_graph.degraded.quotes import quotes
from policy.links import clean_links

_MAX_KPIS = 24
_MAX_TABLES = 8
_MAX_ROWS = 50
_MAX_INSIGHTS = 12
_MAX_COLUMNS = 40
_MAX_NAME_CHARS = 120
_MAX_UNIT_CHARS = 20
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
        # In a thread: outputs may be large, and other activities share the loop.
        answer = await asyncio.to_thread(_answer, request, self._reason)
        for sentence in answer.summary.split("\n"):
            await sink.write(sentence + "\n")
        return answer


@dataclass(slots=True)
class _Links:
    """Takes addresses out of texts and counts them."""

    hosts: Collection[str]
    removed: int = 0

    def out_of(self, text: str) -> str:
        """The text without those of other hosts."""
        cleaned, count = clean_links(text, self.hosts)
        self.removed += count
        return cleaned


def _answer(request: ComposeRequest, reason: str) -> Answer:
    links = _Links(request.tenant.answer.link_hosts if request.tenant is not None else ())
    done = [step for step in request.steps if step.status == "succeeded"]
    outputs = [(step, part) for step in done for part in _objects(step.output)]
    kpis = _first_by_name([kpi for step, part in outputs for kpi in _kpis(step, part, links)])[:_MAX_KPIS]
    tables = [table for step, part in outputs for table in islice(_tables(step, part, links), _MAX_TABLES)]
    found = [insight for step, part in outputs for insight in _insights(step, part, links)]
    # Passages speak for themselves only where no step has made findings of them.
    found = found or [quote for step, part in outputs for quote in quotes(step.step_id, part)]
    insights = _distinct(found)[:_MAX_INSIGHTS]
    missing = tuple(_missing(step) for step in request.steps if step.status != "succeeded" or step.error is not None)
    return Answer(
        goal=links.out_of(request.goal),
        summary="\n".join(_summary(done, kpis, insights, missing)),
        kpis=tuple(kpis),
        tables=tuple(tables[:_MAX_TABLES]),
        insights=tuple(insights),
        missing=missing,
        degraded_reason=reason,
        removed_links=links.removed,
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


def _kpis(step: StepResult, part: dict[str, Any], links: _Links) -> Iterator[tuple[str, Kpi]]:
    """Figures beside the names that tell them apart; shown is the label, where there is one (``engine.domain.outputs.Kpi``)."""
    for entry in _entries(part, "kpis"):
        fields = {
            key: entry[key] for key in ("name", "value", "unit", "change", "low", "high") if entry.get(key) is not None
        }
        name = str(fields.get("name", ""))
        if isinstance(entry.get("label"), str) and entry["label"].strip():
            fields["name"] = entry["label"]
        for key in ("name", "value", "unit"):
            if isinstance(fields.get(key), str):
                fields[key] = links.out_of(fields[key][:_MAX_NAME_CHARS])
        try:
            yield name, Kpi.model_validate(fields | {"step_id": step.step_id})
        except ValidationError:
            continue


def _tables(step: StepResult, part: dict[str, Any], links: _Links) -> Iterator[AnswerTable]:
    for entry in _entries(part, "tables"):
        columns, rows = entry.get("columns"), entry.get("rows")
        if not isinstance(columns, list) or not isinstance(rows, list):
            continue
        yield AnswerTable(
            title=links.out_of(str(entry.get("title", step.title))[:_MAX_NAME_CHARS]),
            columns=tuple(links.out_of(_label(column)[:_MAX_NAME_CHARS]) for column in columns[:_MAX_COLUMNS]),
            units=_units(columns[:_MAX_COLUMNS], links),
            rows=tuple(
                tuple(_cell(cell, links) for cell in row[:_MAX_COLUMNS])
                for row in rows[:_MAX_ROWS]
                if isinstance(row, list)
            ),
            step_id=step.step_id,
        )


def _label(column: Any) -> str:
    """A column is its label, or an object with one (``engine.domain.outputs.Column``)."""
    if isinstance(column, dict):
        return str(column.get("label") or column.get("name") or "")
    return str(column)


def _units(columns: list[Any], links: _Links) -> tuple[str, ...]:
    """What the step says its columns are counted in; nothing is guessed from names or values."""
    given = [column.get("unit") if isinstance(column, dict) else None for column in columns]
    units = tuple(links.out_of(unit[:_MAX_UNIT_CHARS]) if isinstance(unit, str) else "" for unit in given)
    return units if any(units) else ()


def _cell(value: Any, links: _Links) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    return links.out_of(str(value)[:_MAX_CELL_CHARS])


def _insights(step: StepResult, part: dict[str, Any], links: _Links) -> Iterator[Insight]:
    for entry in _entries(part, "insights"):
        text = entry.get("text")
        if isinstance(text, str) and text.strip():
            shown = links.out_of(_cut(text.strip(), _MAX_INSIGHT_CHARS))
            if shown.strip():
                yield Insight(text=shown, step_ids=(step.step_id,))


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[: chars - 1] + "…"


def _first_by_name(kpis: list[tuple[str, Kpi]]) -> list[Kpi]:
    first: dict[str, Kpi] = {}
    for name, kpi in kpis:
        first.setdefault(name, kpi)
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
