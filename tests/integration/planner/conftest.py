"""A run planned by the real client of a scripted provider: memory stores around it, real sockets and graph between them."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from activities.plan_run import plan_run
from engine.adapters.azure_openai import AzureOpenAiChatModels, ModelEndpoint
from engine.adapters.memory import MemoryCatalog
from engine.adapters.memory.model_results import MemoryModelResults
from engine.domain.playbook import Playbook
from engine.domain.tenant import ModelChoice, PlannerRules
from engine.ports.models import ModelDeployment
from planner_graph.degraded import DegradedPlanner
from planner_graph.model_calls import ModelGateway
from planner_graph.planner import LangGraphPlanner
from tests.support.model_server import Answer, ModelServer, as_json
from tests.support.world import CAPABILITIES, World
from tests.unit.planner_graph.proposals import given, proposal, proposed
from tests.unit.triggers.world import RecordedTelemetry

REF = {"tenant_id": "contoso", "run_id": "run-1"}
ROUTE = as_json(
    {"domain": "calc", "capabilities": [{"name": "calc.double", "score": 0.9}], "in_scope": True, "confidence": 0.9}
)
GOOD = as_json(proposal(proposed("a", "calc.double", given("n", 3))))
BAD = as_json(proposal(proposed("a", "calc.double", given("n", "3"))))
PLAYBOOK = Playbook(
    name="double_it",
    version="1.0.0",
    title="Double a number",
    description="Double a number.",
    examples=("double three", "test", "double this number", "test it"),
    plan={"steps": [{"id": "two", "capability": "calc.double", "inputs": {"n": 2}}], "answer": {"uses": ["two"]}},
)


def endpoint(server: ModelServer, name: str, **fields: Any) -> ModelEndpoint:
    """A deployment that the server serves under its own name."""
    deployment = ModelDeployment(
        name, name, "openai", input_micro_usd_per_mtok=2_500_000, output_micro_usd_per_mtok=10_000_000, **fields
    )
    return ModelEndpoint(deployment, "openai_compatible", server.url)


async def no_sleep(seconds: float) -> None:
    """Pauses of the gateway take no time here."""


class WireWorld(World):
    """The small world with models behind a socket."""

    def __init__(self, server: ModelServer, **tenant: Any) -> None:
        super().__init__()
        self.server = server
        self.telemetry = RecordedTelemetry()
        self.models = AzureOpenAiChatModels(
            [endpoint(server, "small"), endpoint(server, "gpt"), endpoint(server, "open", open_weight=True)],
            idle_timeout_s=2.0,
        )
        choice = ModelChoice(router=("small", "open"), planner=("gpt", "open"))
        fields = {"models": choice, "planner": PlannerRules(self_critique="never")} | tenant
        self.tenant = self.tenant.model_copy(update=fields)
        catalog = MemoryCatalog(CAPABILITIES, [PLAYBOOK])
        deps = dataclasses.replace(
            self.deps,
            tenants=_Tenants(self),
            catalog=catalog,
            telemetry=self.telemetry,
            models=self.models,
            model_results=MemoryModelResults(),
        )
        gateway = ModelGateway(
            deps.models, deps.model_results, deps.budgets, deps.audit, deps.payloads, deps.clock, deps.telemetry,
            sleep=no_sleep,
        )  # fmt: skip
        planner = LangGraphPlanner(catalog, self.clock, gateway, deps.models, DegradedPlanner(catalog, self.clock))
        self.deps = dataclasses.replace(deps, planner=planner)

    def answers(self, *, router: Answer | list[Answer] = ROUTE, planner: Answer | list[Answer] = GOOD) -> None:
        """What the provider says to the router's and the planner's questions, the last one again and again."""
        for work, answers in (("livoa_route", router), ("livoa_plan_proposal", planner)):
            queue = list(answers) if isinstance(answers, list) else [answers]
            self.server.script(lambda _, queue=queue: queue.pop(0) if len(queue) > 1 else queue[0], work=work)

    async def again(self) -> dict[str, Any]:
        """The activity, delivered once more."""
        return await plan_run(REF, self.deps)

    async def facts(self) -> dict[str, Any]:
        """The data of the event about the proposed plan."""
        log = await self.deps.events.read("contoso", "run-1", after_seq=0, limit=100)
        return next(event.data for event in log if event.type.value == "plan.proposed")


class _Tenants:
    def __init__(self, world: WireWorld) -> None:
        self._world = world

    async def get(self, tenant_id: str) -> Any:
        """The one tenant, as it is now."""
        return self._world.tenant if tenant_id == "contoso" else None


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """A provider."""
    with ModelServer() as running:
        yield running


@pytest.fixture
async def world(server: ModelServer) -> AsyncIterator[WireWorld]:
    """The world in front of it."""
    made = WireWorld(server)
    yield made
    await made.models.close()
