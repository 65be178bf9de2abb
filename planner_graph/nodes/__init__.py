"""The nodes of the planner graph, one module each. None knows LangGraph, and none decides which node comes next."""

from planner_graph.nodes.classify import classify
from planner_graph.nodes.degrade import degrade
from planner_graph.nodes.plan import plan
from planner_graph.nodes.repair import repair
from planner_graph.nodes.self_critique import self_critique
from planner_graph.nodes.validate import validate

__all__ = ["classify", "degrade", "plan", "repair", "self_critique", "validate"]
