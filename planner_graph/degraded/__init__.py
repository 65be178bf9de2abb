"""Planning without a model: rank playbooks by words, fill their typed parameters, compose the answer by rule.

Deterministic: the same request, catalog and day give the same plan. Every result is marked degraded, with the reason.
"""

from planner_graph.degraded.composer import DegradedComposer
from planner_graph.degraded.planner import DegradedPlanner

__all__ = ["DegradedComposer", "DegradedPlanner"]
