"""Replayed generators: decide → schedule → await → evolve. Every decision is the scheduler's.

Nothing here reads a clock, draws a random number, performs I/O or iterates over a set, and activities are known by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.domain.names import MAP_ORCHESTRATOR, RUN_ORCHESTRATOR, STEP_ORCHESTRATOR

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint


def build() -> Blueprint:
    """The blueprint of the orchestrators. They need no dependencies: what they do goes through activities."""
    from azure.durable_functions import Blueprint

    from orchestrators.map_orchestrator import map_orchestrator
    from orchestrators.run_orchestrator import run_orchestrator
    from orchestrators.step_orchestrator import step_orchestrator

    blueprint = Blueprint()
    # The Python worker refuses any other parameter name than "context".
    for name, body in (
        (RUN_ORCHESTRATOR, run_orchestrator),
        (MAP_ORCHESTRATOR, map_orchestrator),
        (STEP_ORCHESTRATOR, step_orchestrator),
    ):
        blueprint.orchestration_trigger(context_name="context", orchestration=name)(body)
    return blueprint
