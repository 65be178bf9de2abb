"""Steps over the bus under seeded chaos: one effect for each key, no step lost, no run stuck.

One seed alone: ``LIVOA_CHAOS_SEED=17 .venv/bin/python -m pytest tests/chaos/test_bus.py -q``.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from engine.domain.audit import AuditRecord, AuditType
from engine.domain.bus import AssignmentStatus
from engine.domain.run import Run
from engine.domain.status import RunStatus, StepStatus
from engine.evidence import verify
from tests.chaos.bus_world import RUN, TENANT, BusWorld

SEEDS = range(10)
THOROUGH_SEEDS = 200


def _seeds() -> list[object]:
    only = os.environ.get("LIVOA_CHAOS_SEED")
    if only is not None:
        return [int(only)]
    more = [pytest.param(seed, marks=pytest.mark.thorough) for seed in range(len(SEEDS), THOROUGH_SEEDS)]
    return [*SEEDS, *more]


@pytest.mark.parametrize("seed", _seeds())
async def test_one_effect_for_each_key_no_step_lost_no_run_stuck(seed: int, tmp_path: Path) -> None:
    world = BusWorld(seed, tmp_path)
    print(f"seed {seed}")
    try:
        run = await world.play()
        found = await broken(world, run)
    except AssertionError as err:
        raise AssertionError(f"{_again(world)}\n  {err}") from err
    assert not found, "\n  ".join([_again(world), *found])


def _again(world: BusWorld) -> str:
    again = f"LIVOA_CHAOS_SEED={world.seed} .venv/bin/python -m pytest tests/chaos/test_bus.py -q"
    return f"seed {world.seed}; alone: {again}; crashes {world.crashes}; clock {world.jumps_s}"


async def broken(world: BusWorld, run: Run) -> list[str]:
    """The sentences that do not hold."""
    found = [f"the effect of {key} is there {count} times" for key, count in world.agent.effects.items() if count != 1]
    found += [
        f"{key} was asked differently: {len(asked)}" for key, asked in world.agent.asked.items() if len(asked) > 1
    ]
    found += await _of_the_run(world, run)
    rows = world.assignments._rows.values()
    found += [f"{row.key} is left {row.status}" for row in rows if row.status in (AssignmentStatus.QUEUED, "leased")]
    if run.status is RunStatus.SUCCEEDED:
        found += [f"{row.key} ended {row.status}" for row in rows if row.status is not AssignmentStatus.FINISHED]
    records = await world.audit.read(TENANT, after_seq=0, limit=1_000)
    found += [f"the chain: {finding}" for finding in verify(records, TENANT)]
    found += [f"nobody says what came of {intent}" for intent in _without_a_word(records)]
    budget = await world.budgets.state(TENANT, RUN)
    if budget is not None and budget.reserved_micro_usd:
        found.append(f"money is left reserved: {budget}")
    found += world.unrecorded
    unasked = set(world.bus.dead) - {"deliveries"}
    return [*found, *(f"a command was poison: {code}" for code in unasked)]


def _without_a_word(records: tuple[AuditRecord, ...]) -> set[str]:
    """Attempts that were announced, and no record tells how they ended."""
    ids: dict[AuditType, set[str]] = {kind: set() for kind in AuditType}
    for record in records:
        ids[record.type].add(record.entry_id.partition(f"/{record.type.value}")[0])
    return ids[AuditType.DISPATCH_INTENDED] - ids[AuditType.DISPATCH_RESULT] - ids[AuditType.RESULT_UNKNOWN]


async def _of_the_run(world: BusWorld, run: Run) -> list[str]:
    allowed = {RunStatus.SUCCEEDED, RunStatus.CANCELLED} if world.is_cancelled else {RunStatus.SUCCEEDED}
    found = [] if run.status in allowed else [f"the run ended {run.status} {run.error}"]
    events = await world.events.read(TENANT, RUN, after_seq=0, limit=1_000)
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append("the event log has gaps")
    done = Counter(
        (event.data["step_id"], event.data.get("item")) for event in events if event.type.value == "step.succeeded"
    )
    lost = [event.data["step_id"] for event in events if event.data.get("code") == "agent.lease_lost"]
    leases_hold = all(jump_s < 0 for jump_s in world.jumps_s)  # a clock that is set forwards ends them
    if world.is_calm and leases_hold and not any(crash.startswith("worker") for crash in world.crashes):
        found += [f"{step_id} was taken from a worker that lived" for step_id in lost]
    found += [f"{step} succeeded {count} times" for step, count in done.items() if count != 1]
    if run.status is not RunStatus.SUCCEEDED:
        return found
    for step in world.plan["steps"]:
        record = await world.runs.get_step(TENANT, RUN, step["id"])
        if record is None or record.status is not StepStatus.SUCCEEDED or record.output_ref is None:
            found.append(f"{step['id']} is lost: {record and record.status}")
            continue
        output = json.loads(await world.payloads.get(TENANT, RUN, record.output_ref))
        if isinstance(step["inputs"]["n"], int) and output != {"n": step["inputs"]["n"] + 1}:
            found.append(f"{step['id']} has another output")
    return found
