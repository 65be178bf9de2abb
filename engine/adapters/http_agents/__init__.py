"""Agents over HTTP: the caller's side of ``POST /execute``."""

from engine.adapters.http_agents.invoker import HttpAgentInvoker

__all__ = ["HttpAgentInvoker"]
