"""One life of the process: an engine and a set of dependencies that die together.

What a host had in memory goes with it; stores, agent, clock and adversary outlive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, cast

from azure.durable_functions import Orchestrator

from activities import apart
from activities import steps as step_activities
from activities.compose_answer import compose_answer
from activities.plan_run import plan_run
from activities.repair_plan import repair_plan
from engine.domain import names
from engine.ports.deps import AppSettings, Deps
from engine.step_runner import finish_run
from local_host.durable.clock import VirtualClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.functions import ActivityError
from orchestrators.map_orchestrator import map_orchestrator
from orchestrators.run_orchestrator import run_orchestrator
from orchestrators.step_orchestrator import step_orchestrator
from planner_graph.degraded import DegradedComposer
from policy.builtin import BuiltinPolicyEngine
from tests.chaos.adversary import Adversary
from tests.chaos.agent import Agent
from tests.chaos.observer import DELIVERY, Observer
from tests.chaos.plans import CATALOG
from tests.chaos.repairs import Repairer
from tests.chaos.stores import Chaotic, InlineStorage, RawStores
from tests.chaos.twists import FourEyes
from tests.support.durable_client import EngineClient
from tests.support.world import QuietTelemetry

ORCHESTRATORS = {
    names.RUN_ORCHESTRATOR: Orchestrator.create(run_orchestrator),
    names.MAP_ORCHESTRATOR: Orchestrator.create(map_orchestrator),
    names.STEP_ORCHESTRATOR: Orchestrator.create(step_orchestrator),
}
Activity = Callable[[dict[str, Any], Deps], Awaitable[dict[str, Any]]]
ACTIVITIES: dict[str, Activity] = {
    names.PLAN_RUN: lambda payload, deps: plan_run(payload, deps),
    names.REPAIR_PLAN: lambda payload, deps: repair_plan(payload, deps),
    names.PERFORM_STEP: lambda payload, deps: step_activities.perform(payload, deps),
    names.EXPAND_MAP: lambda payload, deps: step_activities.expand(payload, deps),
    names.COLLECT_MAP: lambda payload, deps: step_activities.collect(payload, deps),
    names.COMPOSE_ANSWER: lambda payload, deps: compose_answer(payload, deps),
    names.UNDO_STEP: lambda payload, deps: step_activities.undo(payload, deps),
    names.FINISH_RUN: lambda payload, deps: finish_run(payload, deps),
}
WITH_CLIENT: dict[str, Callable[[dict[str, Any], Any], Awaitable[dict[str, Any]]]] = {
    names.START_STEPS: apart.start_steps,
    names.TELL_OUTCOME: apart.tell_outcome,
    names.CHECKPOINT_RUN: lambda payload, _: apart.checkpoint_run(payload),
}


class World(Protocol):
    """What outlives a host."""

    path: Path
    clock: VirtualClock
    adversary: Adversary
    observer: Observer
    raw: RawStores
    agent: Agent


class Composer(DegradedComposer):
    """The real composer, which may take long."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    async def compose(self, request: Any, sink: Any) -> Any:
        """See the port."""
        chance = self._host.adversary.chance
        await self._host.clock.sleep_s(chance.choice((0, 2, 50)) if self._host.adversary.has("cancel") else 0)
        await self._host.point("composer")
        return await super().compose(request, sink)


