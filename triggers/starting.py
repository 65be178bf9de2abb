"""Making sure that an accepted run is started, once, whatever crashed in between. The run store is the truth."""

from __future__ import annotations

import logging
from typing import Any

from engine.domain.base import iso_utc
from engine.domain.names import CANCEL_EVENT, RUN_ORCHESTRATOR
from engine.domain.run import Run
from triggers.http_adapter import DurableClient

_LOG = logging.getLogger("livoa.runs")


def orchestration_input(run: Run) -> dict[str, Any]:
    """What the run orchestrator is given: who and until when, nothing that a caller wrote."""
    return {"tenant_id": run.tenant_id, "run_id": run.run_id, "deadline_at": iso_utc(run.deadline_at)}


async def start(run: Run, client: DurableClient) -> None:
    """Start the run's orchestration under the run's id. Raises whatever the durable client raises."""
    await client.start_new(RUN_ORCHESTRATOR, run.run_id, orchestration_input(run))


async def is_started(run: Run, client: DurableClient) -> bool:
    """True when the engine knows an instance of this run, whatever its state."""
    status = await client.get_status(run.run_id)
    # For an unknown instance the SDK returns a status object without an id.
    return bool(getattr(status, "instance_id", None))


async def try_start(run: Run, client: DurableClient) -> bool:
    """Start a new run; a failure is logged and left to the sweep, because the run itself is already accepted."""
    try:
        await start(run, client)
    except Exception:
        _LOG.warning("start failed, left to the sweep", exc_info=True, extra={"run_id": run.run_id})
        return False
    return True


async def ask_to_cancel(run: Run, client: DurableClient) -> None:
    """Tell the run's orchestration that it is cancelled. Telling it twice changes nothing."""
    await client.raise_event(run.run_id, CANCEL_EVENT, {"run_id": run.run_id})
