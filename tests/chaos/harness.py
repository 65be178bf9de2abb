"""One run under chaos: a random plan through the real orchestrators and activities on the real durable engine.

A *host* is one life of the process: an engine and a set of dependencies that die together. Stores, agent, clock and adversary
outlive it. Everything happens on one thread under a virtual clock, so a seed is the same run every time.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from engine.domain import names
from engine.domain.audit import AuditRecord
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.events import EventType, RunEvent, RunEventData, new_event
from engine.domain.ids import undo_id
from engine.domain.principal import Principal
from engine.domain.run import Run, RunConstraints, RunRequest, StepRecord
from engine.domain.status import FINAL_RUN_STATUSES, RunStatus
from engine.plan import CheckedPlan, check_plan
from engine.ports.budget import BudgetState
from engine.ports.deps import Deps
from engine.ports.run_store import RunChange
from engine.step_runner import view
from local_host.durable.client_ops import ClientError, Snapshot
from local_host.durable.clock import VirtualClock
from local_host.durable.engine import DurableEngine
from local_host.durable.records import InstanceFilter
from local_host.durable.storage import StorageError
from tests.chaos.adversary import Adversary
from tests.chaos.agent import Agent
from tests.chaos.host import ORCHESTRATORS, Host
from tests.chaos.observer import LogCapture, Observer
from tests.chaos.operators import Operators
from tests.chaos.plans import CATALOG, TENANT, random_request, tenant_config
from tests.chaos.stores import RawStores
from tests.chaos.twists import twist
from triggers.starting import start
from triggers.timer_sweep import sweep

START_AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
MAX_ALARMS = 20_000
MAX_ROUNDS = 500
"""How often somebody looks closely; a run of days is looked at less often then, for it is virtual days that cost."""


@dataclass(slots=True)
class Evidence:
    """All that is left when everything is over; what the invariants look at. ``plans`` are all versions, ``plan`` is the last."""

    seed: int
    families: frozenset[str]
    is_store_trouble: bool
    roll_after: int | None
    hold_s: float
    plan: CheckedPlan
    plans: tuple[CheckedPlan, ...]
    max_parallel: int
    run: Run
    steps: dict[str, StepRecord]
    items: dict[tuple[str, int], StepRecord]
    events: tuple[RunEvent, ...]
    audit: tuple[AuditRecord, ...]
    budget: BudgetState | None
    instances: tuple[Snapshot, ...]
    storage_bytes: bytes
    log_lines: list[str]
    observer: Observer
    wrappers: dict[str, Any] = field(default_factory=lambda: ORCHESTRATORS)


async def _inline(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    await asyncio.sleep(0)
    return function(*args, **kwargs)


class Client:
    """The durable client of our triggers, on one engine: what the sweep needs of it."""

    def __init__(self, engine: DurableEngine, history: dict[str, int]) -> None:
        self._engine, self._history = engine, history

    async def _ask(self, work: Any) -> Any:
        """The answer; ``OSError`` when the host died over it, as for anybody who talks to a process."""
        task = asyncio.get_running_loop().create_task(work)
        await asyncio.wait({task})
        if task.cancelled():
            raise OSError("the host is dead")
        return task.result()

    async def start_new(self, name: str, instance_id: str, client_input: Any) -> str:
        """Start, with the input as JSON text inside a JSON document, as the SDK sends it. Histories may have to be short."""
        given = json.dumps(json.dumps(client_input | self._history))
        return await self._ask(self._engine.start_new(name, instance_id, given))

    async def get_status(self, instance_id: str) -> Any:
        """What the engine knows."""
        snapshot = await self._ask(self._engine.status(instance_id))
        return snapshot.instance if snapshot is not None else None

    async def terminate(self, instance_id: str, reason: str) -> None:
        """End an instance."""
        await self._ask(self._engine.terminate(instance_id, reason))

    async def signal_entity(self, *_: Any, **__: Any) -> None:
        """No run takes a place here."""

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any) -> None:
        """Raise an external event."""
        await self._ask(self._engine.raise_event(instance_id, event_name, json.dumps(event_data)))


class Chaos:
    """One seed, from submission to evidence. ``lane`` is ``memory`` or ``sqlite``."""

    def __init__(self, seed: int, lane: str, path: Path) -> None:
        self.seed, self.path = seed, path
        self.clock = VirtualClock(START_AT)
        self.adversary = Adversary(seed, START_AT)
        self.observer = Observer(self.clock)
        chance = random.Random(f"plan/{seed}")
        self.tenant = tenant_config(chance)
        self.request, self.plan = random_request(
            chance,
            self.tenant,
            is_long=self.adversary.has("long"),
            twisted=lambda document: twist(document, self.adversary),
        )
        self.raw = RawStores(lane, path, self.clock, self.tenant)
        self.agent = Agent(self.plan)
        self.run_id = f"run-{seed}-{lane}"
        self._operators: set[asyncio.Task[None]] = set()
        self._log = LogCapture()
        self._host: Host | None = None
        self._latest_at = START_AT

    async def play(self) -> Evidence:
        """Play the seed to its end. AssertionError when the run does not end."""
        root = logging.getLogger()
        level = root.level
        root.addHandler(self._log)
        root.setLevel(logging.INFO)
        try:
            # A thread of its own would make the seed depend on the machine.
            with patch("asyncio.to_thread", _inline):
                await self._submit()
                await self._until_over()
                return await self._evidence()
        finally:
            root.removeHandler(self._log)
            root.setLevel(level)
            for task in self._operators:
                task.cancel()
            if self._host is not None:
                await self._clear(self._host)
            await self.raw.close()

    async def _submit(self) -> None:
        chance, request = self.adversary.chance, self.request
        if self.adversary.has("budget"):
            limit = chance.randrange(100, 2_000)
            if limit >= self.plan.estimated_cost_micro_usd:
                request = request.model_copy(update={"constraints": RunConstraints(max_cost_micro_usd=limit)})
        until = timedelta(days=12) if self.adversary.has("long") else timedelta(hours=1)
        if self.adversary.has("people"):
            until = max(until, timedelta(hours=12))  # time enough for every question to be left unanswered
        if self.adversary.has("deadline"):
            until = timedelta(seconds=chance.uniform(5, 90))
        self._latest_at = START_AT + until + timedelta(hours=3)
        await self._create(request, until)
        people = Operators(self)
        if self.adversary.has("people"):
            self.operate(people.answer_questions())
        if self.adversary.has("hold"):
            self.operate(people.suspend_and_resume())
        if self.adversary.has("terminate"):
            self.operate(people.terminate())
        if self.adversary.families & {"cancel", "people", "hold"}:
            self.operate(self._sweep())
        if self.adversary.has("cancel"):
            at_s = chance.choices((0, chance.uniform(0, 3), chance.uniform(0, 150)), (1, 1, 4))[0]
            self.operate(self._cancel(at_s, times=chance.choice((0, 1, 1, 3))))
        if self.adversary.has("revoke"):
            self.operate(self._revoke(chance.uniform(0, 20)))
        if self.adversary.has("clock"):
            self.operate(self._set_the_clock())

    async def _create(self, request: RunRequest, until: timedelta) -> None:
        ref = await self.raw.payloads.put(TENANT, self.run_id, request.model_dump_json().encode())
        run = Run(
            tenant_id=TENANT,
            run_id=self.run_id,
            status=RunStatus.ACCEPTED,
            title="chaos",
            request_ref=ref,
            principal=Principal(tenant_id=TENANT, subject="tid:ana", kind="user", client_app="cli"),
            created_at=START_AT,
            updated_at=START_AT,
            deadline_at=START_AT + until,
        )
        await self.raw.runs.create(run, [new_event(EventType.RUN_ACCEPTED, RunEventData())], None)

    def client(self) -> Client | None:
        """The durable client, while there is a host to talk to."""
        host = self._host
        return Client(host.engine, self.adversary.history) if host is not None and not host.is_dead else None

    def deps(self) -> Deps:
        """Dependencies of somebody who acts on the run from outside."""
        return (self._host or Host(self)).deps

    def operate(self, work: Any) -> None:
        """Let somebody act beside the run."""
        task = asyncio.get_running_loop().create_task(work)
        self._operators.add(task)
        task.add_done_callback(self._operators.discard)

    async def _revoke(self, at_s: float) -> None:
        await self.clock.sleep_s(at_s)
        self.raw.tenants.revoke()
        self.observer.revoked_at = self.observer.next()

    async def _set_the_clock(self) -> None:
        """While everybody waits; in the middle of something it is the host that has its clock set."""
        chance = self.adversary.clock_chance
        for _ in range(chance.randint(1, 4)):
            await self.clock.sleep_s(
                chance.choice((chance.uniform(0, 5), chance.uniform(0, 20), chance.uniform(0, 120)))
            )
            self.observer.set_clock(self.adversary.jumps_here_s(1))

    async def _sweep(self) -> None:
        """The timer trigger, every 15 seconds, as long as there is anything to look after."""
        for nth in itertools.count():
            if not await self.raw.runs.unfinished(1):
                return
            await self.clock.sleep_s(15 if nth < MAX_ROUNDS else 1_000)
            host = self._host
            if host is not None and not host.is_dead:
                raw = self.raw
                deps = dataclasses.replace(
                    host.deps, runs=raw.runs, approvals=raw.approvals, tenants=cast(Any, raw.tenants)
                )
                await sweep(deps, cast(Any, Client(host.engine, self.adversary.history)))

    async def _cancel(self, at_s: float, *, times: int) -> None:
        """Cancel as the HTTP route does: the store first, then the event, which may be lost or come several times."""
        if at_s:
            await self.clock.sleep_s(at_s)
        change = RunChange(status=RunStatus.CANCELLING)
        try:
            live = frozenset(RunStatus) - FINAL_RUN_STATUSES
            await self.raw.runs.change(TENANT, self.run_id, change, only_from=live)
        except ConflictError:
            return
        self.observer.cancelled_at = self.observer.next()
        for _ in range(times):
            with contextlib.suppress(ClientError, StorageError, OSError):
                if self._host is not None:
                    is_quiet = not self.observer.in_flight
                    await self._host.engine.raise_event(self.run_id, names.CANCEL_EVENT, "null")
                    if is_quiet and self.observer.quiet_cancel_at is None:
                        self.observer.quiet_cancel_at = self.clock.now()
            await self.clock.sleep_s(self.adversary.chance.choice((0.1, 15)))

    async def _until_over(self) -> None:
        for _ in range(MAX_ALARMS):
            host = self._host
            if host is None or host.is_dead:
                await self._open()
                continue
            await self._settle()
            if host.is_dead:
                continue
            snapshot = await host.engine.status(self.run_id)
            if snapshot is None:
                run = await self.raw.runs.get(TENANT, self.run_id)
                assert run is not None
                with contextlib.suppress(LivoaError):
                    await start(run, cast(Any, Client(host.engine, self.adversary.history)))
            elif await self._is_over(host):
                return
            elif not self.clock.advance_to_next():
                raise AssertionError(f"nothing can happen any more, and the run is {snapshot.instance.status}")
            latest_at = self._latest_at + self.observer.set_back
            assert self.clock.steady_at < latest_at, "the run outlives its deadline by hours"
        raise AssertionError("the run does not end")

    async def _open(self) -> None:
        if self._host is not None:
            await self._clear(self._host)
            self.observer.set_clock(self.adversary.jumps_here_s(0.3))
        self._host = Host(self)
        with contextlib.suppress(OSError):
            await self._host.engine.start()

    async def _clear(self, host: Host) -> None:
        """What was in the memory of the process goes with it."""
        await host.stop()
        left = asyncio.all_tasks() - self._operators - {cast(Any, asyncio.current_task())}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        view._CACHE = view._PayloadCache()

    async def _settle(self) -> None:
        """Until nothing but time can change anything: this loop has no threads and no input."""
        ready = cast(Any, asyncio.get_running_loop())._ready
        for _ in range(1_000_000):
            await asyncio.sleep(0)
            if not ready:
                return
        raise AssertionError("the world does not come to rest")

    async def _is_over(self, host: Host) -> bool:
        if host.is_busy or self._operators:
            return False
        return all(item.is_terminal for item in await host.engine.query(InstanceFilter()))

    async def _versions(self, run: Run) -> tuple[CheckedPlan, ...]:
        """The plan as it was submitted, and what repairs have made of it."""
        if not run.earlier_plans or run.plan_ref is None:
            return (self.plan,)
        refs = [*(version.plan_ref for version in run.earlier_plans), run.plan_ref]
        documents = [await self.raw.payloads.get(TENANT, self.run_id, ref) for ref in refs]
        checked = [check_plan(document, tenant=self.tenant, catalog=CATALOG).plan for document in documents]
        return tuple(plan for plan in checked if plan is not None)

    async def _evidence(self) -> Evidence:
        assert self._host is not None
        self.adversary.crashes_left = 0
        engine, raw = self._host.engine, self.raw
        found = await engine.query(InstanceFilter())
        snapshots = [await engine.status(item.instance_id, with_history=True) for item in found]
        run = await raw.runs.get(TENANT, self.run_id)
        assert run is not None
        items: dict[tuple[str, int], StepRecord] = {}
        families = self.adversary.families
        if self.observer.latest_at >= run.deadline_at:
            families |= {"deadline"}  # a clock that was set forwards has used up the run's time
        plans = await self._versions(run)
        ids = dict.fromkeys(step.id for plan in plans for step in plan.steps)
        for step_id in (each for known in ids for each in (known, undo_id(known))):
            for record in await raw.runs.items(TENANT, self.run_id, step_id):
                items[step_id, record.item] = record
        return Evidence(
            seed=self.seed,
            families=families,
            is_store_trouble=self.adversary.is_store_trouble,
            roll_after=self.adversary.roll_after,
            hold_s=self.adversary.history.get("hold_ms", names.HOLD_MS) / 1_000,
            plan=plans[-1],
            plans=plans,
            max_parallel=self.tenant.bounds.max_parallel_steps,
            run=run,
            steps={record.step_id: record for record in await raw.runs.steps(TENANT, self.run_id)},
            items=items,
            events=await raw.events.read(TENANT, self.run_id, after_seq=0, limit=1_000),
            audit=await raw.audit.read(TENANT, after_seq=0, limit=1_000),
            budget=await raw.budgets.state(TENANT, self.run_id),
            instances=tuple(snapshot for snapshot in snapshots if snapshot is not None),
            storage_bytes=b"".join(part.read_bytes() for part in sorted(self.path.glob("hub.db*"))),
            log_lines=self._log.lines,
            observer=self.observer,
        )
