"""Planning, routing and composing as the activities see them. Implementations live in planner_graph."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from engine.domain.answer import Answer
from engine.domain.base import JsonObject
from engine.domain.errors import Violation
from engine.domain.run import ErrorInfo, RunRequest
from engine.domain.tenant import TenantConfig


@dataclass(frozen=True, slots=True)
class Ranked:
    """A capability or playbook and how well it fits, from 0 to 1."""

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class RouteHop:
    """A router that was tried and handed on, and why (a stable code such as ``model.timeout``)."""

    router: str
    reason: str


@dataclass(frozen=True, slots=True)
class Route:
    """What an intent is about. ``router`` names who decided: a deployment, ``embedding`` or ``lexical``.

    Out of scope: ``in_scope`` is false, and ``capabilities`` are what the tenant could ask for instead.
    """

    domain: str
    capabilities: tuple[Ranked, ...]
    in_scope: bool
    confidence: float
    router: str
    playbooks: tuple[Ranked, ...] = ()
    fallbacks: tuple[RouteHop, ...] = ()


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """A step that stays when the rest is planned anew. ``summary`` tells the shape of its output, never the output, and is empty
    while there is none."""

    step_id: str
    capability: str
    status: str
    summary: JsonObject


@dataclass(frozen=True, slots=True)
class SuffixRepair:
    """Plan only the rest: what stays, which step failed and with which code. ``taken`` are the ids of all versions so far."""

    plan: JsonObject
    finished: tuple[FinishedStep, ...]
    failed_step_id: str
    failed_code: str
    taken: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanningTask:
    """One planning job. Model results are kept under (run, ``plan_version``, node, prompt hash)."""

    run_id: str
    request: RunRequest
    tenant: TenantConfig
    deadline_at: datetime
    actor: str = "livoa"
    plan_version: int = 1
    repair: SuffixRepair | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class PlanProposal:
    """A plan document (the caller checks it again) and where it came from.

    ``seen_integrity`` is the meet over everything the writer read. ``model`` is the model that wrote it.
    ``violations_by_attempt`` keeps what was wrong with the proposals before this one.
    """

    document: dict[str, Any]
    source: Literal["model", "playbook"]
    playbook: str | None = None
    degraded_reason: str | None = None
    route: Route | None = None
    model: str | None = None
    seen_integrity: int = 3
    violations_by_attempt: tuple[tuple[Violation, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class NoPlan:
    """No plan could be made.

    ``code`` is ``plan.no_capability`` (out of scope; ``suggestions`` says what the tenant could ask for) or
    ``plan.unplannable`` (every attempt failed its checks; ``violations`` has every attempt's list) or ``plan.missing_values``
    or ``plan.unclear_intent`` (it could mean several things; ``suggestions`` are the choices).
    """

    code: str
    message: str
    suggestions: tuple[str, ...] = ()
    violations: tuple[Violation, ...] = ()
    degraded_reason: str | None = None
    route: Route | None = None


Review = Callable[[PlanProposal], Awaitable[tuple[Violation, ...]]]
"""All checks of the plan language and the policy decision over one proposal. Empty: it is acceptable."""


class Planner(Protocol):
    """Turns a request into a proposal. Makes no effect other than model calls."""

    async def propose(self, task: PlanningTask, review: Review) -> PlanProposal | NoPlan:
        """Propose a plan whose steps use only capabilities enabled for the tenant, and that ``review`` accepts."""
        ...

    async def route(self, task: PlanningTask) -> Route:
        """Only say what the intent is about."""
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
    """What the answer is made from: the request, the goal of the plan, and the steps its answer uses.

    Whom it is for and by when is what a model call needs; a composer without a model may ignore them.
    """

    request: RunRequest
    goal: str
    instructions: str
    steps: tuple[StepResult, ...]
    all_statuses: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""
    plan_version: int = 1
    tenant: TenantConfig | None = None
    actor: str = "livoa"
    deadline_at: datetime | None = None
    traceparent: str | None = None


class AnswerSink(Protocol):
    """Where the text of the answer goes while it is written."""

    async def write(self, text: str) -> None:
        """The next piece."""
        ...

    async def restart(self, reason: str) -> None:
        """What was written so far does not count: the text begins anew. ``reason`` is a stable code."""
        ...


class AnswerComposer(Protocol):
    """Composes the answer from step outputs."""

    async def compose(self, request: ComposeRequest, sink: AnswerSink) -> Answer:
        """Compose; the pieces written since the last restart, joined, are the summary of the answer."""
        ...
