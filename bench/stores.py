"""What the stores cost: the store work of one step, operation by operation, on a fresh SQLite file and payload directory.

    .venv/bin/python -m bench.stores --steps 300

Prints one JSON object; times in milliseconds. ``cpu`` is the median process time (all threads) of an operation; ``p50`` and
``p95`` are wall time, which on SQLite is mostly the sync to disk. ``step`` is everything that ``perform_step`` writes around one
call of a capability: the call opened (reserve, start, intent), its output stored, the call closed (result, settle, success).
``in_turn`` is the same by the single stores, one operation after the other, as where the stores are not one database; steps of
both kinds take turns. ``parallel`` is the work of ``step`` by eight runs at once. On a machine that does other work, the figures
are those of a machine that does other work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.adapters.files import FilesPayloadObjects
from engine.adapters.files.key_wrapper import FileKeyWrapper
from engine.adapters.memory import SystemClock
from engine.adapters.sealed import RunKeyring, SealedPayloadStore
from engine.adapters.sql import (
    Database,
    SqlAuditLog,
    SqlBudgetLedger,
    SqlCallLedger,
    SqlEventLog,
    SqlRunKeys,
    SqlRunStore,
)
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.events import EventType, NewEvent, StepEventData, new_event
from engine.domain.principal import Principal
from engine.domain.run import PayloadRef, Run, StepRecord
from engine.domain.status import RunStatus, StepStatus
from engine.ports.calls import Closing, Opening, StepWrite

TENANT = "bench"
OUTPUT = json.dumps({"rows": [{"week": n, "spend": n * 1.5, "channel": "paid_search"} for n in range(40)]}).encode()
PARALLEL_RUNS = 8


class World:
    """All stores of one process."""

    def __init__(self, url: str, data_dir: Path) -> None:
        clock = SystemClock()
        self.database = Database(url, clock)
        self.runs = SqlRunStore(self.database, clock)
        self.events = SqlEventLog(self.database, clock)
        self.audit = SqlAuditLog(self.database)
        self.budgets = SqlBudgetLedger(self.database)
        self.calls = SqlCallLedger(self.database, self.audit)
        wrapper = FileKeyWrapper(data_dir / "payload-keys", create=True)
        self.keyring = RunKeyring(SqlRunKeys(self.database), wrapper, clock)
        self.payloads = SealedPayloadStore(FilesPayloadObjects(data_dir), self.keyring)

    async def start(self, run_id: str) -> None:
        now = datetime.now(UTC)
        principal = Principal(tenant_id=TENANT, subject="tid:oid", kind="user", client_app="bench")
        ref = PayloadRef(sha256="0" * 64, size_bytes=2)
        run = Run(
            tenant_id=TENANT,
            run_id=run_id,
            status=RunStatus.RUNNING,
            title="bench",
            request_ref=ref,
            principal=principal,
            created_at=now,
            updated_at=now,
            deadline_at=now + timedelta(hours=1),
        )
        await self.runs.create(run, [], None)
        await self.budgets.open(TENANT, run_id, limit_micro_usd=10**12)


def record(run_id: str, step_id: str, status: StepStatus) -> StepRecord:
    now = datetime.now(UTC)
    done = now if status.is_final else None
    return StepRecord(
        tenant_id=TENANT,
        run_id=run_id,
        step_id=step_id,
        status=status,
        capability="marketing.query",
        input_sha256="1" * 64,
        output_ref=PayloadRef(sha256="2" * 64, size_bytes=100) if done else None,
        started_at=now,
        finished_at=done,
        cost_micro_usd=5 if done else 0,
    )


def event(kind: EventType, run_id: str, step_id: str) -> NewEvent:
    data = StepEventData(step_id=step_id, attempt=1, capability="marketing.query", duration_ms=12)
    return new_event(kind, data, f"{kind.value}/{run_id}/{step_id}#1")


def entry(kind: AuditType, run_id: str, step_id: str) -> AuditEntry:
    return AuditEntry(
        tenant_id=TENANT,
        entry_id=f"{run_id}/{step_id}#1/{kind.value}",
        type=kind,
        at=datetime.now(UTC),
        run_id=run_id,
        actor="tid:oid",
        body={
            "step": step_id,
            "attempt": 1,
            "capability": "marketing.query",
            "capability_version": "1.0.0",
            "plan_hash": "3" * 64,
            "inputs_sha256": "4" * 64,
            "decision": {"verdict": "allow", "policies": ["builtin.capability_enabled"], "policy_set": "5" * 64},
        },
    )


Operations = dict[str, Callable[[], Awaitable[object]]]


def operations(world: World, run_id: str, step_id: str) -> Operations:
    """The store work of one step, in order."""
    key = f"{run_id}/{step_id}#1"
    start = StepWrite(record(run_id, step_id, StepStatus.RUNNING), (event(EventType.STEP_STARTED, run_id, step_id),))
    done = StepWrite(
        record(run_id, step_id, StepStatus.SUCCEEDED), (event(EventType.STEP_SUCCEEDED, run_id, step_id),), 5
    )
    intent, result = (entry(kind, run_id, step_id) for kind in (AuditType.DISPATCH_INTENDED, AuditType.DISPATCH_RESULT))
    return {
        "call.open": lambda: world.calls.open(Opening(start, intent, key, 5)),
        "payload.put": lambda: world.payloads.put(TENANT, run_id, OUTPUT + step_id.encode()),
        "call.close": lambda: world.calls.close(Closing(done, result, key, 5)),
    }


def operations_in_turn(world: World, run_id: str, step_id: str) -> Operations:
    """The same by the single stores."""
    key = f"{run_id}/{step_id}#1"
    done = [event(EventType.STEP_SUCCEEDED, run_id, step_id)]
    return {
        "budget.reserve": lambda: world.budgets.reserve(TENANT, run_id, key, amount_micro_usd=5),
        "put_step.started": lambda: world.runs.put_step(
            record(run_id, step_id, StepStatus.RUNNING), [event(EventType.STEP_STARTED, run_id, step_id)]
        ),
        "audit.intended": lambda: world.audit.append(entry(AuditType.DISPATCH_INTENDED, run_id, step_id)),
        "payload.put": lambda: world.payloads.put(TENANT, run_id, OUTPUT + step_id.encode()),
        "audit.result": lambda: world.audit.append(entry(AuditType.DISPATCH_RESULT, run_id, step_id)),
        "put_step.succeeded": lambda: world.runs.put_step(
            record(run_id, step_id, StepStatus.SUCCEEDED), done, add_cost_micro_usd=5
        ),
        "budget.settle": lambda: world.budgets.settle(TENANT, run_id, key, spent_micro_usd=5),
    }


def figures(wall_ms: list[float], cpu_ms: list[float]) -> dict[str, float]:
    return {
        "p50": round(statistics.median(wall_ms), 3),
        "p95": round(sorted(wall_ms)[int(len(wall_ms) * 0.95)], 3),
        "cpu": round(statistics.median(cpu_ms), 3),
    }


class Times:
    """What each operation took."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, list[float]] = {}

    async def of(self, step: Operations) -> None:
        total = cpu_total = 0.0
        for name, operation in step.items():
            cpu_before, before = time.process_time(), time.perf_counter()
            await operation()
            took, used = (time.perf_counter() - before) * 1e3, (time.process_time() - cpu_before) * 1e3
            self.add(name, took, used)
            total, cpu_total = total + took, cpu_total + used
        self.add("step", total, cpu_total)

    def add(self, name: str, wall_ms: float, cpu_ms: float) -> None:
        self.wall.setdefault(name, []).append(wall_ms)
        self.cpu.setdefault(name, []).append(cpu_ms)

    def figures(self) -> dict[str, dict[str, float]]:
        return {name: figures(times, self.cpu[name]) for name, times in self.wall.items()}


