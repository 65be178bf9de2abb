"""Planning and composing as the activities see them. Implementations live in planner_graph."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from engine.domain.answer import Answer
from engine.domain.errors import Violation
from engine.domain.run import ErrorInfo, RunRequest
from engine.domain.tenant import TenantConfig


@dataclass(frozen=True, slots=True)
class PlanProposal:
    """A plan document (not yet checked by the caller) and where it came from."""

    document: dict[str, Any]
    source: Literal["model", "playbook"]
    playbook: str | None = None
    degraded_reason: str | None = None


@dataclass(frozen=True, slots=True)
class NoPlan:
    """No plan could be made.

    ``code`` is ``plan.no_capability`` (out of scope; ``suggestions`` says what the tenant could ask for) or
    ``plan.unplannable`` (every attempt failed its checks; ``violations`` has the last list) or ``plan.missing_values``.
    """

    code: str
    message: str
    suggestions: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    degraded_reason: str | None = None


class Planner(Protocol):
    """Turns a request into a proposal. Makes no effect other than model calls."""

    async def propose(self, request: RunRequest, tenant: TenantConfig, *, run_id: str) -> PlanProposal | NoPlan:
        """Propose a plan whose steps use only capabilities enabled for the tenant."""
        ...


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step as the composer sees it. ``output`` is None unless it succeeded."""

    step_id: str
    title: str
    status: str
    output: Any = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class ComposeRequest:
    """What the answer is made from: the request, the goal of the plan, and the steps its answer uses."""

    request: RunRequest
    goal: str
    instructions: str
    steps: tuple[StepResult, ...]
    all_statuses: Mapping[str, str] = field(default_factory=dict)


OnDelta = Callable[[str], Awaitable[None]]


class AnswerComposer(Protocol):
    """Composes the answer from step outputs."""

    async def compose(self, request: ComposeRequest, on_delta: OnDelta) -> Answer:
        """Compose; hand pieces of the text to ``on_delta`` as they come."""
        ...
