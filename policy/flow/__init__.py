"""Data flow through a plan: which values can be trusted, how far they may travel, and why. Facts only, no decisions.

Labels run along the plan's references (data) and along everything that decides whether a step runs (control); the policy
language decides on them. Pure: no I/O, no clock, no SDK.
"""

from policy.flow.facts import plan_facts, step_facts

__all__ = ["plan_facts", "step_facts"]