async def one_run(world: World, steps: int) -> dict[str, object]:
    await world.start("run-serial")
    await Times().of(operations(world, "run-serial", "warm-up"))
    together, in_turn = Times(), Times()
    for number in range(steps):
        await together.of(operations(world, "run-serial", f"step-{number}"))
        await in_turn.of(operations_in_turn(world, "run-serial", f"turn-{number}"))
    return {**together.figures(), "in_turn": in_turn.figures()}


async def many_runs(world: World, steps: int) -> dict[str, float]:
    runs = [f"run-{number}" for number in range(PARALLEL_RUNS)]
    for run_id in runs:
        await world.start(run_id)

    async def work(run_id: str) -> None:
        for number in range(steps // PARALLEL_RUNS):
            for operation in operations(world, run_id, f"step-{number}").values():
                await operation()

    cpu_before, before = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(work, runs))
    seconds, cpu = time.perf_counter() - before, time.process_time() - cpu_before
    done = steps // PARALLEL_RUNS * PARALLEL_RUNS
    return {"steps_per_s": round(done / seconds, 1), "cpu_per_step": round(cpu / done * 1e3, 3)}


async def measure(steps: int, url: str | None) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as directory:
        world = World(url or f"sqlite:///{Path(directory) / 'livoa.db'}", Path(directory))
        opened = time.perf_counter()
        await world.events.read(TENANT, "none", after_seq=0, limit=1)
        open_ms = (time.perf_counter() - opened) * 1e3
        serial = await one_run(world, steps)
        parallel = await many_runs(world, steps)
        await world.database.dispose()
    return {"steps": steps, "open_ms": round(open_ms, 1), **serial, "parallel": parallel}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--url", help="another database; it must be empty")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(max(options.steps, PARALLEL_RUNS), options.url))))


if __name__ == "__main__":
    main()
