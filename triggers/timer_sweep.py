"""The sweep: every 15 seconds, start accepted runs that never started and remind cancelled ones.

It makes up for crashes and lost events, nothing else: a run that is under way is the orchestration's business.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from engine.domain.run import Run
from engine.domain.status import RunStatus
from engine.ports.deps import Deps, DepsProvider
from triggers.http_adapter import CLIENT_PARAMETER, DurableClient
from triggers.starting import ask_to_cancel, is_started, start

if TYPE_CHECKING:
    from azure.durable_functions import Blueprint

SCHEDULE = "*/15 * * * * *"
MAX_RUNS = 1_000
GRACE_S = 10.0
"""Younger runs are still in the hands of the request that accepted or cancelled them."""
REMIND_FOR_S = 120.0
"""How long a cancelled run is reminded; every reminder is an entry in its history, so there is an end to it."""

CARED_FOR = frozenset({RunStatus.ACCEPTED, RunStatus.CANCELLING})
"""The statuses in which a run may need help; asking for these alone keeps them visible behind any number under way."""

_LOG = logging.getLogger("livoa.sweep")
Care = Literal["none", "start", "remind"]


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did."""

    looked_at: int = 0
    started: int = 0
    reminded: int = 0
    failed: int = 0


def care_for(run: Run, *, started: bool, now: datetime) -> Care:
    """What a run needs. Pure."""
    idle = now - run.updated_at
    if run.status not in CARED_FOR or idle < timedelta(seconds=GRACE_S):
        return "none"
    if not started:
        return "start"
    cancelled = run.status is RunStatus.CANCELLING
    return "remind" if cancelled and idle < timedelta(seconds=REMIND_FOR_S) else "none"


async def sweep(deps: Deps, client: DurableClient) -> SweepReport:
    """Look after the oldest unfinished runs. One run's failure does not keep the others waiting."""
    now = deps.clock.now()
    counts: dict[str, int] = {"none": 0, "start": 0, "remind": 0, "failed": 0}
    runs = await deps.runs.unfinished(MAX_RUNS, statuses=CARED_FOR)
    for run in runs:
        # Asking the engine costs a call, so it is asked only where an answer could change something.
        if care_for(run, started=False, now=now) == "none":
            continue
        try:
            counts[await _care(run, client, now)] += 1
        except Exception:
            counts["failed"] += 1
            _LOG.warning("sweep could not help a run", exc_info=True, extra={"run_id": run.run_id})
    report = SweepReport(len(runs), counts["start"], counts["remind"], counts["failed"])
    if report.started or report.reminded:
        _LOG.info("sweep: started %d, reminded %d", report.started, report.reminded)
    return report


async def _care(run: Run, client: DurableClient, now: datetime) -> Care:
    care = care_for(run, started=await is_started(run, client), now=now)
    if care == "start":
        await start(run, client)
    elif care == "remind":
        await ask_to_cancel(run, client)
    return care


def build(deps: DepsProvider) -> Blueprint:
    """The blueprint of the timer."""
    from azure.durable_functions import Blueprint
    from azure.functions import TimerRequest

    async def sweep_runs(timer: Any, client: Any) -> None:
        await sweep(deps(), client)

    sweep_runs.__annotations__ = {"timer": TimerRequest, CLIENT_PARAMETER: str, "return": None}
    blueprint = Blueprint()
    function: Any = blueprint.timer_trigger(
        arg_name="timer", schedule=SCHEDULE, run_on_startup=False, use_monitor=False
    )(sweep_runs)
    blueprint.durable_client_input(client_name=CLIENT_PARAMETER)(function)
    return blueprint
