"""The public JSON parsing suite: valid texts are read, invalid ones refused with a clean code, none hangs or overflows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse

from .data import data_files

FILES = data_files("json/parsing/test_parsing", "*.json")
REFUSED_BY_OUR_LIMITS = {
    "y_object_duplicated_key.json": "json.duplicate_key",
    "y_object_duplicated_key_and_value.json": "json.duplicate_key",
}


def outcome_of(data: bytes) -> Any:
    try:
        return parse(data, max_bytes=4 * 1024 * 1024)
    except LivoaError as error:
        return error


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_read_or_refused_cleanly(path: Path) -> None:
    data = path.read_bytes()
    started = time.perf_counter()
    outcome = outcome_of(data)
    assert time.perf_counter() - started < 2
    code = outcome.code if isinstance(outcome, LivoaError) else None
    if code is not None:
        assert code.startswith("json.")
        assert outcome.status == 400
    if path.name.startswith("n_"):
        assert code is not None
    elif path.name.startswith("y_"):
        assert code == REFUSED_BY_OUR_LIMITS.get(path.name)
        assert code is not None or outcome == json.loads(data)


def test_the_suite_is_complete() -> None:
    if not FILES:
        pytest.skip("test data is absent: set LIVOA_TEST_DATA")
    kinds = [path.name[0] for path in FILES]
    assert (kinds.count("y"), kinds.count("n"), kinds.count("i")) == (95, 188, 35)
