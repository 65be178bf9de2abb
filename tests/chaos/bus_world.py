"""Runs whose steps go over a bus, in virtual time: a host with the real orchestrators and the sweep, two real workers, an agent.

Hosts and workers die at any call of a store, the agent goes on without who called it, the bus delivers twice, late, in any order,
and is away for a while, results are lost, repeated and forged. What outlives all of them is the stores. A seed is the same run
each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from bus_worker.step import Held, Poison, Received, StepWorker
from engine.adapters.memory import (
    MemoryApprovalStore,
    MemoryAssignments,
    MemoryAuditLog,
    MemoryBudgetLedger,
    MemoryCatalog,
    MemoryEventLog,
    MemoryPayloadStore,
    MemoryRunStore,
    MemoryTenantDirectory,
)
from engine.domain.bus import StepCommand, StepResult
from engine.domain.capability import Capability
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import EventType, RunEventData, new_event
from engine.domain.execute import ExecuteError, ExecuteFailed, ExecuteRequest, ExecuteResponse, ExecuteSucceeded
from engine.domain.principal import Principal
from engine.domain.run import Run, RunRequest
from engine.domain.run_messages import POSTPONED
from engine.domain.status import FINAL_RUN_STATUSES, RunStatus
from engine.domain.tenant import Bounds, TenantConfig
from engine.ports.deps import AppSettings, Deps
from engine.step_runner import view
from local_host.durable.clock import VirtualClock
from local_host.durable.engine import DurableEngine, EngineOptions
from local_host.durable.functions import ActivityError
from local_host.durable.records import InstanceFilter
from planner_graph.degraded import DegradedComposer, DegradedPlanner
from policy.builtin import BuiltinPolicyEngine
from tests.chaos.bus_holds import suspend_and_resume
from tests.chaos.host import ACTIVITIES, ORCHESTRATORS, WITH_CLIENT
from tests.chaos.stores import InlineStorage
from tests.support.durable_client import EngineClient
from tests.support.world import QuietTelemetry, capability
from triggers.bus_step_results import take_result
from triggers.starting import ask_to_cancel, start
from triggers.timer_sweep import sweep

START_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
TENANT, RUN = "contoso", "run-1"
LOCK_S = 60.0
ENOUGH = timedelta(hours=1)
"""What every run takes less than, however often its workers die."""
MAX_DELIVERIES = 10
CATALOG = MemoryCatalog(
    [
        # Hours, so that a run that is over in one did not wait for a step's time to run out.
        capability("bus.fit", delivery="service_bus", timeout_s=4 * 3_600, lease_s=30),
        capability("bus.slow", delivery="service_bus", timeout_s=4 * 3_600, lease_s=90),
        capability("direct.add"),
    ]
)


class Life:
    """A process, which may die at any of its calls; from then on nothing of it has an effect."""

    def __init__(self, world: BusWorld, kind: str) -> None:
        self.world, self.kind = world, kind
        self.is_dead = self.is_cleared = False
        self.tasks: dict[asyncio.Task[Any], None] = {}  # in order, unlike a set

    @property
    def adversary(self) -> Any:
        """What ``InlineStorage`` asks."""
        return self

    def crashes_at_commit(self) -> str:
        """Whether the process dies before or after a commit of the durable engine."""
        if not self.world.dies(self.kind, 0.004):
            return "no"
        return self.world.chance.choice(("before", "after"))

    def die(self, place: str) -> None:
        """Die."""
        self.is_dead = True
        self.world.crashes.append(f"{self.kind} at {place}")

    async def point(self, place: str) -> None:
        """A place where others may overtake and the process may die."""
        for _ in range(self.world.chance.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)
        if not self.is_dead and self.world.dies(self.kind, 0.03 if self.kind == "worker" else 0.004):
            self.die(place)
        if self.is_cleared:
            raise asyncio.CancelledError
        if self.is_dead:
            await asyncio.get_running_loop().create_future()  # until the process is cleared away

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """A task that ends with the process."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
        return task

    async def clear(self) -> None:
        """Take the process out of memory."""
        self.is_dead = self.is_cleared = True
        for _ in range(5):
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)


