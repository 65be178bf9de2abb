"""What a worker process is built of: it carries out, so it loads nothing that decides or plans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.bootstrap.deciding import DecidesNothing
from engine.domain.errors import LivoaError

ROOT = Path(__file__).parents[3]
UNWANTED = {
    "planner_graph",
    "policy",
    "langgraph",
    "langchain_core",
    "langchain_openai",
    "openai",
    "cedarpy",
    "presidio_analyzer",
}
BUILD = """
import json, sys
import bus_worker.__main__, bus_worker.health, bus_worker.receiving, bus_worker.step
from engine.bootstrap.worker import build_worker
parts = build_worker()
assert parts.deps.catalog.capabilities
parts.connection.client()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""
BUS = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true"


def test_a_worker_loads_nothing_that_decides_or_plans(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVOA_")} | {
        "LIVOA_ENV": "local",
        "LIVOA_DATA": str(tmp_path),
        "LIVOA_CATALOG": str(ROOT / "catalog"),
        "LIVOA_BUS_CONNECTION": BUS,
    }
    command = [sys.executable, "-c", BUILD]
    made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    assert UNWANTED & set(json.loads(made.stdout)) == set()


@pytest.mark.parametrize(
    ("name", "arguments"), [("decide_plan", 1), ("decide_step", 1), ("propose", 2), ("route", 1), ("compose", 2)]
)
async def test_what_would_be_asked_to_decide_there_says_neither_yes_nor_no(name, arguments):
    with pytest.raises(LivoaError, match="decides and plans nothing"):
        await getattr(DecidesNothing(), name)(*[None] * arguments)
