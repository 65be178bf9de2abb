"""The conformance suite: an agent's promises, checked from outside over HTTP. Knows nothing of how the agent is written.

The agent under test must trust the keys of the authority that the suite uses (``agent_kit.authority``), so it is run against
agents in development and in a build, not against those in production.
"""

from agent_kit.conformance.report import Report, Result
from agent_kit.conformance.suite import Target, check_agent

__all__ = ["Report", "Result", "Target", "check_agent"]
