"""The pure brain of a run: `decide` what to do, `evolve` with what happened, one transition table each for runs and steps.

No SDK, no clock, no randomness, no I/O. It holds ids, edges, caps and codes, never inputs, outputs or words of anybody.
"""

from engine.scheduler.admitted import (
    AdmittedState,
    LeaseTerms,
    decide_admitted,
    evolve_admitted,
    new_admitted,
    progress_admitted,
)
from engine.scheduler.codec import dumps, loads
from engine.scheduler.graph import IN_FLIGHT_CAP, Graph, compile_graph, graph_from_wire, graph_to_wire
from engine.scheduler.part import PartRef, PartState, decide_part, evolve_part, new_part
from engine.scheduler.report import not_undone, progress, step_report
from engine.scheduler.run import decide, evolve
from engine.scheduler.run_state import MAX_TIMER, RunRef, RunState, new_run
from engine.scheduler.steps import part_starts

__all__ = [
    "IN_FLIGHT_CAP",
    "MAX_TIMER",
    "AdmittedState",
    "Graph",
    "LeaseTerms",
    "PartRef",
    "PartState",
    "RunRef",
    "RunState",
    "compile_graph",
    "decide",
    "decide_admitted",
    "decide_part",
    "dumps",
    "evolve",
    "evolve_admitted",
    "evolve_part",
    "graph_from_wire",
    "graph_to_wire",
    "loads",
    "new_admitted",
    "new_part",
    "new_run",
    "not_undone",
    "part_starts",
    "progress",
    "progress_admitted",
    "step_report",
]
