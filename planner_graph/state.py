"""What the planner graph hands from node to node, and what its nodes work with.

The state is values only and lives as long as one planning activity: there is no checkpointer, because the durable engine owns
durability, and a repeated activity meets its kept model results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypedDict

from engine.domain.base import Frozen, JsonObject
from engine.domain.errors import Violation
from engine.domain.tenant import TenantConfig
from engine.ports.catalog import Catalog
from engine.ports.clock import Clock
from engine.ports.models import ChatModels, Message, ModelWork
from engine.ports.planner import NoPlan, Planner, PlanningTask, PlanProposal, Review, Route
from planner_graph.lowering import Lowered
from planner_graph.model_calls import Asked, CallSite, PromptFile

FindingKind = Literal["coverage", "serialisation", "missing_data", "cost"]

Circuits = Callable[[TenantConfig], Mapping[str, str]]
"""Capabilities of a tenant that are not available at the moment, each with what to use instead, or an empty text."""


class Gateway(Protocol):
    """The one door for model calls, as far as the planner uses it."""

    async def ask(
        self,
        site: CallSite,
        work: ModelWork,
        messages: Sequence[Message],
        schema: JsonObject | None,
        schema_name: str,
        max_output_tokens: int,
        *,
        prompt_file: PromptFile | None = None,
    ) -> Asked:
        """Ask once; retries, fallbacks, budgets, audit and reuse are behind it."""
        ...


class Finding(Frozen):
    """One thing a review found: its kind, the step it is about (None: the plan as a whole), and one sentence."""

    kind: FindingKind
    step_id: str | None = None
    message: str


@dataclass(frozen=True, slots=True)
class Draft:
    """The latest proposal: the model's own text, and the document it was lowered to (None when it cannot be read)."""

    text: str
    lowered: Lowered | None
    model: str


class State(TypedDict, total=False):
    """One planning in progress. Fields with a reducer grow; the others hold the latest value.

    ``faults`` are what is wrong with the latest draft, pointing into the proposal; ``attempts`` keeps them for every draft
    that was refused. ``trouble`` is the code because of which no model can go on.
    """

    route: Route
    draft: Draft
    faults: tuple[Violation, ...]
    findings: tuple[Finding, ...]
    trouble: str | None
    outcome: PlanProposal | NoPlan
    attempts: Annotated[tuple[tuple[Violation, ...], ...], operator.add]
    repairs: Annotated[int, operator.add]
    revisions: Annotated[int, operator.add]


@dataclass(frozen=True, slots=True)
class Session:
    """What the nodes of one planning work with: the job, the review of proposals, and the doors to everything else."""

    task: PlanningTask
    review: Review
    gateway: Gateway
    models: ChatModels
    catalog: Catalog
    clock: Clock
    without_model: Planner
    circuits: Circuits

    @property
    def has_planner(self) -> bool:
        """True when a model can plan for this tenant."""
        return bool(self.models.for_tenant(self.task.tenant, "planner"))

    @property
    def has_router(self) -> bool:
        """True when a model can route for this tenant."""
        return bool(self.models.for_tenant(self.task.tenant, "router"))

    @property
    def time_left_s(self) -> float:
        """Seconds until planning must be over."""
        return (self.task.deadline_at - self.clock.now()).total_seconds()


class Node(Protocol):
    """One node: reads the state, returns what it changes."""

    async def __call__(self, state: State, session: Session) -> State:
        """Work."""
        ...


__all__ = ["Circuits", "Draft", "Finding", "FindingKind", "Gateway", "Node", "Session", "State"]
