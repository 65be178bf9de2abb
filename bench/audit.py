"""What evidence costs: appends around a step, checkpoints, and checking a large export offline.

    .venv/bin/python -m bench.audit --records 100000 --steps 300

Prints one JSON object. ``append_ms_a_step`` is the two records of a step (intent, result) as the app writes them, with
commitments under the key of the run and a checkpoint after every thousandth record, on a fresh SQLite file with
synchronous=FULL: ``one_by_one`` with nothing else going on, ``cpu`` the processor time of all threads for that, ``parallel`` as
16 runs of one tenant at once, and ``added`` what the records add to a step that writes its other transactions too.
``checkpoint_ms`` is one of ``new_records`` since the last. ``verify`` is ``./livoa audit verify`` without the start of the
interpreter: reading the file, the chain, every signature, the Merkle tree. ``--only append`` leaves the rest out.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.stores import TENANT, World, entry, event, record
from cli.audit_file import Witness, check
from engine.adapters.files.anchors import FilesAnchors
from engine.adapters.files.signing_key import FileSigner, public_file
from engine.adapters.memory import MemoryAuditLog, SystemClock
from engine.domain.audit import AuditEntry, AuditType
from engine.domain.capability import Capability
from engine.domain.events import EventType
from engine.domain.policy import PolicyDecision, Verdict
from engine.domain.principal import Principal
from engine.domain.run import PayloadRef
from engine.domain.status import StepStatus
from engine.evidence.checkpoints import Checkpointer
from engine.evidence.commitments import KeyedAuditLog
from engine.evidence.on_record import put_on_record
from engine.evidence.watched import WatchedAuditLog
from engine.ports.audit_log import AuditLog
from engine.step_runner.evidence import intent_entry, result_entry
from engine.step_runner.task import StepTask

PARALLEL_RUNS = 16
PRINCIPAL = Principal(tenant_id=TENANT, subject="tid:oid", kind="user", client_app="bench")
DECISION = PolicyDecision(
    verdict=Verdict.ALLOW, policy_ids=("default.permit", "t/contoso/permit"), policy_set_hash="5" * 64
)
CAPABILITY = Capability(
    name="marketing.query", version="1.0.0", title="query", description="query", delivery="http", endpoint="marketing",
    input_schema={"type": "object"}, output_schema={"type": "object"}, side_effect="read", idempotent=True,
)  # fmt: skip
RECORDS_A_CHECKPOINT = 1_000


def spread(times_ms: Iterable[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    ordered = sorted(times_ms)
    return {"p50": round(statistics.median(ordered), 3), "p95": round(ordered[int(len(ordered) * 0.95)], 3)}


def production_log(world: World, folder: Path) -> AuditLog:
    """The audit log as the app has it: commitments under the key of the run, and a checkpoint after every thousandth record."""
    maker = Checkpointer(
        world.audit, FilesAnchors(folder / "a"), FileSigner(folder / "a.pem", create=True), SystemClock()
    )
    return WatchedAuditLog(KeyedAuditLog(world.audit, world.keyring), maker)


async def audited(log: AuditLog, run_id: str, step_id: str) -> None:
    """What a step appends, by the step runner's own entries and in its own way."""
    task = StepTask(tenant_id=TENANT, run_id=run_id, step_id=step_id, attempt=1)
    now, content = datetime.now(UTC), hashlib.sha256(f"{run_id}/{step_id}".encode()).hexdigest()
    intended = intent_entry(
        task, PRINCIPAL, now,
        capability=CAPABILITY, plan_hash="3" * 64, inputs_sha256=content, decision=DECISION, reserved_micro_usd=5,
    )  # fmt: skip
    await put_on_record(intended, log)
    output = PayloadRef(sha256=content[::-1], size_bytes=2_048)
    result = result_entry(task, PRINCIPAL, now, status="succeeded", code=None, output=output, cost_micro_usd=5)
    await put_on_record(result, log)


async def whole_step(world: World, log: AuditLog | None, run_id: str, step_id: str) -> None:
    """The transactions of a step around its call."""
    key = f"{run_id}/{step_id}#1"
    await world.budgets.reserve(TENANT, run_id, key, amount_micro_usd=5)
    started = [event(EventType.STEP_STARTED, run_id, step_id)]
    await world.runs.put_step(record(run_id, step_id, StepStatus.RUNNING), started)
    if log is not None:
        await audited(log, run_id, step_id)
    ended = [event(EventType.STEP_SUCCEEDED, run_id, step_id)]
    await world.runs.put_step(record(run_id, step_id, StepStatus.SUCCEEDED), ended)
    await world.budgets.settle(TENANT, run_id, key, spent_micro_usd=5)


