"""Making sure that an accepted run is started, once, whatever crashed in between. The run store is the truth."""

from __future__ import annotations

import logging
from typing import Any

from engine.domain.approval import Approval
from engine.domain.base import iso_utc
from engine.domain.bus import Assignment
from engine.domain.errors import LivoaError
from engine.domain.names import CANCEL_EVENT, HOLD_MS, INPUT_VERSION, ROLL_AFTER, RUN_ORCHESTRATOR, approval_event
from engine.domain.run import Run
from engine.domain.tenant import Quota
from triggers.http_adapter import DurableClient

_LOG = logging.getLogger("livoa.runs")


def orchestration_input(run: Run, quota: Quota | None = None) -> dict[str, Any]:
    """What the run orchestrator is given: who, until when, and under which limits it takes its place; nothing a caller wrote.

    Without ``quota`` the run takes no place: it is started only to be ended.
    """
    ids = {"tenant_id": run.tenant_id, "run_id": run.run_id}
    given = {
        "v": INPUT_VERSION,
        **ids,
        "deadline_at": iso_utc(run.deadline_at),
        "roll_after": ROLL_AFTER,
        "hold_ms": HOLD_MS,
    }
    if quota is None:
        return given
    terms = {
        "limit": quota.max_concurrent_runs,
        "lease_ms": int(quota.lease_s * 1_000),
        "max_wait_s": quota.max_wait_s,
    }
    return {**given, "quota": terms}


async def start(run: Run, client: DurableClient, quota: Quota | None = None) -> None:
    """Make sure that the run's orchestration is started under the run's id; somebody else may be doing the same.

    Raises ``LivoaError("engine.unavailable", status=503)``.
    """
    try:
        await client.start_new(RUN_ORCHESTRATOR, run.run_id, orchestration_input(run, quota))
    except Exception as err:
        # The engine refuses a second instance under the same id, with an exception that cannot be told from others.
        if not await is_started(run, client):
            raise _unavailable() from err


async def is_started(run: Run, client: DurableClient) -> bool:
    """True when the engine knows an instance of this run, whatever its state. Raises like ``start``."""
    try:
        status = await client.get_status(run.run_id)
    except Exception as err:
        raise _unavailable() from err
    # For an unknown instance the SDK returns a status object without an id.
    return bool(getattr(status, "instance_id", None))


async def try_start(run: Run, client: DurableClient, quota: Quota | None = None) -> bool:
    """Start a new run; a failure is logged and left to the sweep, because the run itself is already accepted."""
    try:
        await start(run, client, quota)
    except LivoaError as err:
        # Its cause by type only: a full host refuses many, and the traceback of a refusal says nothing.
        extra = {"run_id": run.run_id, "code": err.code}
        _LOG.warning("start failed (%s), left to the sweep", type(err.__cause__).__name__, extra=extra)
        return False
    return True


async def ask_to_cancel(run: Run, client: DurableClient) -> None:
    """Tell the run's orchestration that it is cancelled. Telling it twice changes nothing. Raises like ``start``."""
    try:
        await client.raise_event(run.run_id, CANCEL_EVENT, {"run_id": run.run_id})
    except Exception as err:
        raise _unavailable() from err


async def tell_answer(approval: Approval, client: DurableClient) -> bool:
    """Announce an answer to whoever waits for it. A failure is logged and left to the sweep: the answer itself is written."""
    try:
        await client.raise_event(
            approval.waiter, approval_event(approval.approval_id), {"approval_id": approval.approval_id}
        )
    except Exception:
        _LOG.warning("answer not announced, left to the sweep", exc_info=True, extra={"run_id": approval.run_id})
        return False
    return True


async def tell_step_ended(assignment: Assignment, client: DurableClient) -> bool:
    """Announce to whoever waits that a worker's step has ended. A failure is logged and left to the sweep: the end is stored."""
    try:
        said = {"key": assignment.key, "token": assignment.token}
        await client.raise_event(assignment.waiter, assignment.event, said)
    except Exception:
        _LOG.warning("step's end not announced, left to the sweep", exc_info=True, extra={"run_id": assignment.run_id})
        return False
    return True


def _unavailable() -> LivoaError:
    return LivoaError("engine.unavailable", "The durable engine cannot be reached.", status=503, retry_after_s=5)
