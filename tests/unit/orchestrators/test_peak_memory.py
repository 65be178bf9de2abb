"""Figures of memory belong to the program that printed them, not to the one that started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LARGE_MIB = 300
PEAK = [sys.executable, "-c", "from bench.memory import peak_mib; print(peak_mib())"]
AFTER_A_LARGE_ONE = f"""
import subprocess, sys
held = b"x" * ({LARGE_MIB} << 20)
from bench.memory import peak_mib
print(peak_mib(), subprocess.run({PEAK!r}, capture_output=True, text=True, check=True).stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the operating system tells no better figure")
def test_the_peak_is_not_handed_down_by_a_large_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_LARGE_ONE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    parent, child = map(int, done.stdout.split())
    assert parent >= LARGE_MIB
    assert 0 < child < LARGE_MIB / 2
