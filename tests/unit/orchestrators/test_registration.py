"""How the orchestrators reach the host: names, and the one parameter name the Python worker accepts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import azure.durable_functions as df

import orchestrators
from engine.domain.names import MAP_ORCHESTRATOR, RUN_ORCHESTRATOR, STEP_ORCHESTRATOR


def test_all_orchestrators_are_registered_under_their_durable_names_with_the_parameter_called_context() -> None:
    app = df.DFApp()
    app.register_functions(orchestrators.build())
    bindings = [json.loads(raw) for function in app.get_functions() for raw in function.get_raw_bindings()]
    triggers = [binding for binding in bindings if binding["type"] == "orchestrationTrigger"]
    assert {trigger["orchestration"] for trigger in triggers} == {RUN_ORCHESTRATOR, MAP_ORCHESTRATOR, STEP_ORCHESTRATOR}
    assert {trigger["name"] for trigger in triggers} == {"context"}


def test_the_scheduler_and_the_orchestrators_import_without_the_sdk() -> None:
    modules = ", ".join(f"orchestrators.{kind}_orchestrator" for kind in ("run", "map", "step"))
    script = f"import sys, {modules}; print('azure' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
