"""Somebody suspends a run whose steps workers have, and resumes it: what ends meanwhile is on record before that."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from engine.domain.bus import AssignmentStatus
from engine.domain.errors import ConflictError, LivoaError
from engine.domain.run import Run
from engine.domain.status import StepStatus
from tests.chaos.operators import BOSS, NoClient
from tests.support.durable_client import EngineClient
from triggers import run_control
from triggers.endpoint import Call

if TYPE_CHECKING:
    from tests.chaos.bus_world import BusWorld

SOON = timedelta(seconds=60)
"""An end is recorded by then, though hosts and stores fail."""


async def suspend_and_resume(world: BusWorld) -> None:
    """In half of the seeds, once or twice, for a moment or for minutes; a source of its own leaves the others what they were."""
    chance = random.Random(f"bus-holds/{world.seed}")
    for _ in range(chance.choice((0, 0, 1, 2))):
        await world.clock.sleep_s(chance.uniform(0, 60))
        try:
            await run_control.suspend(await _run(world), _call(world))
        except ConflictError:
            return
        world.holds += 1
        await world.clock.sleep_s(chance.choice((1, 400, 500)))
        world.unrecorded += await _unrecorded(world)
        with contextlib.suppress(LivoaError):
            await run_control.resume(await _run(world), _call(world), None)


async def _unrecorded(world: BusWorld) -> list[str]:
    """Steps that ended a while ago, and whose records do not say so."""
    found, now = [], world.clock.now()
    is_suspended = (await _run(world)).status.value == "suspended"
    for row in tuple(world.assignments._rows.values()):
        is_old = row.ended_at is not None and now - row.ended_at > SOON
        if not is_suspended or world.jumps_s or not is_old or row.status is not AssignmentStatus.FINISHED:
            continue
        record = await world.runs.get_step(row.tenant_id, row.run_id, row.step_id, row.item)
        if record is not None and record.status is StepStatus.RUNNING and record.attempt == row.attempt:
            found.append(
                f"{row.key} ended at {row.ended_at} and is still running at {now}, because the run is suspended"
            )
    return found


async def _run(world: BusWorld) -> Run:
    from tests.chaos.bus_world import RUN, TENANT

    run = await world.runs.get(TENANT, RUN)
    assert run is not None
    return run


def _call(world: BusWorld) -> Call:
    raw: dict[str, Any] = {
        name: getattr(world, name) for name in ("runs", "events", "audit", "budgets", "payloads", "approvals")
    }
    deps = dataclasses.replace(world.deps_of(world.life_of("host")), **raw)
    host = world.host
    client = NoClient() if host is None or host.life.is_dead else EngineClient(host.engine)
    return Call(request=cast(Any, None), deps=deps, principal=BOSS, client=cast(Any, client))
