"""Every minute: a checkpoint of each tenant's audit chain that has grown. Bounds how much of a chain is held by itself alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.domain.errors import LivoaError
from engine.ports.deps import Deps, DepsProvider

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

SCHEDULE = "30 * * * * *"

_LOG = logging.getLogger("livoa.audit")


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """How many tenants have all of their chain anchored now, and how many could not be helped."""

    anchored: int = 0
    failed: int = 0


async def checkpoint_all(deps: Deps) -> CheckpointReport:
    """Make the checkpoints that are due. One tenant's failure does not keep the others waiting."""
    await deps.rejections.close()
    anchored = failed = 0
    for tenant in await deps.tenants.all():
        try:
            anchored += await deps.checkpoints.make(tenant.tenant_id) is not None
        except Exception as err:
            failed += 1
            code = err.code if isinstance(err, LivoaError) else "internal.unexpected"
            _LOG.exception("no checkpoint could be made", extra={"tenant_id": tenant.tenant_id, "code": code})
    return CheckpointReport(anchored, failed)


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
