"""Parts of structured outputs: they hold what they say, and their schema can stand in a manifest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from agent_kit.outputs import Artifact, Column, Insight, Kpi, StructuredOutput, Table, schema_of
from agent_kit.schemas import CompiledSchema

OUTPUT = StructuredOutput(
    kpis=(Kpi(name="roi", label="ROI", value=1.4, change=-0.37),),
    tables=(
        Table(
            title="Spend",
            columns=(Column(name="channel", label="Channel"), Column(name="spend", label="Spend", type="number")),
            rows=(("search", 1200.5), ("social", None)),
        ),
    ),
    insights=(Insight(text="Search fell.", importance="high", refs=("/kpis/0", "/tables/0/rows/0")),),
    artifacts=(Artifact(title="Rows", uri="blob://x/y", media_type="text/csv", size_bytes=9, sha256="0" * 64),),
)


def test_an_output_fits_the_schema_of_its_model_which_has_no_references() -> None:
    schema = schema_of(StructuredOutput)
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in schema
    check = CompiledSchema(schema)
    document: dict[str, Any] = OUTPUT.model_dump(mode="json")
    assert check.violations(document, code="x") == ()
    document["kpis"][0]["surprise"] = 1
    assert [one.pointer for one in check.violations(document, code="x")] == ["/kpis/0"]


@pytest.mark.parametrize("row", [(), ("a",), ("a", 1, 2)])
def test_a_row_is_as_long_as_there_are_columns(row: tuple[Any, ...]) -> None:
    columns = (Column(name="a", label="A"), Column(name="b", label="B"))
    with pytest.raises(ValidationError, match="row 1 has not 2 cells"):
        Table(title="T", columns=columns, rows=(("a", 1), row))


@pytest.mark.parametrize("field", [{"sha256": "short"}, {"size_bytes": -1}, {"media_type": "csv"}, {"uri": ""}])
def test_a_reference_without_a_commitment_is_none(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Artifact.model_validate(OUTPUT.artifacts[0].model_dump() | field)


def test_a_model_that_holds_itself_has_no_schema_for_a_manifest() -> None:
    class Tree(BaseModel):
        branches: list[Tree]

    with pytest.raises(ValueError, match="holds itself"):
        schema_of(Tree)