class Guarded:
    """A store as one process sees it: slow, now and then away, and the last thing the process ever did."""

    def __init__(self, inner: Any, name: str, life: Life) -> None:
        self._inner, self._name, self._life = inner, name, life

    def __getattr__(self, method: str) -> Any:
        real, life, place = getattr(self._inner, method), self._life, f"{self._name}.{method}"

        async def call(*args: Any, **kwargs: Any) -> Any:
            await life.point(f"{place}:before")
            if life.world.fails(0.01):
                raise LivoaError("store.unavailable", "no", status=503)
            result = await real(*args, **kwargs)
            await life.point(f"{place}:after")
            if life.world.fails(0.01):
                raise LivoaError("store.unavailable", "the answer was lost", status=503)
            return result

        return call


@dataclasses.dataclass(slots=True)
class Delivered:
    """A message on its way."""

    body: bytes
    session_id: str | None
    deliveries: int = 0


class Bus:
    """Both queues. What was accepted is lost only when it is put aside after ten deliveries; the rest is up to chance."""

    is_configured = True

    def __init__(self, world: BusWorld) -> None:
        self._world = world
        self._ids: set[str] = set()
        self.down_until = START_AT
        self.results: list[StepResult] = []
        self.dead: list[str] = []
        self.put_off = self._serial = 0

    def _accept(self, message_id: str) -> bool:
        """Whether it is none that was sent before. ``bus.unavailable`` while the bus is away."""
        if self._world.clock.steady_at < self.down_until:
            raise LivoaError("bus.unavailable", "no", status=503)
        if message_id in self._ids:
            return False
        self._ids.add(message_id)
        return True

    async def send(self, command: StepCommand, *, session_id: str, message_id: str) -> None:
        """See ``StepQueue``."""
        if self._accept(message_id):
            for _ in range(self._world.chance.choice((1, 1, 1, 2, 3))):
                message = Delivered(command.model_dump_json().encode(), session_id)
                self._world.background(self._to_a_worker(message))
        if self._world.fails(0.05):
            raise LivoaError("bus.unavailable", "the answer was lost", status=503)

    async def _to_a_worker(self, message: Delivered) -> None:
        await self._world.clock.sleep_s(self._world.chance.choice((0, 0.1, 2, 40)))
        while message.deliveries < MAX_DELIVERIES:
            while (worker := self._world.a_worker()) is None or self._world.clock.steady_at < self.down_until:
                await self._world.clock.sleep_s(1)
            message.deliveries += 1
            task = worker.life.spawn(worker.receive(message))
            await asyncio.wait({task})
            if not task.cancelled() and task.exception() is None and task.result():
                return
            await self._world.clock.sleep_s(LOCK_S if worker.life.is_dead else 2)
        self.dead.append("deliveries")

    async def send_result(self, result: StepResult) -> None:
        """What workers send."""
        if self._accept(f"{result.key}#{result.token}.{result.nonce}"):
            self.results.append(result)
            times = self._world.chance.choice((0, 1, 1, 1, 2, 3))
            for _ in range(times):
                self._world.background(self._to_the_host(result))
        if self._world.fails(0.05):
            raise LivoaError("bus.unavailable", "the answer was lost", status=503)

    async def dead_letter(self, lock_token: str, reason: str, description: str) -> None:
        """See ``HeldMessages``."""
        self.dead.append(reason)

    async def postpone(self, body: bytes, message_id: str, *, times: int, delay_s: float) -> None:
        """See ``HeldMessages``."""
        if self._accept(f"{message_id}.later-{times}"):
            self.put_off += 1
            self._world.background(self._again_to_the_host(body, message_id, times, delay_s))

    async def _again_to_the_host(self, body: bytes, message_id: str, times: int, delay_s: float) -> None:
        await self._world.clock.sleep_s(delay_s)
        await self._deliver_to_the_host(body, message_id, times)

    async def _to_the_host(self, result: StepResult) -> None:
        await self._world.clock.sleep_s(self._world.chance.choice((0, 0.1, 5, 100)))
        self._serial += 1
        await self._deliver_to_the_host(result.model_dump_json().encode(), f"r-{self._serial}", 0)

    async def _deliver_to_the_host(self, body: bytes, message_id: str, times: int) -> None:
        for _ in range(MAX_DELIVERIES):
            host = self._world.host
            if host is not None and not host.life.is_dead and self._world.clock.steady_at >= self.down_until:
                properties = {POSTPONED: times} if times else None
                facts = {"lock_token": "held", "message_id": message_id, "application_properties": properties}
                message = cast(Any, SimpleNamespace(get_body=lambda: body, **facts))
                task = host.life.spawn(take_result(message, host.deps, cast(Any, host.client)))
                await asyncio.wait({task})
                if not task.cancelled() and task.exception() is None:
                    return
            await self._world.clock.sleep_s(20)

    async def forge(self) -> None:
        """Somebody sends old results again, and results that no worker gave."""
        chance = self._world.chance
        wrong = ExecuteSucceeded(output={"n": -1}).model_dump_json().encode()
        ref = await self._world.payloads.put(TENANT, RUN, wrong)
        while True:
            await self._world.clock.sleep_s(chance.uniform(1, 40))
            open_ones = list(self._world.assignments._rows.values())
            if self.results and chance.random() < 0.5:
                old = chance.choice(self.results)
                changed: dict[str, Any] = chance.choice(({}, {"response_ref": ref}, {"token": old.token + 1}))
                self._world.background(self._to_the_host(old.model_copy(update=changed)))
            elif open_ones:
                at = chance.choice(open_ones)
                forged = StepResult(
                    tenant_id=TENANT, run_id=chance.choice((RUN, "run-2")), key=at.key, token=at.token, nonce="f" * 43,
                    response_ref=ref,
                )  # fmt: skip
                self._world.background(self._to_the_host(forged))


