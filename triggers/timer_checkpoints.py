"""Every minute: a checkpoint of each tenant's audit chain that has grown. Bounds how much of a chain is held by itself alone."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.domain.errors import LivoaError
from engine.ports.deps import Deps, DepsProvider

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

SCHEDULE = "30 * * * * *"
AT_ONCE = 8
TENANT_TIMEOUT_S = 120.0
"""A backlog of 50,000 records takes seconds; what takes longer is given up, and found again by the next minute."""

_LOG = logging.getLogger("livoa.audit")


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """How many tenants have all of their chain anchored now, and how many could not be helped."""

    anchored: int = 0
    failed: int = 0


async def checkpoint_all(deps: Deps) -> CheckpointReport:
    """Make the checkpoints that are due, ``AT_ONCE`` tenants at a time. Neither the failure of one nor its slowness keeps the
    others waiting."""
    await deps.rejections.close()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(tenant_id: str) -> bool | None:
        async with places:
            return await _made(tenant_id, deps)

    tenants = await deps.tenants.all()
    made = await asyncio.gather(*(one(tenant.tenant_id) for tenant in tenants))
    return CheckpointReport(made.count(True), made.count(None))


async def _made(tenant_id: str, deps: Deps) -> bool | None:
    """Whether the chain has a checkpoint now; None when it could not be helped."""
    try:
        async with asyncio.timeout(TENANT_TIMEOUT_S):
            return await deps.checkpoints.make(tenant_id) is not None
    except Exception as err:
        code = err.code if isinstance(err, LivoaError) else "internal.unexpected"
        code = "checkpoint.timeout" if isinstance(err, TimeoutError) else code
        _LOG.exception("no checkpoint could be made", extra={"tenant_id": tenant_id, "code": code})
        return None


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of the timer."""
    from azure.durable_functions import Blueprint
    from azure.functions import TimerRequest

    async def make_checkpoints(timer: Any) -> None:
        await checkpoint_all(deps())

    make_checkpoints.__annotations__ = {"timer": TimerRequest, "return": None}
    blueprint = Blueprint()
    blueprint.timer_trigger(arg_name="timer", schedule=SCHEDULE, run_on_startup=False, use_monitor=False)(
        make_checkpoints
    )
    return blueprint
