"""The policy decision point. Never raises to say no, never says yes by default: errors are a deny."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from engine.domain.policy import PlanPolicyDecision, PlanPolicyRequest, PolicyDecision, StepPolicyRequest


class PolicyEngine(Protocol):
    """Decides over whole plans before anything runs, and over each step again with bound inputs (authoritative)."""

    async def decide_plan(self, request: PlanPolicyRequest) -> PlanPolicyDecision:
        """The early answer over a checked plan."""
        ...

    async def decide_step(self, request: StepPolicyRequest) -> PolicyDecision:
        """The authoritative answer for one step with bound inputs."""
        ...


PolicyState = Literal["unwatched", "in_force", "broken"]
"""Of a tenant's policies. ``broken``: they cannot be used, so that nothing is allowed."""


class PolicyWatch(Protocol):
    """Looks whether policies can be used."""

    async def look(self, tenant_id: str) -> PolicyState:
        """Whether a tenant's policies, the platform's among them, can be used now. Logs each change once."""
        ...


class NoPolicyWatch:
    """The policies of a process that decides nothing."""

    async def look(self, tenant_id: str) -> PolicyState:
        """See ``PolicyWatch.look``."""
        return "unwatched"


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One file of policies: its name below the policies folder (``platform/taint.cedar``) and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class PolicyTexts:
    """What is written for one tenant. ``tenant`` is empty when it has no policies of its own; then ``default`` holds."""

    platform: Sequence[PolicyText]
    default: Sequence[PolicyText]
    tenant: Sequence[PolicyText]


class PolicySource(Protocol):
    """Where policies are written. Implementations may cache for seconds."""

    async def texts(self, tenant_id: str) -> PolicyTexts:
        """What is written now. Raises ``LivoaError("policy.unavailable")`` (503) when it cannot be read as a whole, or the
        platform's policies are missing."""
        ...