async def appends(folder: Path, steps: int) -> dict[str, Any]:
    """The cost of the two records of a step."""
    world = World(f"sqlite:///{folder / 'a.db'}", folder)
    log = production_log(world, folder)
    await audited(log, "run-0", "warm-up")
    alone: list[float] = []
    used: list[float] = []
    for number in range(steps):
        begun, cpu = time.perf_counter(), time.process_time()
        await audited(log, "run-0", f"s{number}")
        alone.append((time.perf_counter() - begun) * 1_000)
        used.append((time.process_time() - cpu) * 1_000)

    async def one_run(run: int) -> list[float]:
        times = []
        for number in range(steps // PARALLEL_RUNS + 1):
            begun = time.perf_counter()
            await audited(log, f"run-p{run}", f"s{number}")
            times.append((time.perf_counter() - begun) * 1_000)
        return times

    crowded = [t for times in await asyncio.gather(*map(one_run, range(PARALLEL_RUNS))) for t in times]
    whole: dict[bool, list[float]] = {True: [], False: []}
    for with_audit in (True, False):
        await world.start(f"run-{with_audit}")
    for number in range(steps):
        for with_audit in (True, False):
            begun = time.perf_counter()
            await whole_step(world, log if with_audit else None, f"run-{with_audit}", f"s{number}")
            whole[with_audit].append((time.perf_counter() - begun) * 1_000)
    added = round(statistics.median(whole[True]) - statistics.median(whole[False]), 3)
    return {"one_by_one": spread(alone), "cpu": spread(used), "parallel": spread(crowded), "added": {"p50": added}}


async def checkpoints(folder: Path, new_records: int, rounds: int = 20) -> dict[str, Any]:
    """The cost of a checkpoint on SQLite."""
    world = World(f"sqlite:///{folder / f'c{new_records}.db'}", folder)
    signer = FileSigner(folder / "c.pem", create=True)
    maker = Checkpointer(world.audit, FilesAnchors(folder / f"c{new_records}"), signer, SystemClock())
    times = []
    for number in range(rounds):
        for step in range(new_records // 2):
            await audited(world.audit, f"run-{number}", f"s{step}")
        begun = time.perf_counter()
        await maker.make(TENANT)
        times.append((time.perf_counter() - begun) * 1_000)
    return {"new_records": new_records} | spread(times)


async def export(folder: Path, records: int) -> int:
    """An export of ``records`` records (rounded up by the notes of checkpoints) with its anchors; how many it has."""
    audit, anchors = MemoryAuditLog(), FilesAnchors(folder / "anchors")
    maker = Checkpointer(audit, anchors, FileSigner(folder / "key.pem", create=True), SystemClock())
    size = number = 0
    while size < records:
        for _ in range(RECORDS_A_CHECKPOINT):
            number += 1
            await audit.append(numbered(number))
        made = await maker.make(TENANT)
        size = made.size if made is not None else 0
    with (folder / "audit.jsonl").open("w", encoding="utf-8") as out:
        for first in range(0, size, 1_000):
            for found in await audit.read(TENANT, after_seq=first, limit=min(1_000, size - first)):
                out.write(json.dumps(found.model_dump(mode="json"), separators=(",", ":"), sort_keys=True) + "\n")
    return size


def numbered(number: int) -> AuditEntry:
    """One of many records like those of steps."""
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(milliseconds=number)
    like = entry(AuditType.DISPATCH_INTENDED, f"run-{number // 20}", f"s{number}")
    return like.model_copy(update={"at": at})


def verified(folder: Path, size: int) -> dict[str, Any]:
    """The time ``verify`` takes, and what it says."""
    begun = time.perf_counter()
    checked = check(folder / "audit.jsonl", TENANT, None, Witness(folder / "anchors", public_file(folder / "key.pem")))
    seconds = time.perf_counter() - begun
    return {
        "records": size,
        "checkpoints": checked.checkpoints,
        "findings": len(checked.findings),
        "seconds": round(seconds, 2),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", choices=("append",))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {"append_ms_a_step": asyncio.run(appends(folder, options.steps))}
        if options.only is None:
            found |= rest(folder, options.records)
    print(json.dumps(found, indent=2))


def rest(folder: Path, records: int) -> dict[str, Any]:
    """What is no append."""
    found: dict[str, Any] = {"checkpoint_ms": [asyncio.run(checkpoints(folder, n)) for n in (20, 1_000)]}
    size = asyncio.run(export(folder, records))
    return found | {"verify": verified(folder, size)}


if __name__ == "__main__":
    main()