class Agent:
    """A correct one: an execution for each key, which goes on when its caller dies, and whose success is kept."""

    def __init__(self, world: BusWorld) -> None:
        self._world = world
        self.effects: Counter[str] = Counter()
        self.asked: dict[str, set[str]] = {}
        self._running: dict[str, asyncio.Task[ExecuteResponse]] = {}
        self._kept: dict[str, ExecuteSucceeded] = {}
        self._refused: set[str] = set()

    async def invoke(self, _: Capability, request: ExecuteRequest, **__: Any) -> ExecuteResponse:
        """See the port."""
        key, chance = request.idempotency_key, self._world.chance
        self.asked.setdefault(key, set()).add(json.dumps(request.inputs, sort_keys=True))
        if key in self._kept:
            return self._kept[key]
        if key not in self._refused and chance.random() < 0.1:
            self._refused.add(key)
            return _failed("agent.unreachable")
        if key in self._running and chance.random() < 0.15:
            return _failed("agent.conflict")
        if key not in self._running:
            self._running[key] = self._world.background(self._execute(request))
        running = self._running[key]
        left_s = (request.deadline_at - self._world.clock.now()).total_seconds()
        late = self._world.background(self._world.clock.sleep_s(max(left_s, 0)))
        try:
            await asyncio.wait({running, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
        return running.result() if running.done() else _failed("agent.timeout")

    async def _execute(self, request: ExecuteRequest) -> ExecuteResponse:
        await self._world.clock.sleep_s(self._world.chance.choice((0, 1, 20, 70, 200)))
        key = request.idempotency_key
        self.effects[key] += 1
        self._kept[key] = ExecuteSucceeded(output={"n": request.inputs["n"] + 1})
        del self._running[key]
        return self._kept[key]


def _failed(code: str) -> ExecuteFailed:
    return ExecuteFailed(error=ExecuteError(code=code, message="no", retryable=True))


class WorkerProcess:
    """One life of a worker."""

    def __init__(self, world: BusWorld, name: str) -> None:
        self.life = world.life_of("worker")
        deps = world.deps_of(self.life)
        results = SimpleNamespace(send=self._send)
        self._world, nonces = world, (f"{name}-{world.chance.getrandbits(128):032x}" for _ in itertools.count())
        self.worker = StepWorker(
            deps, cast(Any, results), name, sleep=world.clock.sleep_s, new_nonce=lambda: next(nonces)
        )

    async def _send(self, result: StepResult, *, traceparent: str | None = None) -> None:
        await self.life.point("results:before")
        await self._world.bus.send_result(result)
        await self.life.point("results:after")

    async def receive(self, message: Delivered) -> bool:
        """One delivery. True when the message is settled."""
        taken = await self.worker.take(Received(message.body, message.session_id))
        await self.life.point("taken")
        if isinstance(taken, Poison):
            self._world.bus.dead.append(taken.code)
        if isinstance(taken, Held):
            self.life.spawn(self._carry_out(taken))
        await self.life.point("settled")
        return True

    async def _carry_out(self, held: Held) -> None:
        if self._world.chance.random() < 0.1:
            self.life.spawn(self._give_back(held))
        await self._world.carrying_out(self, held)
        await self.worker.carry_out(held)

    async def _give_back(self, held: Held) -> None:
        await self._world.clock.sleep_s(self._world.chance.uniform(0, 30))
        await self.worker.give_back(held)


class HostProcess:
    """One life of the app: the durable engine, activities, the trigger of results and the sweep."""

    def __init__(self, world: BusWorld) -> None:
        self._world, self.life = world, world.life_of("host")
        self.deps = world.deps_of(self.life)
        self.engine = DurableEngine(
            self,
            InlineStorage(world.path / "hub.db", self.life),
            world.clock,
            EngineOptions(max_concurrent_activities=64),
        )
        self.client = Guarded(EngineClient(self.engine), "client", self.life)

    async def start(self) -> None:
        """Come up, and sweep every 15 seconds."""
        await self.engine.start()
        if self._world.has_sweep:
            self.life.spawn(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await self._world.clock.sleep_s(15)
            with contextlib.suppress(LivoaError):
                await sweep(self.deps, cast(Any, self.client))

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
        """See ``DurableFunctions``; now and then it is delivered twice."""
        payload = json.loads(input_json or "null")
        results = [await self._deliver(name, payload) for _ in range(self._world.chance.choice((1, 1, 1, 2)))]
        return results[-1]

    async def _deliver(self, name: str, payload: dict[str, Any]) -> str:
        try:
            await self.life.point(f"{name}:begin")
            work: Awaitable[dict[str, Any]] = (
                WITH_CLIENT[name](payload, self.client) if name in WITH_CLIENT else ACTIVITIES[name](payload, self.deps)
            )
            result = await work
            await self.life.point(f"{name}:end")
        except Exception as err:
            raise ActivityError(type(err).__name__, str(err), "Traceback …") from err
        return json.dumps(result)


class BusWorld:
    """One seed, from the submission to the end of everything."""

    def __init__(self, seed: int, path: Path) -> None:
        self.seed, self.path = seed, path
        self.chance = random.Random(f"bus/{seed}")
        self.clock = VirtualClock(START_AT)
        self.failures_left = self.chance.randint(1, 10) if self.chance.random() < 0.5 else 0
        self.is_cancelled = self.chance.random() < 0.2
        self.is_calm = self.failures_left == 0
        self.deaths_left = {"worker": self.chance.randint(0, 6), "host": self.chance.randint(0, 4)}
        self.crashes: list[str] = []
        self.jumps_s: list[float] = []
        self.holds = 0
        self.unrecorded: list[str] = []
        self.runs = MemoryRunStore(self.clock)
        self.events, self.audit = MemoryEventLog(self.runs), MemoryAuditLog()
        self.assignments, self.payloads = MemoryAssignments(), MemoryPayloadStore()
        self.budgets, self.approvals = MemoryBudgetLedger(self.clock), MemoryApprovalStore(self.runs, self.clock)
        self.agent, self.bus = Agent(self), Bus(self)
        self.host: HostProcess | None = None
        self.workers: dict[str, WorkerProcess] = {}
        self._background: dict[asyncio.Task[Any], None] = {}
        self._returning: dict[str, datetime] = {}
        self.plan = self._plan()

    has_sweep = True

    def life_of(self, kind: str) -> Life:
        """A process of this kind."""
        return Life(self, kind)

    async def carrying_out(self, worker: WorkerProcess, held: Held) -> None:
        """A worker begins with a step."""

    def dies(self, kind: str, probability: float) -> bool:
        """Whether a process of this kind dies now."""
        if self.deaths_left[kind] == 0 or self.chance.random() >= probability:
            return False
        self.deaths_left[kind] -= 1
        return True

    def fails(self, probability: float) -> bool:
        """Whether a store or the bus refuses, or loses its answer."""
        if self.failures_left == 0 or self.chance.random() >= probability:
            return False
        self.failures_left -= 1  # few enough for the attempts of a step
        return True

    def background(self, work: Any) -> asyncio.Task[Any]:
        """A task of the world, which no death ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._background[task] = None
        task.add_done_callback(self._background.pop)
        return task

    def a_worker(self) -> WorkerProcess | None:
        """Any worker that lives."""
        alive = [one for one in self.workers.values() if not one.life.is_dead]
        return self.chance.choice(alive) if alive else None

    def deps_of(self, life: Life) -> Deps:
        """What a process is built on."""

        def seen(inner: Any, name: str) -> Any:
            return cast(Any, Guarded(inner, name, life))

        tenant = TenantConfig(
            tenant_id=TENANT,
            display_name="Contoso",
            enabled_capabilities=tuple(CATALOG.capabilities),
            bounds=Bounds(max_parallel_steps=4),
        )
        return Deps(
            settings=AppSettings(environment="local"),
            clock=self.clock,
            tokens=cast(Any, None),  # nobody validates tokens here
            tenants=MemoryTenantDirectory([tenant]),
            catalog=CATALOG,
            runs=seen(self.runs, "runs"),
            events=seen(self.events, "events"),
            payloads=seen(self.payloads, "payloads"),
            audit=seen(self.audit, "audit"),
            policy=BuiltinPolicyEngine(),
            budgets=seen(self.budgets, "budgets"),
            invoker=cast(Any, self.agent),
            planner=DegradedPlanner(CATALOG, self.clock),
            composer=DegradedComposer(),
            telemetry=QuietTelemetry(),
            approvals=seen(self.approvals, "approvals"),
            assignments=seen(self.assignments, "assignments"),
            step_queue=cast(Any, self.bus),
            step_results=cast(Any, self.bus),
        )

    def _plan(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        for number in range(self.chance.randint(2, 5)):
            names = ("bus.fit", "bus.fit", "bus.slow", "direct.add")
            one: dict[str, Any] = {"id": f"s{number}", "capability": self.chance.choice(names)}
            one |= {"retry": {"max_attempts": 10, "backoff_s": 1, "factor": 1.5}, "inputs": {"n": number}}
            plain = [other["id"] for other in steps if "for_each" not in other]
            if plain and self.chance.random() < 0.6:
                one["inputs"] = {"n": {"$ref": f"steps.{self.chance.choice(plain)}#/n"}}
            if self.chance.random() < 0.2:
                one |= {"for_each": list(range(self.chance.randint(1, 5))), "inputs": {"n": {"$ref": "item#"}}}
            steps.append(one)
        return {"goal": "chaos", "steps": steps, "answer": {"uses": [steps[-1]["id"]]}}

    async def play(self) -> Run:
        """Play the seed to its end and return the run. AssertionError when it does not end."""
        with patch("asyncio.to_thread", _inline):
            try:
                await self._submit()
                works = (self.bus.forge(), self._break_the_bus(), self._set_the_clock(), self._hold())
                troubles = [self.background(work) for work in works]
                if self.is_cancelled:
                    self.background(self._cancel(self.chance.uniform(0, 200)))
                run = await self._until_over()
                for task in troubles:
                    task.cancel()
                return run
            finally:
                await self._close()

    async def _submit(self) -> None:
        request = RunRequest(intent="chaos", plan=self.plan)
        ref = await self.payloads.put(TENANT, RUN, request.model_dump_json().encode())
        run = Run(
            tenant_id=TENANT,
            run_id=RUN,
            status=RunStatus.ACCEPTED,
            title="chaos",
            request_ref=ref,
            principal=Principal(tenant_id=TENANT, subject="tid:ana", kind="user", client_app="cli"),
            created_at=START_AT,
            updated_at=START_AT,
            deadline_at=START_AT + timedelta(hours=20),
        )
        await self.runs.create(run, [new_event(EventType.RUN_ACCEPTED, RunEventData())], None)

    async def _break_the_bus(self) -> None:
        for _ in range(self.chance.choice((0, 1, 3))):
            await self.clock.sleep_s(self.chance.uniform(0, 200))
            self.bus.down_until = self.clock.steady_at + timedelta(seconds=self.chance.choice((3, 30, 400)))

    async def _set_the_clock(self) -> None:
        """Forwards or back, in some seeds; a source of its own leaves the others what they were."""
        chance = random.Random(f"bus-clock/{self.seed}")
        for _ in range(chance.choice((0, 0, 1, 3))):
            await self.clock.sleep_s(chance.uniform(0, 90))
            self.set_clock(chance.choice((1, -1)) * chance.choice((20, 100, 3_600)) * chance.uniform(0.5, 1.0))

    async def _hold(self) -> None:
        await suspend_and_resume(self)

    def set_clock(self, seconds: float) -> None:
        """Somebody sets the clock of all machines."""
        self.jumps_s.append(seconds)
        self.clock.set_by_s(seconds)

    @property
    def set_back(self) -> timedelta:
        """By how much in all: a lease whose worker died, or a command to be sent again, is found by as much later."""
        return -timedelta(seconds=sum(jump_s for jump_s in self.jumps_s if jump_s < 0))

    async def _cancel(self, at_s: float) -> None:
        from engine.ports.run_store import RunChange

        await self.clock.sleep_s(at_s)
        with contextlib.suppress(ConflictError):
            live = frozenset(RunStatus) - FINAL_RUN_STATUSES
            run = await self.runs.change(TENANT, RUN, RunChange(status=RunStatus.CANCELLING), only_from=live)
            if self.host is not None and not self.host.life.is_dead:
                with contextlib.suppress(LivoaError):
                    await ask_to_cancel(run, cast(Any, EngineClient(self.host.engine)))

    async def _until_over(self) -> Run:
        for _ in range(60_000):
            await self._keep_processes()
            await self._settle()
            run = await self.runs.get(TENANT, RUN)
            assert run is not None
            if run.status.is_final and await self._engine_is_over():
                return run
            if (
                self.host is not None
                and not self.host.life.is_dead
                and not await self.host.engine.query(InstanceFilter())
            ):
                with contextlib.suppress(LivoaError):  # no run takes a place here, so the sweep must not be first
                    await start(run, cast(Any, EngineClient(self.host.engine)))
                continue
            until_at = START_AT + ENOUGH + self.set_back
            assert self.clock.steady_at < until_at, f"the run is stuck: {run.status}, {self.crashes}, {self.jumps_s}"
            assert self.clock.advance_to_next(), "nothing can happen any more"
        raise AssertionError("the run does not end")

    async def _engine_is_over(self) -> bool:
        host = self.host
        if host is None or host.life.is_dead:
            return False
        return all(item.is_terminal for item in await host.engine.query(InstanceFilter()))

    async def _keep_processes(self) -> None:
        """Who died comes back after a while."""
        if self.host is None or self.host.life.is_dead:
            if self.host is not None:
                await self.host.life.clear()
                with contextlib.suppress(OSError):
                    await self.host.engine.stop(0)
                self.host = None
                view._CACHE = view._PayloadCache()  # it was in the memory of the process
            if self._is_back("host"):
                self.host = HostProcess(self)
                with contextlib.suppress(OSError):
                    await self.host.start()
        for name in ("w1", "w2"):
            worker = self.workers.get(name)
            if worker is not None and not worker.life.is_dead:
                continue
            if worker is not None:
                await worker.life.clear()
                del self.workers[name]
            if self._is_back(name):
                self.workers[name] = WorkerProcess(self, name)

    def _is_back(self, name: str) -> bool:
        at = self._returning.get(name)
        if at is None:
            now, away_s = self.clock.steady_at, self.chance.choice((0.1, 5, 60))
            at = self._returning[name] = START_AT if now == START_AT else now + timedelta(seconds=away_s)
            self.clock.call_after((at - now).total_seconds(), lambda: None)
        if self.clock.steady_at < at:
            return False
        del self._returning[name]
        return True

    async def _settle(self) -> None:
        """Until nothing but time can change anything: this loop has no threads and no input."""
        ready = cast(Any, asyncio.get_running_loop())._ready
        for _ in range(1_000_000):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("the world does not come to rest")

    async def _close(self) -> None:
        for task in list(self._background):
            task.cancel()
        for worker in self.workers.values():
            await worker.life.clear()
        if self.host is not None:
            await self.host.life.clear()
            with contextlib.suppress(OSError):
                await self.host.engine.stop(0)
        left = asyncio.all_tasks() - {cast(Any, asyncio.current_task())}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _inline(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    await asyncio.sleep(0)
    return function(*args, **kwargs)
