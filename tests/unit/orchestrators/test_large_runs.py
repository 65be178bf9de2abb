"""The largest runs that a tenant may be allowed, each in a process of its own whose memory is watched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAX_ROWS = 1_500
"""Rows of one history: what it takes in, and what comes while its last activities end, five rows each, under any load."""
MAX_MIB = 600


def measured(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.large", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1_500, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return dict(json.loads(done.stdout))


def check(figures: dict[str, Any], count: int) -> None:
    assert figures["output"] == {"status": "succeeded", "code": None, "recorded": True}
    assert figures["performed"] == count
    assert figures["performed_twice"] == 0
    assert figures["history_rows_max"] <= MAX_ROWS
    assert figures["maxrss_mib"] < MAX_MIB


@pytest.mark.parametrize("steps", [600, pytest.param(5_000, marks=[pytest.mark.thorough, pytest.mark.timeout(1_600)])])
def test_a_plan_of_many_steps_runs_in_bounded_histories_and_memory(steps: int) -> None:
    figures = measured("--steps", str(steps))
    check(figures, steps)
    assert figures["generations"] >= steps / 300


@pytest.mark.parametrize(
    "items", [1_000, pytest.param(10_000, marks=[pytest.mark.thorough, pytest.mark.timeout(1_600)])]
)
def test_a_map_of_many_items_runs_in_bounded_histories_and_memory(items: int) -> None:
    check(measured("--items", str(items)), items)
