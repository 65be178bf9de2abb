"""The kit for writing agents: a capability is one typed async function, everything around it is done here.

Authentication, strict parsing, schemas on both sides, idempotency, deadlines, a concurrency cap and typed errors. Imports the
project's words (engine.domain) and nothing else of it. Deliberately not a framework for other HTTP APIs: an agent answers
``POST /execute``, tells what it can do, and says whether it is well.
"""

from agent_kit.agent import Agent, CapabilityError, StepContext
from agent_kit.app import AgentLimits, create_app
from agent_kit.auth import AgentAuth, JwksFile, JwksUrl
from agent_kit.grants import GrantCheck
from agent_kit.idempotency import IdempotencyStore
from agent_kit.manifests import load_manifests
from engine.domain.execute import RESULT_UNKNOWN

__all__ = [
    "RESULT_UNKNOWN",
    "Agent",
    "AgentAuth",
    "AgentLimits",
    "CapabilityError",
    "GrantCheck",
    "IdempotencyStore",
    "JwksFile",
    "JwksUrl",
    "StepContext",
    "create_app",
    "load_manifests",
]
