"""From what a model emits to the plan language: a proposal's shape, its JSON Schema for strict structured output, its lowering.

Pure. A proposal is data: nothing in it is run, formatted or evaluated, and what lowers well is still only a document that every
check of ``engine.plan`` and policy has before it.
"""

from planner_graph.lowering.lower import Declined, Lowered, Rejected, lower
from planner_graph.lowering.proposal import SCHEMA_NAME, Proposal
from planner_graph.lowering.strict_schema import proposal_schema, strict_schema

__all__ = ["SCHEMA_NAME", "Declined", "Lowered", "Proposal", "Rejected", "lower", "proposal_schema", "strict_schema"]
