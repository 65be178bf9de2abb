"""Structured outputs: figures, tables, findings and references to artifacts, as agents of any kind can give them.

A capability is free to have another output schema; these are the words that consoles and composers understand without knowing
the capability. What is too large to pass inline is passed by reference; nothing here ever fetches one.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from engine.domain.base import Frozen

Cell = str | int | float | bool | None
MAX_ROWS = 5_000


class Kpi(Frozen):
    """One figure. ``unit`` is a currency code, ``percent``, ``count`` or another word; ``change`` is relative: 0.1 is +10 %."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)
    label: str = Field(min_length=1, max_length=200)
    value: int | float
    unit: str = Field(default="", max_length=20)
    change: float | None = None
    period: str = Field(default="", max_length=100)


class Column(Frozen):
    """A column of a table. ``unit`` is a currency code or another word; ``fraction`` (0.4 is 40 %) and ``change`` (0.1 is +10 %)
    are shown as percentages."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=100)
    label: str = Field(min_length=1, max_length=200)
    type: Literal["text", "number", "integer", "boolean", "date"] = "text"
    unit: str = Field(default="", max_length=20)


class Table(Frozen):
    """Rows of cells, each as long as there are columns. ``ValueError`` otherwise."""

    title: str = Field(min_length=1, max_length=200)
    columns: tuple[Column, ...] = Field(min_length=1, max_length=100)
    rows: tuple[tuple[Cell, ...], ...] = Field(max_length=MAX_ROWS)

    @model_validator(mode="after")
    def _is_rectangular(self) -> Table:
        width = len(self.columns)
        wrong = next((number for number, row in enumerate(self.rows) if len(row) != width), None)
        if wrong is not None:
            raise ValueError(f"row {wrong} has not {width} cells")
        return self


class Insight(Frozen):
    """A finding in words. ``refs`` are JSON Pointers (RFC 6901) into the same output: what it is seen from."""

    text: str = Field(min_length=1, max_length=2_000)
    importance: Literal["high", "medium", "low"] = "medium"
    refs: tuple[str, ...] = Field(default=(), max_length=20)


class Artifact(Frozen):
    """Something large that lies elsewhere. ``sha256`` commits to its content, so that whoever fetches it can check it."""

    title: str = Field(min_length=1, max_length=200)
    uri: str = Field(min_length=1, max_length=2_000)
    media_type: str = Field(pattern=r"^[a-z0-9.+-]+/[a-z0-9.+-]+$", max_length=100)
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StructuredOutput(Frozen):
    """An output made of these parts alone."""

    kpis: tuple[Kpi, ...] = Field(default=(), max_length=200)
    tables: tuple[Table, ...] = Field(default=(), max_length=50)
    insights: tuple[Insight, ...] = Field(default=(), max_length=200)
    artifacts: tuple[Artifact, ...] = Field(default=(), max_length=50)
