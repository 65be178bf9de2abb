"""Imports are a cost, and names can collide: what loading the app may load, and where our packages come from."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = (
    "langgraph",
    "langchain_core",
    "langchain_openai",
    "azure.cosmos",
    "azure.servicebus",
    "azure.storage",
    "sqlalchemy",
)
PACKAGES = (
    "activities",
    "agent_kit",
    "bus_worker",
    "cli",
    "engine",
    "entities",
    "local_host",
    "orchestrators",
    "planner_graph",
    "policy",
    "sample_agents",
    "tests",
    "triggers",
)


def test_loading_and_indexing_the_app_loads_nothing_heavy():
    code = (
        "import json, sys, function_app\n"
        "names = sorted(f.get_function_name() for f in function_app.app.get_functions())\n"
        f"print(json.dumps([names, [m for m in {HEAVY!r} if m in sys.modules]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    names, loaded = json.loads(done.stdout)
    assert loaded == []
    assert "run_orchestrator" in names
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", PACKAGES)
def test_our_packages_resolve_inside_the_repository(name):
    module = importlib.import_module(name)
    assert Path(module.__file__).is_relative_to(ROOT)


def test_the_app_is_a_table_of_contents():
    source = (ROOT / "function_app.py").read_text()
    assert "def " not in source
    assert len(source.splitlines()) < 40


def test_there_is_one_function_app():
    makers = [
        path.relative_to(ROOT)
        for folder in PACKAGES
        if folder != "tests"
        for path in (ROOT / folder).rglob("*.py")
        if "DFApp(" in path.read_text() or "FunctionApp(" in path.read_text()
    ]
    assert makers == []
