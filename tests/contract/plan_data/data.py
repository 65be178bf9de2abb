"""Where the public test data is. It is not part of the repository; tests that need it are skipped when it is absent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


def data_root() -> Path:
    """The folder named by LIVOA_TEST_DATA, by default ``../shared/data`` beside the repository."""
    return Path(os.environ.get("LIVOA_TEST_DATA") or ROOT.parent / "shared" / "data")


def data_files(folder: str, pattern: str) -> list[Path]:
    """The files of a data folder in order; none when it is absent."""
    return sorted((data_root() / folder).glob(pattern))


def require(relative: str) -> Path:
    """The path of a data file; skips the test when it is absent."""
    path = data_root() / relative
    if not path.exists():
        pytest.skip(f"test data {relative} is absent: set LIVOA_TEST_DATA")
    return path


def read_jsonl(relative: str) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; skips the test when it is absent."""
    with require(relative).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_json(relative: str) -> Any:
    """One JSON file; skips the test when it is absent."""
    return json.loads(require(relative).read_text(encoding="utf-8"))
