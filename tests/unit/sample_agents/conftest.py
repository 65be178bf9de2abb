"""The sample data, read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sample_agents.dataset import Dataset, read_dataset

SAMPLES = Path(__file__).resolve().parents[3] / "catalog" / "samples"


@pytest.fixture(scope="session")
def contoso() -> Dataset:
    return read_dataset(SAMPLES / "contoso")


@pytest.fixture(scope="session")
def fabrikam() -> Dataset:
    return read_dataset(SAMPLES / "fabrikam")


@pytest.fixture(scope="session")
def truths() -> dict[str, dict[str, Any]]:
    """What an estimate should find, per tenant: only tests read it."""
    return {path.stem: json.loads(path.read_text()) for path in (SAMPLES / "truth").glob("*.json")}
