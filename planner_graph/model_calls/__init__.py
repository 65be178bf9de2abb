"""The one door for every model call of the planner and the composer: ``ModelGateway``.

Breakers, reuse of kept results, budgets, write-ahead audit, retries and fallback deployments live behind it. What to ask, and
what to do with an answer or without one, is the caller's.
"""

from planner_graph.model_calls.answers import (
    Answered,
    Asked,
    CallSite,
    Hop,
    OnDelta,
    OnRestart,
    PromptFile,
    ReplyFacts,
    Unanswered,
)
from planner_graph.model_calls.gateway import ModelGateway
from planner_graph.model_calls.moves import GatewayRules

__all__ = [
    "Answered",
    "Asked",
    "CallSite",
    "GatewayRules",
    "Hop",
    "ModelGateway",
    "OnDelta",
    "OnRestart",
    "PromptFile",
    "ReplyFacts",
    "Unanswered",
]
