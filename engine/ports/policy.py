"""The policy decision point. Never raises to say no, never says yes by default: errors are a deny."""

from __future__ import annotations

from typing import Protocol

from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest, PolicyDecision, StepPolicyRequest


class PolicyEngine(Protocol):
    """Decides over whole plans before anything runs, and over each step again with bound inputs (authoritative)."""

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """The early answer over a checked plan."""
        ...

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """The authoritative answer for one step with bound inputs."""
        ...
