"""The public JSON Schema suite, draft 2020-12: without holes our validator says what the standard says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from referencing.exceptions import Unresolvable

from engine.plan.contracts import BrokenSchemaError, compile_schema

from .data import data_files

FILES = data_files("json/schema-suite/tests/draft2020-12", "*.json")


def verdict(schema: Any, instance: Any) -> bool | None:
    """Valid, invalid, or None when the schema needs something fetched from outside."""
    try:
        return next(compile_schema(schema).iter_errors(instance), None) is None
    except (BrokenSchemaError, Unresolvable):
        return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_validator_agrees_with_the_suite(path: Path) -> None:
    wrong = []
    for group in json.loads(path.read_text(encoding="utf-8")):
        if not isinstance(group["schema"], dict):
            continue
        for case in group["tests"]:
            found = verdict(group["schema"], case["data"])
            if found is not None and found != case["valid"]:
                wrong.append((group["description"], case["description"]))
    assert wrong == []


def test_the_suite_is_there() -> None:
    if not FILES:
        pytest.skip("test data is absent: set LIVOA_TEST_DATA")
    assert len(FILES) >= 40