class Host:
    """One life of the process. Implements ``Mortal`` for the stores and ``DurableFunctions`` for the engine."""

    def __init__(self, world: World) -> None:
        self.adversary, self.observer, self.clock = world.adversary, world.observer, world.clock
        self.is_dead = False
        self._background: set[asyncio.Task[None]] = set()
        self.deps = self._deps(world)
        chance = world.adversary.chance
        options = EngineOptions(
            warm=chance.random() < 0.5, max_batch=chance.choice((None, None, 1)), max_concurrent_activities=64
        )
        self.storage = InlineStorage(world.path / "hub.db", self)
        self.engine = DurableEngine(self, self.storage, self.clock, options)
        self.client = Chaotic(EngineClient(self.engine), "client", self)

    def _deps(self, world: World) -> Deps:
        raw = world.raw
        return Deps(
            settings=AppSettings(environment="local"),
            clock=self.clock,
            tokens=cast(Any, None),  # no activity validates tokens
            tenants=cast(Any, Chaotic(raw.tenants, "tenants", self)),
            catalog=CATALOG,
            runs=cast(Any, Chaotic(raw.runs, "runs", self)),
            events=cast(Any, Chaotic(raw.events, "events", self)),
            payloads=cast(Any, Chaotic(raw.payloads, "payloads", self)),
            audit=cast(Any, Chaotic(raw.audit, "audit", self)),
            approvals=cast(Any, Chaotic(raw.approvals, "approvals", self)),
            policy=FourEyes() if self.adversary.has("people") else BuiltinPolicyEngine(),
            budgets=cast(Any, Chaotic(raw.budgets, "budgets", self)),
            invoker=world.agent.through(self),
            planner=Repairer(self),
            composer=Composer(self),
            telemetry=QuietTelemetry(),
            calls=raw.calls(self),
        )

    def die(self, place: str) -> None:
        """See ``Mortal``."""
        self.is_dead = True
        self.observer.crashes.append(place)

    async def point(self, place: str) -> None:
        """See ``Mortal``."""
        for _ in range(self.adversary.yields()):
            await asyncio.sleep(0)
        delivery = DELIVERY.get(None)
        if delivery is not None and not delivery.regular and (stall_s := self.adversary.stall_s()):
            await self.clock.sleep_s(stall_s)
        self.observer.set_clock(self.adversary.jumps_here_s(0.004))
        if not self.is_dead and self.adversary.crashes_here():
            self.die(place)
        if self.is_dead:
            await asyncio.get_running_loop().create_future()  # until the process is cleared away

    @property
    def is_busy(self) -> bool:
        """True while a delivery that the engine does not know of is under way."""
        return bool(self._background)

    async def stop(self) -> None:
        """Clear the process away, without letting anything finish."""
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.engine.stop(0)

    def has_orchestrator(self, name: str) -> bool:
        """See ``DurableFunctions``."""
        return name in ORCHESTRATORS

    def has_activity(self, name: str) -> bool:
        """See ``DurableFunctions``."""
        return name in ACTIVITIES or name in WITH_CLIENT

    def has_entity(self, name: str) -> bool:
        """See ``DurableFunctions``."""
        return False

    def orchestrator(self, name: str) -> Callable[[str], str]:
        """See ``DurableFunctions``."""
        return ORCHESTRATORS[name]

    def entity(self, name: str) -> Callable[[str], str]:
        """See ``DurableFunctions``."""
        raise KeyError(name)

    async def call_activity(self, name: str, input_json: str | None, *, instance_id: str, task_id: int) -> str | None:
        """See ``DurableFunctions``; the adversary may have it delivered twice, or again much later."""
        payload = json.loads(input_json or "null")
        how = self.adversary.delivery()
        if how == "late":
            task = asyncio.get_running_loop().create_task(self._late(name, payload))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        if how == "twice":
            pair = (self._deliver(name, payload, regular=True), self._deliver(name, payload, regular=False))
            results = await asyncio.gather(*pair, return_exceptions=True)
            result = results[self.adversary.chance.randrange(2)]
            if isinstance(result, BaseException):
                raise result
            return result
        return await self._deliver(name, payload, regular=True)

    async def _late(self, name: str, payload: dict[str, Any]) -> None:
        await self.clock.sleep_s(self.adversary.chance.choice((0.5, 5, 90, 4_000)))
        with contextlib.suppress(ActivityError):
            await self._deliver(name, payload, regular=False)

    async def _deliver(self, name: str, payload: dict[str, Any], *, regular: bool) -> str:
        delivery = self.observer.begin(name, payload, regular=regular)
        token = DELIVERY.set(delivery)
        try:
            await self.point(f"{name}:begin")
            if name in WITH_CLIENT:
                result = await WITH_CLIENT[name](payload, self.client)
            else:
                result = await ACTIVITIES[name](payload, self.deps)
            await self.point(f"{name}:end")
        except Exception as err:
            self.observer.faults[f"{name} raised {type(err).__name__}"] += 1
            raise ActivityError(type(err).__name__, str(err), "Traceback …") from err
        finally:
            self.observer.end(delivery)
            DELIVERY.reset(token)
        return json.dumps(result)
