"""A planner over a scripted gateway, for tests of the graph itself: what models say is a list of values per node."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from engine.domain.errors import Violation
from engine.domain.run import RunRequest
from engine.domain.tenant import TenantConfig
from engine.plan import check_plan
from engine.ports.budget import Share
from engine.ports.models import Message, ModelDeployment, ModelUsage, NoChatModels
from engine.ports.planner import PlanningTask, PlanProposal
from planner_graph.model_calls import Answered, Asked, Hop, ReplyFacts, Unanswered
from planner_graph.planner import LangGraphPlanner
from tests.support.world import World

FACTS = ReplyFacts(
    deployment="gpt",
    model="gpt-4o",
    finish_reason="stop",
    usage=ModelUsage(10, 10),
    cost_micro_usd=1,
    latency_s=0.1,
    seed=1,
    prompt_sha256="0" * 64,
    output_sha256="0" * 64,
    requests=1,
)


def answered(value: Any, *hops: Hop) -> Answered:
    """A reply with this JSON."""
    return Answered(value=value, text=json.dumps(value, ensure_ascii=True), reply=FACTS, hops=hops)


def routed(*names: str, in_scope: bool = True, confidence: float = 0.9, domain: str = "calc") -> Answered:
    """A router model's reply."""
    chosen = [{"name": name, "score": 0.9} for name in names]
    return answered({"domain": domain, "capabilities": chosen, "in_scope": in_scope, "confidence": confidence})


class Models(NoChatModels):
    """Says which work has deployments."""

    def __init__(self, *works: str) -> None:
        self._works = works

    def deployment(self, name: str) -> ModelDeployment | None:
        """The one deployment."""
        return ModelDeployment("gpt", "gpt-4o", "openai") if name == "gpt" else None

    def for_tenant(self, tenant: TenantConfig, work: str) -> tuple[ModelDeployment, ...]:
        """See the port."""
        return (ModelDeployment("gpt", "gpt-4o", "openai"),) if work in self._works else ()


class ScriptedGateway:
    """Answers per node, in order; the last one again and again. ``asked`` keeps (node, messages)."""

    def __init__(self, **answers: Sequence[Asked] | Asked | Callable[[tuple[Message, ...]], Asked]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, tuple[Message, ...]]] = []
        self.schemas: list[dict[str, Any]] = []
        self.shares: list[Share | None] = []

    async def ask(
        self, site: Any, work: Any, messages: Sequence[Message], schema: Any, *_: Any, **keywords: Any
    ) -> Asked:
        """See the planner's protocol."""
        self.asked.append((site.node, tuple(messages)))
        self.schemas.append(schema)
        self.shares.append(site.share)
        script = self._answers.get(site.node.partition(".")[0], Unanswered("model.unavailable"))
        if callable(script):
            return script(tuple(messages))
        if isinstance(script, Answered | Unanswered):
            return script
        before = [node for node, _ in self.asked[:-1] if node.partition(".")[0] == site.node.partition(".")[0]]
        return script[min(len(before), len(script) - 1)]

    @property
    def nodes(self) -> list[str]:
        """Where was asked, in order."""
        return [node for node, _ in self.asked]


class Planning:
    """One planner in a small world."""

    def __init__(
        self, gateway: ScriptedGateway, *, models: Models | None = None, world: World | None = None, **options: Any
    ) -> None:
        self.world = world or World()
        self.tenant = self.world.tenant
        self.gateway = gateway
        self.reviewed: list[PlanProposal] = []
        self.planner = LangGraphPlanner(
            self.world.deps.catalog,
            self.world.clock,
            gateway,
            models if models is not None else Models("router", "planner"),
            self.world.deps.planner,
            **options,
        )

    def task(self, request: RunRequest | None = None, **fields: Any) -> PlanningTask:
        """A job."""
        defaults: dict[str, Any] = {
            "run_id": "run-1",
            "tenant": self.tenant,
            "deadline_at": self.world.clock.now() + timedelta(seconds=240),
        }
        return PlanningTask(request=request or RunRequest(intent="double three"), **(defaults | fields))

    async def review(self, proposal: PlanProposal) -> tuple[Violation, ...]:
        """The checks alone."""
        self.reviewed.append(proposal)
        return check_plan(proposal.document, tenant=self.tenant, catalog=self.world.deps.catalog).violations

    async def propose(self, request: RunRequest | None = None, **fields: Any) -> Any:
        """Plan."""
        return await self.planner.propose(self.task(request, **fields), self.review)
